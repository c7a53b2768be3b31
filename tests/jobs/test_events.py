"""Events go to their file and, where that is asked for, to stdout as lines that can be told from others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from training_stage import JOBS

from tuning.events import EventLog


def test_events_are_lines_of_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EventLog(tmp_path / "events.jsonl") as events:
        events.write("step", step=1)
    assert json.loads((tmp_path / "events.jsonl").read_text())["step"] == 1
    assert capsys.readouterr().out == ""


def test_events_are_lines_of_stdout_too_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAS_EVENTS", "stdout")
    with EventLog(tmp_path / "events.jsonl") as events, EventLog(tmp_path / "none", enabled=False) as others:
        events.write("step", step=1)
        others.write("step", step=1)
    assert capsys.readouterr().out == "@maas " + (tmp_path / "events.jsonl").read_text()


def test_a_file_that_cannot_be_written_does_not_silence_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAS_EVENTS", "stdout")
    with EventLog(Path("/dev/full")) as events, pytest.raises(OSError, match="No space left"):
        events.write("failed", message="why")
    assert json.loads(capsys.readouterr().out.removeprefix("@maas "))["message"] == "why"


def test_every_event_is_on_the_page() -> None:
    written = "".join(path.read_text() for path in (JOBS / "train.py", *JOBS.glob("tuning/*.py")))
    events = set(re.findall(r'\bevents\.write\(\s*"(\w+)"', written))
    page = (JOBS.parent / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page.partition("## Events")[2].partition("##")[0], re.M)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == events
    assert {"started", "step", "failed"} < events
