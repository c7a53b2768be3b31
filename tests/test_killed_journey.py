"""`maas run`, killed again and again and repeated, ends with one run, one version and one endpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

MAAS = Path(sys.executable).with_name("maas")
SHORT = ["training.max_steps=12", "evaluation.max_rows=8", "training.checkpoint_every_steps=2"]
LONG = ["training.max_steps=150", "training.epochs=10", *SHORT[1:]]
"""Steps enough that a trainer which has just written a checkpoint still trains when it is found."""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Path]:
    maas("init", str(tmp_path))
    yield tmp_path / "card-support.yaml"
    maas("endpoints", "delete", "card-support", "-y", cwd=tmp_path)


def maas(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(MAAS), *words], cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=300
    )


def environment(folder: Path | None) -> dict[str, str]:
    return {**os.environ, "MAAS_HOME": str((folder or Path.cwd()) / "home")}


def start(job: Path, settings: list[str] = SHORT) -> subprocess.Popen[bytes]:
    overrides = [word for text in settings for word in ("--set", text)]
    return subprocess.Popen(
        [str(MAAS), "run", job.name, *overrides, "-o", "json"],
        cwd=job.parent,
        env=environment(job.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def stop(started: subprocess.Popen[bytes], after_s: float, number: signal.Signals) -> None:
    try:
        started.wait(after_s)
    except subprocess.TimeoutExpired:
        started.send_signal(number)
    _, said = started.communicate(timeout=60)
    assert b"Traceback" not in said


def processes_of(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words:
            found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_many_moments_and_repeated(job: Path) -> None:
    moments = [
        (0.15, signal.SIGKILL),
        (0.4, signal.SIGINT),
        (0.8, signal.SIGKILL),
        (3, signal.SIGINT),
        (8, signal.SIGKILL),
    ]
    for after_s, number in moments:
        stop(start(job), after_s, number)
    finished = start(job)
    said, talk = finished.communicate(timeout=400)
    assert finished.returncode == 0, talk.decode()
    journey = json.loads(said)
    assert journey["answer"]

    runs = json.loads(maas("runs", "list", "-o", "json", cwd=job.parent).stdout)
    assert [run["state"] for run in runs] == ["succeeded"]
    assert [path.name for path in (job.parent / "home" / "models" / "card-support").glob("[0-9]*")] == ["1"]
    endpoints = json.loads(maas("endpoints", "list", "-o", "json", cwd=job.parent).stdout)
    assert [one["state"] for one in endpoints] == ["ready"]
    assert list((job.parent / "home").rglob(".tmp-*")) == []

    assert maas("endpoints", "delete", "card-support", "-y", cwd=job.parent).returncode == 0
    assert processes_of(job.parent) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_trainer_is_told_and_the_same_command_goes_on_from_its_checkpoint(job: Path) -> None:
    started = start(job, LONG)
    events = wait_for_checkpoint(job.parent / "home")
    [trainer] = [p for p in psutil.process_iter(["cmdline"]) if is_trainer(p, job.parent)]
    trainer.kill()
    _, said = started.communicate(timeout=60)
    assert started.returncode == 100, said.decode()
    assert b"killed" in said
    assert b"Traceback" not in said

    again = start(job, LONG)
    out, said = again.communicate(timeout=400)
    assert again.returncode == 0, said.decode()
    assert json.loads(out)["run"]["id"].endswith("-1")
    resumed = [json.loads(line) for line in events.read_text().splitlines()]
    assert [one["resumed_from_step"] > 0 for one in resumed if one["event"] == "started"] == [False, True]


def is_trainer(process: psutil.Process, folder: Path) -> bool:
    words = process.info["cmdline"] or []
    return "train.py" in words and any(str(folder) in word for word in words)


def wait_for_checkpoint(home: Path) -> Path:
    import time

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for events in home.glob("runs/*/outputs/run/events.jsonl"):
            if '"checkpoint"' in events.read_text():
                return events
        time.sleep(0.02)
    raise AssertionError("no checkpoint in 120 s")
