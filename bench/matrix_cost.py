"""What a technique costs beside full training: memory, arithmetic and time of a step, in turns.

The model is a Phi-3 of hidden size 512 with 8 layers and random weights: large enough that weights, gradients
and moments show beside the activations. Full training in one process waits beside each technique, and both
take steps in turns, each process on one core: 2 sequences of 128 tokens, of two processes each takes one.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.matrix_cells import SCENARIOS, Technique
from bench.matrix_runs import MODEL, fork

if TYPE_CHECKING:
    from tuning.run import Run

FULL = Technique("", "full", 1e-4)
SEQUENCES, LENGTH = 2, 128
ROUNDS = 4
EVENTS = "events.jsonl"
SIZES = {"vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 512}


@dataclass(frozen=True)
class Cost:
    """A technique, and what it takes as a share of what full training takes in a step.

    `share` of its parameters is trained. A process has `held_bytes` of weights, gradients and moments and
    takes `peak_bytes` at most, `held` and `peak` of full training's; operations are those of all processes.
    """

    technique: str
    share: float
    held: float
    held_bytes: int
    peak: float
    peak_bytes: int
    operations: float
    seconds: float


def make_model(folder: Path) -> Path:
    """The model that is measured, with tiny-phi3's tokenizer; made in a process of its own."""

    def work(_rank: int) -> int:
        import torch
        from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

        torch.manual_seed(7)
        config = Phi3Config(**SIZES, **HEADS, pad_token_id=0, eos_token_id=0, bos_token_id=0)
        Phi3ForCausalLM(config).save_pretrained(folder / "model")
        AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder / "model")
        return 0

    (pid,) = fork(1, folder, work, threads=1)
    os.waitpid(pid, 0)
    return folder / "model"


class Contender:
    """A technique in processes of its own, which take a step when asked."""

    def __init__(self, name: str, technique: Technique, model: Path, folder: Path) -> None:
        self.name, self._folder = name, folder
        folder.mkdir()
        pipes = [Pipe() for _ in range(technique.processes)]
        self._ends = [ours for ours, _ in pipes]
        config = folder / "config.json"
        config.write_text(json.dumps(_config(technique)), encoding="utf-8")

        def work(rank: int) -> int:
            return _take_steps_when_asked(pipes[rank][1], config, model, folder)

        self._pids = fork(technique.processes, folder, work, threads=1)
        for _, theirs in pipes:
            theirs.close()
        self.facts = self._ask("prepare")

    def step(self) -> float:
        """The seconds of a step, until the last process is through."""
        start = time.perf_counter()
        self._ask("step")
        return time.perf_counter() - start

    def peaks(self) -> list[int]:
        """Bytes of each process at its peak, beyond what it held before the model came, without loading."""
        return [fact["peak"] for fact in self._ask("peak")]

    def end(self) -> None:
        """Let the processes end."""
        for end in self._ends:
            with suppress(BrokenPipeError):
                end.send("end")
        for pid in self._pids:
            os.waitpid(pid, 0)

    def _ask(self, what: str) -> list[dict[str, Any]]:
        for end in self._ends:
            end.send(what)
        try:
            return [end.recv() for end in self._ends]
        except EOFError:
            raise SystemExit(f"{self.name}:\n" + (self._folder / "log-0.txt").read_text()[-3000:]) from None


@contextmanager
def contender(name: str, technique: Technique, model: Path, folder: Path) -> Iterator[Contender]:
    """A contender that ends with the block."""
    started = Contender(name, technique, model, folder)
    try:
        yield started
    finally:
        started.end()


def compare(full: Contender, other: Contender) -> Cost:
    """Steps in turns, after one of each to get warm."""
    pairs = [(full.step(), other.step()) for _ in range(ROUNDS + 1)][1:]
    held, peak = other.facts[0]["held"], max(other.peaks())
    work = [sum(fact["operations"] for fact in one.facts) for one in (full, other)]
    return Cost(
        technique=other.name,
        share=other.facts[0]["share"],
        held=held / full.facts[0]["held"],
        held_bytes=held,
        peak=peak / max(full.peaks()),
        peak_bytes=peak,
        operations=work[1] / work[0],
        seconds=statistics.median(theirs / ours for ours, theirs in pairs),
    )


def _config(technique: Technique) -> dict[str, Any]:
    return {
        "task": "domain",
        "method": {"name": technique.method, **technique.keys},
        "training": {
            "max_steps": 1000,
            "epochs": 1000,
            "batch_size": SEQUENCES // technique.processes,
            "max_length": LENGTH,
            "precision": "fp32",
        },
        "distributed": {
            "strategy": technique.strategy,
            "offload": technique.offload,
            "processes": technique.processes,
        },
    }


def _take_steps_when_asked(pipe: Connection, config: Path, model: Path, folder: Path) -> int:
    """In a process of a contender: prepare a run, then do what the pipe says."""
    from tuning import distributed
    from tuning.config import read_config
    from tuning.events import EventLog
    from tuning.methods import METHODS
    from tuning.run import Files, prepare
    from tuning.stopping import StopRequest

    before = _resident("VmRSS")
    given = read_config(config)
    processes = distributed.join(given.distributed)
    written = SCENARIOS["domain"].write_rows(folder) if processes.is_first else []
    rows, held_out = processes.gather(written)[0]
    (folder / "run").mkdir(exist_ok=True)
    log = EventLog(folder / EVENTS, enabled=processes.is_first)
    with StopRequest() as stop, log as events:
        run = prepare(given, Files(rows, held_out, str(model), folder / "run"), processes, stop, events)
        run.objective.get_ready(run)
        run.around_step = METHODS[given.method.name].around_step(run.model, run.optimizer)
        ctypes.CDLL(None).malloc_trim(0)  # give back what loading freed
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # and forget its peak
        _answer(pipe, run, before, folder / EVENTS)
    return 0


def _answer(pipe: Connection, run: Run, before: int, log: Path) -> None:
    """Take a step for each "prepare", counting its operations, and for each "step", until the "end"."""
    from torch.utils.flop_counter import FlopCounterMode

    import train

    for step in count():
        asked = pipe.recv()
        if asked == "end":
            return
        if asked == "peak":
            pipe.send({"peak": _resident("VmHWM") - before})
            continue
        counted = FlopCounterMode(display=False)
        with counted if asked == "prepare" else nullcontext():
            train.take_step(run, step)
        run.holdings.report_once(run.events, run.processes)
        share = run.sizes[1] / run.sizes[0]
        pipe.send({"operations": counted.get_total_flops(), "share": share, "held": _held(log)})


def _held(log: Path) -> int:
    """Bytes that the fullest process holds, by the event of the first step."""
    from tuning.sharding import PARTS

    events = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    memory = next((event for event in events if event["event"] == "memory"), None)
    return (
        0 if memory is None else max(map(sum, zip(*(memory[f"{part}_bytes"] for part in PARTS), strict=True)))
    )


def _resident(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))
