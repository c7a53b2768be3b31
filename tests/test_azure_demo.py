"""`make azure-demo`, shortened: all the way on a simulated Azure, its bill, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "jobs/examples/card-support/train.jsonl"
SHORT = ["training.max_steps=3", "training.batch_size=4", "training.max_length=64", "evaluation.max_rows=4"]


def start(tmp_path: Path, *words: str, data: Path = ROWS) -> subprocess.Popen[str]:
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AZURE", "MAAS", "ARM_"))
        },
        "TMPDIR": str(tmp_path),
    }
    return subprocess.Popen(
        [sys.executable, str(ROOT / "demo/azure.py"), "--data", str(data), "--", *words],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def left_behind(tmp_path: Path) -> list[str]:
    """Processes that still know the demo's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(tmp_path) in f"{words} {(process.info['environ'] or {}).get('TMPDIR', '')}":
            found.append(words)
    return found


def test_a_dataset_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    said = start(tmp_path, data=tmp_path / "train.csv")
    out, err = said.communicate(timeout=30)
    assert (said.returncode, out) == (2, "")
    assert err == (
        f"There is no {tmp_path}/train.csv. Get train.csv of PolyAI's banking77 (CC BY 4.0), then: "
        "make azure-demo DATA=PATH\n"
    )


@pytest.mark.slow
def test_the_demo_answers_bills_and_leaves_nothing(tmp_path: Path) -> None:
    demo = start(tmp_path, *(word for text in SHORT for word in ("--set", text)))
    out, err = demo.communicate(timeout=280)
    assert demo.returncode == 0, err
    assert "Endpoint banking77 is ready at https://localhost:" in out
    assert "Registered banking77:1" in out
    assert "What Azure would have charged (simulated time, speed 10):" in err
    assert "job banking77-azureml-" in err
    assert "deployment banking77/deployments/v1-" in err
    assert "Known: " in err
    assert left_behind(tmp_path) == []
    assert list(tmp_path.glob("maas-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_demo_that_is_stopped_stops_everything(tmp_path: Path, number: signal.Signals, code: int) -> None:
    demo = start(tmp_path)
    assert demo.stderr is not None
    for line in demo.stderr:
        if "running" in line:
            break
    os.killpg(demo.pid, number) if number is signal.SIGINT else demo.send_signal(number)
    _, err = demo.communicate(timeout=120)
    assert demo.returncode == code, err
    assert "What Azure would have charged" in err
    until = time.monotonic() + 30
    while left_behind(tmp_path) and time.monotonic() < until:
        time.sleep(0.2)
    assert left_behind(tmp_path) == []
    assert list(tmp_path.glob("maas-*")) == []
