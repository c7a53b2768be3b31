"""Runs of the bundled script in forked processes: libraries are loaded once, and each run is alone."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.matrix_cells import Cell

MODEL = Path(__file__).resolve().parents[1] / "models" / "tiny-phi3"
CORES = max(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Learned:
    """What a cell's result.json says; `seconds` are those of the steps, `low` and `high` of the change."""

    cell: str
    metric: str
    direction: str
    before: float
    after: float
    low: float
    high: float
    steps: int
    rows: int
    seconds: float
    share: float

    @property
    def is_better(self) -> bool:
        """Whether the model is better than before, beyond what other held-out rows might have given."""
        return self.low > 0 if self.direction == "max" else self.high < 0


def config_of(cell: Cell, steps: int) -> dict[str, Any]:
    """The config of a cell's run."""
    scenario, technique = cell.scenario, cell.technique
    return {
        "task": scenario.task,
        "method": {"name": technique.method, **technique.keys},
        "training": {
            "max_steps": steps,
            "epochs": 1000,
            "batch_size": scenario.batch_size // technique.processes,
            "max_length": scenario.max_length,
            "learning_rate": technique.rate,
            "packing": False,
            "precision": "fp32",
        },
        "evaluation": {"max_rows": scenario.max_rows, "max_new_tokens": scenario.max_new_tokens},
        "distributed": {
            "strategy": technique.strategy,
            "offload": technique.offload,
            "processes": technique.processes,
        },
    }


@dataclass(frozen=True)
class Started:
    """A cell's run in processes that go on by themselves."""

    cell: Cell
    folder: Path
    pids: list[int]

    def read(self, codes: list[int]) -> Learned:
        """What came of it, when all have ended; ends the program where they failed."""
        if any(codes):
            said = (self.folder / "log-0.txt").read_text(encoding="utf-8")
            raise SystemExit(f"{self.cell} ended with {codes}:\n{said[-3000:]}")
        result = (self.folder / "run" / "result.json").read_text(encoding="utf-8")
        return _read(self.cell, json.loads(result))


def start(cell: Cell, folder: Path, steps: int) -> Started:
    """Let a cell be trained."""
    folder.mkdir()
    config = folder / "config.json"
    config.write_text(json.dumps(config_of(cell, steps)), encoding="utf-8")
    rows, held_out = cell.scenario.write_rows(folder)
    words = ["--config", config, "--train", rows, "--validation", held_out, "--model", MODEL]
    arguments = [str(word) for word in [*words, "--output", folder / "run"]]

    def work(_rank: int) -> int:
        import train

        return train.main(arguments)

    return Started(cell, folder, fork(cell.technique.processes, folder, work, threads=1))


def learn_all(chosen: Sequence[Cell], folder: Path, steps: int | None) -> Iterator[Learned]:
    """Train cells, each process with a core of its own; they come as they are done."""
    waiting, running, codes = deque(chosen), list[Started](), dict[int, int]()
    while waiting or running:
        free = CORES - sum(len(one.pids) for one in running)
        if waiting and (waiting[0].technique.processes <= free or not running):
            cell = waiting.popleft()
            running.append(start(cell, folder / str(cell), steps or cell.scenario.steps))
            continue
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        for one in [one for one in running if all(pid in codes for pid in one.pids)]:
            running.remove(one)
            yield one.read([codes[pid] for pid in one.pids])


def _read(cell: Cell, result: dict[str, Any]) -> Learned:
    metric, change = result["metric"], result["change"]
    return Learned(
        cell=str(cell),
        metric=metric,
        direction=result["direction"],
        before=result["before"][metric],
        after=result["after"][metric],
        low=change["low"],
        high=change["high"],
        steps=result["steps"],
        rows=result["rows"]["validation"],
        seconds=result["train_seconds"],
        share=result["trainable_share"],
    )


def load_libraries() -> None:
    """Load what every run needs. Nothing may be computed here: threads do not survive a fork."""
    from tuning.startup import ENVIRONMENT

    for name, value in {**ENVIRONMENT, "DS_ACCELERATOR": "cpu"}.items():
        os.environ.setdefault(name, value)
    import bitsandbytes  # noqa: F401
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import transformers.models.phi3.modeling_phi3  # noqa: F401

    import train  # noqa: F401


def fork(count: int, folder: Path, work: Callable[[int], int], *, threads: int) -> list[int]:
    """Let `count` processes that know their places do `work(rank)`, each with some threads; their ids."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": count, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pids = []
    for rank in range(count):
        if not (pid := os.fork()):
            told = place | {"RANK": rank, "LOCAL_RANK": rank} if count > 1 else {}
            os.environ.update({name: str(value) for name, value in told.items()})
            os._exit(_work_alone(work, rank, folder / f"log-{rank}.txt", threads))
        pids.append(pid)
    return pids


def _work_alone(work: Callable[[int], int], rank: int, log: Path, threads: int) -> int:
    """In a forked process: work, and say everything in a log."""
    import traceback

    import torch

    from tuning.allocator import give_back_freed_memory
    from tuning.startup import prepare_process

    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(target, standard)
    torch.set_num_threads(threads)
    try:
        prepare_process()
        give_back_freed_memory()  # peaks are what tensors take
        return work(rank)
    except Exception:  # noqa: BLE001 - as python does at the end of a program
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
