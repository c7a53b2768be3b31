"""`maas rehearse` as a user gives it: real runs, whose processes are really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from shell import MAAS, job_in, maas

pytestmark = pytest.mark.usefixtures("empty_home")
QUICK = {
    "task": "classification",
    "training": {"batch_size": 4, "max_length": 48, "packing": False, "precision": "fp32"},
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Eleven rows to learn and one held out, three steps an epoch."""
    path = job_in(tmp_path, **QUICK)
    rows = [{"text": f"ball {n}", "label": ("red", "blue")[n % 2]} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rehearsed(*words: str) -> subprocess.CompletedProcess[str]:
    """The finished command; it starts several runs."""
    return subprocess.run([*MAAS, "rehearse", *words], capture_output=True, text=True, timeout=280)


def must_have_left_nothing(folder: Path) -> None:
    """No run's folder, and no process that was started for one."""
    assert not list(folder.rglob("rehearsals"))
    assert not [pid for pid in psutil.pids() if str(folder) in words_of(pid)]


def words_of(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preempt-at", "3,10"], "--preempt-at 3,10 does not lie in 10 steps"),
        (["--preempt-at", "0,3"], "Take more --steps, or --preempt-at from 1 to 9."),
        (["--preempt-at", "3,7", "--steps", "5"], "--preempt-at 3,7 does not lie in 5 steps"),
        (["--preempt-at", "7,3"], "takes steps in rising order"),
        (["--preempt-at", "3,3"], "takes steps in rising order"),
        (["--preempt-at", "soon"], "--preempt-at 'soon' names no steps. try: Write them as 3,7."),
        (["--grace", "0"], "--grace is a number of seconds, more than 0"),
        (
            ["--set", "backend=foundry", "--set", "model=Phi-4-mini-instruct"],
            "Azure AI Foundry trains by itself",
        ),
        (["--set", "method.name=qlora", "--set", "distributed.strategy=zero3"], "does not work with qlora"),
        (["--set", "data.train=elsewhere.jsonl"], "elsewhere.jsonl"),
    ],
)
def test_what_cannot_be_rehearsed_is_said_at_once(job: Path, words: list[str], expected: str) -> None:
    done = maas("rehearse", str(job), *words)
    assert done.returncode == 2
    assert expected in done.stderr.replace("\n  ", " ")
    assert done.stdout == ""
    must_have_left_nothing(job.parent)


@pytest.mark.slow
def test_a_job_whose_machines_are_lost(job: Path) -> None:
    done = rehearsed(str(job), "--preempt-at", "3,9", "--steps", "30", "-o", "json")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["proven"]
    assert {check["name"]: check["ok"] for check in verdict["checks"]} == dict.fromkeys(
        ("losses", "rows", "checkpoints", "model"), True
    )
    assert [step["step"] for step in verdict["steps"]] == list(range(1, 31))
    assert {step["difference"] for step in verdict["steps"]} == {0.0}
    assert any(step["times"] > 1 for step in verdict["steps"]) or all(
        one["saved"] == one["reached"] for one in verdict["preemptions"]
    )
    for one, asked in zip(verdict["preemptions"], (3, 9), strict=True):
        assert one["reached"] >= one["asked"] == asked
        assert one["resumed"] == one["saved"] > 0
    assert "; 10 whole epochs of 11 rows, none lost" in done.stdout
    assert done.stderr.count(" to be lost after step ") == 2
    must_have_left_nothing(job.parent)


@pytest.mark.slow
def test_two_processes_that_are_asked_to_stop(job: Path) -> None:
    spread = ("--set", "distributed.strategy=ddp", "--set", "distributed.processes=2")
    done = rehearsed(str(job), "--preempt-at", "2", "--steps", "20", "--grace", "30", *spread)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "machine lost, step " in done.stdout
    assert "asked to stop, the run ended after" in done.stdout
    assert done.stdout.endswith("The job survives the loss of its machines.\n")
    must_have_left_nothing(job.parent)


@pytest.mark.slow
def test_a_job_that_does_not_survive(job: Path) -> None:
    """What a lost machine left is damaged before the next one reads it."""
    words = ["rehearse", str(job), "--preempt-at", "3", "--steps", "20"]
    with subprocess.Popen(
        [*MAAS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        saved = wait_for_files(process, job.parent, "machine-2/runs/*/outputs/run/checkpoints/*/weights-*")
        for file in saved:
            file.write_bytes(b"gone")
        said, told = process.communicate(timeout=280)
    assert process.returncode == 1, told
    assert "FAILED  checkpoints  the output held a checkpoint of step" in said
    assert said.endswith("The job is not safe yet.\n")
    must_have_left_nothing(job.parent)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing(job: Path, number: signal.Signals) -> None:
    """Neither right at the start nor in the middle of a run, however often it is pressed."""
    with subprocess.Popen([*MAAS, "rehearse", str(job)], stderr=subprocess.PIPE) as process:
        pattern = (
            "alone/runs/*/process.json"
            if number == signal.SIGINT
            else "alone/runs/*/outputs/run/events.jsonl"
        )
        wait_for_files(process, job.parent, pattern)
        for _ in range(3):
            process.send_signal(number)
            time.sleep(0.02)
        process.communicate(timeout=60)
    assert process.returncode == 130
    must_have_left_nothing(job.parent)


def wait_for_files(
    process: subprocess.Popen[str] | subprocess.Popen[bytes], folder: Path, pattern: str
) -> list[Path]:
    """The files that match within a rehearsal, as soon as there are some."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if found := list(folder.glob(f"state/maas/rehearsals/*/{pattern}")):
            return found
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    raise AssertionError(f"{pattern} never came")
