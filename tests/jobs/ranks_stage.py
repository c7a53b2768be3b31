"""Starts the training script as several processes, as Azure ML does it: each with its rank and an address.

Libraries take ten seconds to load, so one process loads them once and forks the others: they start quickly.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from training_stage import JOBS, read_events

PATIENCE_S = 120.0


@dataclass
class Started:
    """The processes of one run, by rank, and what they say."""

    pids: list[int]
    output: Path
    logs: list[Path]
    ranks: Ranks

    def wait(self, timeout_s: float = PATIENCE_S) -> list[int]:
        """The exit codes of all processes (128 + signal for one that was killed)."""
        return [self.ranks.ask(wait=pid, timeout_s=timeout_s)["code"] for pid in self.pids]

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        os.kill(self.pids[rank], number)

    def wait_for_event(self, kind: str, count: int = 1) -> None:
        """Return when there are so many events of a kind; fail when all processes ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if (self.output / "events.jsonl").exists() and len(read_events(self.output, kind)) >= count:
                return
            assert any(Path(f"/proc/{pid}/fd").exists() for pid in self.pids), self.said()
            time.sleep(0.01)
        raise AssertionError(f"no {kind} number {count}: {self.said()}")

    def said(self) -> str:
        """What the processes wrote to stdout and stderr."""
        return "\n".join(log.read_text() for log in self.logs)


class Ranks:
    """A process that has loaded the libraries and forks others on request."""

    def __init__(
        self, folder: Path, environment: dict[str, str] | None = None, *, libraries: Sequence[str] = ()
    ) -> None:
        self._folder, self._runs = folder, 0
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, *libraries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **alone, "PYTHONPATH": str(JOBS), **(environment or {})},
        )

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order to the process and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, count: int, output: Path, *words: object, stop_after_step: int = 0) -> Started:
        """Start train.py in `count` processes; `words` are its arguments besides --output.

        The first one asks itself to stop, as SIGTERM does, as soon as it has told of a step.
        """
        self._runs += 1
        arguments = [*map(str, words), "--output", str(output)]
        logs = [self._folder / f"log-{self._runs}-{rank}.txt" for rank in range(count)]
        port = _free_port()
        pids = []
        for rank, log in enumerate(logs):
            place = {} if count == 1 else _place(rank, count, port)
            stop = 0 if rank else stop_after_step
            order = {"arguments": arguments, "environment": place, "log": str(log), "stop_after_step": stop}
            pids.append(self.ask(**order)["pid"])
        return Started(pids, output, logs, self)

    def run(self, count: int, output: Path, *words: object) -> Started:
        """Start train.py and see all its processes succeed."""
        started = self.start(count, output, *words)
        codes = started.wait()
        assert codes == [0] * count, started.said()
        return started


class Stopper(io.StringIO):
    """A stdout that sends SIGTERM to its own process when the event of a step is written there."""

    def __init__(self, stdout: TextIO, step: int) -> None:
        super().__init__()
        self._stdout, self._step = stdout, step

    def write(self, text: str) -> int:
        told = json.loads(text.removeprefix("@maas ")) if text.startswith("@maas ") else {}
        if told.get("event") == "step" and told["step"] == self._step:
            signal.raise_signal(signal.SIGTERM)
        return self._stdout.write(text)

    def flush(self) -> None:
        self._stdout.flush()


def _place(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment variables by which a launcher tells a process its place."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "NODE_RANK": 0, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in ranks.items()}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve() -> None:
    """Load the libraries, then fork for each order on stdin."""
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers.models.phi3.modeling_phi3  # noqa: F401

    import train

    for name in sys.argv[1:]:
        importlib.import_module(name)
    torch.set_num_threads(1)
    said = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = {"code": _wait(order["wait"], order["timeout_s"])}
        elif pid := os.fork():
            answer = {"pid": pid}
        else:
            said.close()
            os._exit(_train(train, order))
        said.write(json.dumps(answer) + "\n")
        said.flush()


def _train(train: Any, order: dict[str, Any]) -> int:
    """In a forked process: train, with stdout and stderr in the log."""
    import traceback

    from tuning.allocator import give_back_freed_memory
    from tuning.startup import prepare_process

    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.environ.update(order["environment"])
    if order["stop_after_step"]:
        os.environ["MAAS_EVENTS"] = "stdout"
        sys.stdout = Stopper(sys.stdout, order["stop_after_step"])
    try:
        prepare_process()
        give_back_freed_memory()  # so that peaks are what tensors take
        return int(train.main(order["arguments"]))
    except Exception:  # noqa: BLE001 - as python does at the end of a program
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait(pid: int, timeout_s: float) -> int:
    """The exit code of a process; one that does not end in time is killed."""
    deadline = time.monotonic() + timeout_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


if __name__ == "__main__":
    _serve()
