"""Fixtures that many tests share: a job file with its rows, and an environment free of the user's things."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of what else the machine does than of the code. CI looks at the same
# examples each time; everyone else at new ones.
settings.register_profile(
    "steady",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("steady")

JOB = """\
name: card-support
task: classification
model: tiny-phi3
data: {train: rows.jsonl, validation: {split: 0.1}}
training: {epochs: 1, max_length: 64}
"""
ROWS = (
    '{"text": "My card is late", "label": "card_arrival"}\n{"text": "I lost my card", "label": "lost_card"}\n'
)


@pytest.fixture
def write_job(tmp_path: Path) -> Callable[..., Path]:
    """Write a job file (default: a small valid one) beside its rows; returns its path."""

    def write(text: str = JOB, *, folder: str = "job", rows: str = ROWS) -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "rows.jsonl").write_text(rows, encoding="utf-8")
        (place / "job.yaml").write_text(text, encoding="utf-8")
        return place / "job.yaml"

    return write


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory outside every project, with HOME and the state folder below tmp_path."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("MAAS_HOME", "MAAS_DEBUG", "NO_COLOR", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(folder)
    return folder
