"""One line a change, each once."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest

from maas_client.dashboard.lines import LineLog
from maas_client.dashboard.live import watch_in_lines
from maas_client.errors import NotFoundError
from maas_client.run import Reason, RunState
from tests.dashboard import boards
from tests.dashboard.stage import set_up


def test_states_tenths_validations_and_evaluations_are_told_once() -> None:
    log, running = LineLog(), boards.status(RunState.RUNNING)
    told: list[str] = []
    happened = list(boards.finished(40))
    for start in range(0, len(happened), 7):
        told += log.lines("card-1", running, happened[start : start + 7])
    told += log.end("card-1", boards.status(RunState.SUCCEEDED))
    told += log.end("card-1", boards.status(RunState.SUCCEEDED))
    assert told[:3] == [
        "card-1: running",
        "card-1: training started, 40 steps, cpu, fp32, 830,000 of 11.9 M parameters train",
        "card-1: evaluation before training over 200 rows: accuracy 0.125, loss 4.812",
    ]
    assert told[3] == "card-1: 10 %, step 4 of 40, loss 4.526, 4,822 tokens/s, ETA 36 s"
    assert [line.split(",")[0] for line in told[3:13]] == [f"card-1: {tenth}0 %" for tenth in range(1, 11)]
    assert told[-2:] == [
        "card-1: evaluation after training over 200 rows: accuracy 0.835, loss 0.402",
        "card-1: succeeded",
    ]
    assert len(told) == 15


def test_a_failure_is_told_with_its_reason() -> None:
    status = boards.status(RunState.FAILED, reason=Reason.MEMORY, message="It was\nkilled.")
    assert LineLog().end("card-1", status) == ["card-1: failed (memory): It was killed."]


def test_a_run_that_goes_on_counts_from_its_checkpoint() -> None:
    log, running = LineLog(), boards.status(RunState.RUNNING)
    log.lines("card-1", running, list(boards.events(36, total=40)))
    resumed = {"event": "started", "steps_total": 40, "resumed_from_step": 20}
    told = log.lines(
        "card-1", running, [resumed, {"event": "step", "step": 21}, {"event": "step", "step": 24}]
    )
    assert told == ["card-1: goes on after step 20, 40 steps", "card-1: 60 %, step 24 of 40"]


def test_a_run_is_watched_to_its_end_through_an_absence(tmp_path: Path) -> None:
    stage = set_up(tmp_path)
    run = stage.add("card")
    part = stage.play.parts[run.id]
    part.events, part.lines, part.failures = list(boards.events(40, total=40)), ["written"], 2

    def end() -> None:
        while "metrics" not in part.calls:
            time.sleep(0.01)
        part.lines.append("last words")
        part.becomes(RunState.SUCCEEDED)

    ending = threading.Thread(target=end)
    ending.start()
    stream = io.StringIO()
    status = watch_in_lines(stage.project, stream, target=run.id, with_log=True)
    ending.join()
    told = stream.getvalue().splitlines()
    assert status is not None
    assert status.state is RunState.SUCCEEDED
    assert told[:2] == [
        f"{run.id}: cannot be seen just now: The service does not answer.",
        f"{run.id}: running",
    ]
    assert f"{run.id}: can be seen again" in told
    assert [line for line in told if not line.startswith(run.id)] == ["written", "last words"]
    assert told[-1] == f"{run.id}: succeeded"
    assert "\x1b" not in stream.getvalue()
    assert stage.project.find(run.id).state is RunState.SUCCEEDED


def test_without_a_run_all_unfinished_ones_are_watched_until_they_end(tmp_path: Path) -> None:
    stage = set_up(tmp_path)
    old, one, two = stage.add("old", RunState.FAILED), stage.add("one"), stage.add("two")
    stage.project.look(old)
    for run in (one, two):
        stage.play.parts[run.id].becomes(RunState.SUCCEEDED)
    stream = io.StringIO()
    assert watch_in_lines(stage.project, stream) is None
    assert sorted(stream.getvalue().splitlines()) == [f"{one.id}: succeeded", f"{two.id}: succeeded"]


def test_a_run_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    stage = set_up(tmp_path)
    run = stage.add("card")
    del stage.play.parts[run.id]
    with pytest.raises(NotFoundError, match="There is no run"):
        watch_in_lines(stage.project, io.StringIO(), target=run.id)
