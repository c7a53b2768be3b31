"""Who am I, who else is there, and who is there no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]
from training_stage import JOBS, losses, read_events, run_script

from tuning.config import DistributedConfig
from tuning.distributed import Processes, join
from tuning.errors import FailedError, InputError, StoppedError
from tuning.liveness import STOPPED, Liveness, Pace

QUICK = Pace(beat_s=0.02, silence_s=0.4, grace_s=0.5)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "environment", "words"),
    [
        (DistributedConfig("none", 1), {"WORLD_SIZE": "2"}, "accepted: ddp, zero1, zero2, zero3, fsdp"),
        (DistributedConfig("none", 2), {}, "distributed.strategy is none, but several processes run"),
        (DistributedConfig("ddp", 2), {}, "torch.distributed.run --standalone --nproc-per-node 2"),
        (DistributedConfig("fsdp", 2), {"WORLD_SIZE": "4"}, "distributed.processes is 2 but 4 runs"),
        (DistributedConfig("ddp", 2), {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; accepted: a whole number"),
        (DistributedConfig("ddp", 2), {"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x'"),
        (DistributedConfig("ddp", 2), {"WORLD_SIZE": "2", "RANK": "1"}, "but MASTER_ADDR is not set"),
        (
            DistributedConfig("ddp", 2),
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "RANK is 2; accepted: 0 to 1",
        ),
    ],
)
def test_an_environment_that_does_not_fit_is_one_sentence(
    config: DistributedConfig,
    environment: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as refused:
        join(config)
    assert words in str(refused.value)


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for strategy in ("none", "ddp"):
        processes = join(DistributedConfig(strategy, 1))
        assert (processes.rank, processes.count, dist.is_initialized()) == (0, 1, False)
    processes = join(DistributedConfig("fsdp", 1))
    assert dist.is_initialized()
    processes.leave()
    assert not dist.is_initialized()


def test_what_fails_in_one_process_fails() -> None:
    alone = Processes(0, 1, CPU)
    assert alone.together(lambda: 3) == [3]
    with pytest.raises(ZeroDivisionError):
        alone.together(lambda: 1 // 0)


class Store:
    """A store that can fall silent, as one whose host is gone."""

    def __init__(self) -> None:
        self._store, self.is_there = HashStore(), True

    def set(self, key: str, value: str) -> None:
        self._answer()
        self._store.set(key, value)

    def get(self, key: str) -> bytes:
        self._answer()
        value: bytes = self._store.get(key)
        return value

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self._answer()
        values: list[bytes] = self._store.multi_get(keys)
        return values

    def _answer(self) -> None:
        if not self.is_there:
            raise RuntimeError("Connection reset by peer")


@pytest.fixture
def store() -> Store:
    return Store()


def pretend(store: Store, place: str, word: str = "0") -> None:
    """Process 1 of 2, somewhere, which says nothing more by itself."""
    store.set("liveness/1/place", place)
    store.set("liveness/1/word", word)


@pytest.fixture
def alive(store: Store) -> Iterator[Callable[[str], Liveness]]:
    """Process 0 of 2, beside a process 1 at a place."""
    made = []

    def make(place: str) -> Liveness:
        pretend(store, place)
        made.append(Liveness(store, 0, 2, QUICK))
        return made[-1]

    yield make
    for one in made:
        one.end(STOPPED)


def here(pid: int) -> str:
    """A place on this machine, as `Liveness` tells it."""
    told = Store()
    told.set("liveness/1/place", "x y 1")
    told.set("liveness/1/word", "0")
    Liveness(told, 0, 2, QUICK).end(STOPPED)
    machine, host, _ = told.get("liveness/0/place").decode().split(" ")
    return f"{machine} {host} {pid}"


def test_a_process_that_speaks_is_alive(store: Store, alive: Callable[[str], Liveness]) -> None:
    mine = alive(here(os.getpid()))
    for word in range(1, 40):
        pretend(store, "", str(word))
        time.sleep(0.02)
    assert mine.who_is_gone(0) is None


def test_a_silent_process_is_gone(alive: Callable[[str], Liveness]) -> None:
    assert "Process 1 of 2 (far, pid 7) gave no sign of life for 0 s" in (
        alive("elsewhere far 7").who_is_gone() or ""
    )


def test_a_killed_process_is_named_at_once(alive: Callable[[str], Liveness]) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    said = alive(here(ended.pid)).who_is_gone(0.3) or ""
    assert f"pid {ended.pid}) ended without a word" in said
    assert "the same command goes on from the newest checkpoint" in said


def test_last_words_are_passed_on(store: Store, alive: Callable[[str], Liveness]) -> None:
    mine = alive("elsewhere far 7")
    store.set("liveness/1/word", "There is not enough memory.")
    assert mine.who_is_gone() == "Process 1 of 2 (far, pid 7) failed: There is not enough memory."


def test_a_store_that_falls_silent_is_noticed(store: Store, alive: Callable[[str], Liveness]) -> None:
    mine = alive("elsewhere far 7")
    store.is_there = False
    assert "No other process was heard of" in (mine.who_is_gone() or "")


def test_what_lies_behind_a_broken_connection(store: Store, alive: Callable[[str], Liveness]) -> None:
    broken = RuntimeError("[gloo] Connection closed by peer")
    mine = Processes(0, 2, CPU, alive("elsewhere far 7"))
    others = ValueError("a bug")
    assert mine.blame(others) is others
    assert str(mine.blame(InputError("x"))) == "x"
    assert mine.blame(StoppedError(signal.SIGINT, 4)).step == 4  # type: ignore[attr-defined]
    store.set("liveness/1/word", STOPPED)
    time.sleep(0.2)
    stopped = mine.blame(broken)
    assert isinstance(stopped, StoppedError)
    assert stopped.exit_code == 143
    store.set("liveness/1/word", "The disk is full.")
    time.sleep(0.2)
    failed = mine.blame(broken)
    assert isinstance(failed, FailedError)
    assert str(failed).endswith("failed: The disk is full.")


def test_a_launchers_signal_after_a_kill_is_no_stop(alive: Callable[[str], Liveness]) -> None:
    """torchrun stops the others when one is killed: that was a failure, not somebody's wish."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = Processes(0, 2, CPU, alive(here(ended.pid)))
    assert isinstance(mine.blame(StoppedError(signal.SIGTERM, 3)), FailedError)


def test_the_first_process_leaves_last_where_all_stop(store: Store) -> None:
    """It may be the one that keeps the words."""
    pretend(store, "elsewhere far 7")
    first = Liveness(store, 0, 2, QUICK)
    slower = threading.Timer(0.2, store.set, ["liveness/1/word", STOPPED])
    slower.start()
    asked_at = time.monotonic()
    first.end(STOPPED)
    assert 0.19 < time.monotonic() - asked_at < QUICK.grace_s
    slower.join()


HANGING = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
from tuning.liveness import Liveness, Pace

rank, port = int(sys.argv[1]), int(sys.argv[2])
store = TCPStore("127.0.0.1", port, 2, rank == 0, timedelta(seconds=60), wait_for_workers=False)
if rank == 0:
    print(store.port, flush=True)
Liveness(store.clone(), rank, 2, Pace(beat_s=0.1, silence_s=1.5, grace_s=0.2))
print("together", flush=True)
time.sleep(60)  # as in a collective that never ends
"""


@pytest.mark.slow
def test_a_process_that_hangs_because_of_another_is_ended(tmp_path: Path) -> None:
    """The other one neither runs on nor is dead: it is stopped in its tracks, as on a machine that froze."""
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)

    def start(rank: int, port: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, script, str(rank), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(JOBS)},
        )

    first = start(0, "0")
    assert first.stdout is not None
    second = start(1, first.stdout.readline().strip())
    assert second.stdout is not None
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == "together\n"
    second.send_signal(signal.SIGSTOP)
    try:
        _, said = first.communicate(timeout=30)
        assert first.returncode == 1
        assert f"pid {second.pid}) gave no sign of life" in said
    finally:
        second.kill()
        second.wait()


@pytest.mark.slow
def test_torchrun_starts_the_processes(
    mini_model: Path, color_rows: Path, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(batch_size=6, max_length=48)
    files = ["--train", str(color_rows), "--model", str(mini_model)]
    done = run_script("train.py", "--config", config, *files, "--output", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    value = json.loads(config.read_text())
    value["training"] |= {"batch_size": 1, "gradient_accumulation": 3}
    value["distributed"] = {"strategy": "zero2", "processes": 2}
    config.write_text(json.dumps(value))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += [str(JOBS / "train.py"), "--config", str(config), *files, "--output", str(tmp_path / "two")]
    shared = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
        check=False,
    )
    assert shared.returncode == 0, shared.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert read_events(tmp_path / "two", "started")[0]["strategy"] == "zero2"
