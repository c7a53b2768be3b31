"""The board: a pure state that any events and keys leave sound."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.dashboard.board import (
    DETAILS,
    LOG_LINES,
    Board,
    Command,
    Cursor,
    Mode,
    key,
    with_page,
    with_reading,
    with_runs,
    with_status,
    with_trouble,
)
from maas_client.dashboard.curve import BUCKETS
from maas_client.dashboard.glyphs import ASCII
from maas_client.dashboard.lines import LineLog
from maas_client.dashboard.progress import METRICS, NOTES, Progress, with_events
from maas_client.dashboard.view import frame
from maas_client.run import RunState
from tests.dashboard import boards

KINDS = [
    "started",
    "step",
    "validation",
    "evaluation",
    "checkpoint",
    "stopped",
    "failed",
    "finished",
    "other",
    7,
]
NUMBERS = st.one_of(
    st.integers(-5, 2000), st.floats(), st.integers(), st.text(max_size=3), st.none(), st.booleans()
)
KEYS = [
    "time",
    "step",
    "steps_total",
    "epochs",
    "epoch",
    "loss",
    "learning_rate",
    "tokens_per_s",
    "eta_s",
    "rows",
]
EVENTS = st.fixed_dictionaries(
    {"event": st.sampled_from(KINDS)},
    optional={
        **dict.fromkeys((*KEYS, "memory_bytes", "tokens_seen", "resumed_from_step", "parameters"), NUMBERS),
        "when": st.sampled_from(["before", "after", "", 3, []]),
        "metrics": st.one_of(NUMBERS, st.dictionaries(st.text(max_size=4), NUMBERS, max_size=3)),
        "message": st.text(max_size=20),
    },
)
OPEN = Cursor("1")


@given(st.lists(EVENTS, max_size=40), st.integers(1, 130), st.integers(1, 45))
@settings(max_examples=150, deadline=None)
def test_any_events_are_digested_and_drawn(events: list[dict[str, Any]], width: int, height: int) -> None:
    progress = Progress()
    for event in events:
        before = progress.step
        progress = with_events(progress, [event])
        assert event["event"] == "started" or progress.step >= before
        assert progress.fraction is None or 0.0 <= progress.fraction <= 1.0
    assert len(progress.notes) <= NOTES
    assert with_events(Progress(), events).to_dict() == progress.to_dict()
    json.dumps(progress.to_dict(), allow_nan=False)
    board = with_page(boards.running(), boards.FIRST, lines=(), events=events, logs=OPEN, metrics=OPEN)
    for glyphs in (ASCII, boards.UNICODE):
        lines = boards.drawn(frame(board, width, height, boards.NOW, glyphs=glyphs), width)
        assert len(lines) == height
    LineLog().lines("run", boards.status(RunState.RUNNING), events)


def test_a_million_steps_are_kept_in_a_fixed_room() -> None:
    progress = Progress()
    for start in range(0, 1_000_000, 10_000):
        steps = range(start, start + 10_000)
        page = [{"time": 1.0, "event": "step", "step": step, "loss": 2.0} for step in steps]
        page += [{"time": 1.0, "event": "validation", "step": start, "loss": 2.0}] * 50
        progress = with_events(progress, page)
    assert progress.step == 999_999
    assert len(progress.losses) <= BUCKETS
    assert len(progress.validations) <= BUCKETS
    assert len(progress.notes) == NOTES


def test_metrics_of_an_evaluation_are_limited() -> None:
    metrics = {f"metric {number}": 0.5 for number in range(1000)}
    progress = with_events(Progress(), [{"event": "evaluation", "when": "before", "metrics": metrics}])
    assert len(progress.before) == METRICS


def test_a_run_that_goes_on_from_a_checkpoint_forgets_the_steps_after_it() -> None:
    progress = with_events(Progress(), boards.events(220))
    resumed = {"time": boards.NOW, "event": "started", "steps_total": 400, "resumed_from_step": 200}
    after = with_events(progress, [resumed])
    assert (progress.step, after.step) == (220, 200)
    assert after.losses.points[-1][0] == 200
    assert progress.losses.points[-1][0] == 220
    assert after.notes[-1].text.startswith("goes on after step 200")


def test_only_the_last_lines_and_details_are_kept() -> None:
    board = with_runs(Board(), [boards.record(f"run-{number}", RunState.RUNNING) for number in range(20)])
    for number in range(20):
        many = [f"line {line}" for line in range(LOG_LINES + 500)]
        board = with_page(board, f"run-{number}", lines=many, events=(), logs=OPEN, metrics=OPEN)
    assert list(board.details) == [f"run-{number}" for number in range(20 - DETAILS, 20)]
    assert board.details["run-19"].lines[-1] == f"line {LOG_LINES + 499}"
    assert len(board.details["run-19"].lines) == LOG_LINES


def test_log_lines_cannot_steer_the_terminal() -> None:
    evil = ["\x1b[2J\x1b]0;title\x07red\x1b[31m\x9b5n", "10%\r20%\r100%", "a\tb\x00\x07c", "x" * 100_000]
    board = with_page(boards.running(), boards.FIRST, lines=evil, events=(), logs=OPEN, metrics=OPEN)
    lines = board.detail.lines[-4:]
    assert lines[:3] == ("red5n", "100%", "a   bc")
    assert len(lines[3]) == 1000


def test_the_newest_unfinished_run_is_chosen_first_and_the_choice_is_kept() -> None:
    done, going = boards.record("done-1", RunState.SUCCEEDED), boards.record("going-1", RunState.RUNNING)
    board = with_runs(Board(), [done, going])
    assert board.chosen == "going-1"
    board, _ = key(board, "up")
    assert board.chosen == "done-1"
    assert with_runs(board, [boards.record("newer-1", RunState.QUEUED), done, going]).chosen == "done-1"
    assert with_runs(board, [going]).chosen == "going-1"


def test_a_run_that_was_started_again_is_read_again() -> None:
    failed = with_runs(boards.failed(), [boards.record(boards.FIRST, RunState.RUNNING, seen_at=boards.NOW)])
    assert boards.FIRST not in failed.details
    still = with_runs(boards.failed(), [boards.record(boards.FIRST, RunState.FAILED)])
    assert boards.FIRST in still.details


def test_an_older_look_does_not_hide_what_another_command_saw() -> None:
    board = with_status(
        boards.running(), boards.FIRST, boards.status(RunState.RUNNING, seen_at=boards.NOW - 60)
    )
    seen = boards.record(boards.FIRST, RunState.CANCELED, seen_at=boards.NOW - 1)
    row = with_runs(board, [seen]).row
    assert row is not None
    assert row.state is RunState.CANCELED


def test_trouble_keeps_what_was_seen_and_the_next_look_ends_it() -> None:
    board = with_trouble(boards.running(), boards.FIRST, "It does\nnot answer.")
    assert board.row is not None
    assert (board.row.trouble, board.row.state) == ("It does not answer.", RunState.RUNNING)
    board = with_status(board, boards.FIRST, boards.status(RunState.RUNNING))
    assert board.row is not None
    assert board.row.trouble == ""


def press(board: Board, *names: str) -> tuple[Board, Command | None]:
    command = None
    for name in names:
        board, command = key(board, name)
    return board, command


@pytest.mark.parametrize(
    ("keys", "place"),
    [("j", 1), ("jj", 2), ("jk", 0), ("k", 0), ("G", 3), ("Gg", 0), ("jjjjjjjj", 3)],
)
def test_keys_choose_runs(keys: str, place: int) -> None:
    board, command = press(boards.running(), *keys)
    assert board.chosen == board.rows[place].id
    assert command is None


def test_keys_scroll_the_log_and_new_lines_do_not_move_it() -> None:
    board, _ = press(boards.running(), "l", "up", "page-up")
    assert (board.mode, board.scroll, board.chosen) == (Mode.LOGS, 11, boards.FIRST)
    more = with_page(board, boards.FIRST, lines=["a", "b"], events=(), logs=OPEN, metrics=OPEN)
    assert more.scroll == 13
    assert press(more, "end")[0].scroll == 0
    assert press(more, "home")[0].scroll == len(more.detail.lines) - 1
    assert press(more, "escape")[0].mode is Mode.OVERVIEW
    assert press(more, "enter")[0].mode is Mode.OVERVIEW


def test_cancel_is_asked_first() -> None:
    board, command = press(boards.running(), "c")
    assert (board.asking, command) == (Command("cancel", boards.FIRST), None)
    assert press(board, "y") == (replace(board, asking=None), Command("cancel", boards.FIRST))
    for no in ("n", "q", "escape", "enter", "c"):
        assert press(board, no) == (replace(board, asking=None), None)


def test_only_what_can_be_done_is_asked() -> None:
    assert press(boards.failed(), "r")[0].asking == Command("resume", boards.FIRST)
    assert press(boards.failed(), "c")[0].notice == f"{boards.FIRST} has ended: it has failed."
    assert "only a failed or canceled run" in press(boards.running(), "r")[0].notice
    assert press(boards.empty(), "c")[0].notice == "There is no run yet."
    assert press(boards.failed(), "c", "j")[0].notice == ""


def test_q_quits_everywhere() -> None:
    for board in (boards.empty(), boards.running(), press(boards.running(), "l")[0]):
        assert key(board, "q")[1] == Command("quit")


@given(
    st.lists(
        st.sampled_from(
            [*"jkgGlcrynqxz", "up", "down", "page-up", "page-down", "home", "end", "enter", "escape"]
        )
    )
)
@settings(max_examples=100, deadline=None)
def test_any_keys_leave_a_board_that_can_be_drawn(names: list[str]) -> None:
    for start in (boards.running(), boards.empty(), boards.failed()):
        board, _ = press(start, *names)
        assert board.chosen == start.chosen or board.row is not None
        assert len(boards.drawn(frame(board, 80, 24, boards.NOW), 80)) == 24


def test_the_board_is_json() -> None:
    for made in boards.ALL.values():
        data = json.loads(json.dumps(made().to_dict(), allow_nan=False))
        assert set(data) == {"runs", "chosen", "endpoints"}
    assert data["chosen"]["progress"]["after"]["accuracy"] == 0.835


def test_what_was_read_meanwhile_comes_beside_the_keys() -> None:
    before = boards.running()
    lines = tuple(f"line {number}" for number in range(20))
    assert before.chosen is not None
    before = with_page(before, before.chosen, lines=lines, events=(), logs=Cursor("1"), metrics=Cursor("1"))
    after = with_page(
        before, before.chosen, lines=("new 1", "new 2"), events=(), logs=Cursor("2"), metrics=Cursor("1")
    )
    mine, _ = key(replace(before, mode=Mode.LOGS), "page-up")
    merged = with_reading(mine, before, after)
    assert (merged.mode, merged.chosen) == (Mode.LOGS, before.chosen)
    assert merged.scroll == mine.scroll + 2
    assert merged.detail.lines[-1] == "new 2"
    assert with_reading(before, before, after).scroll == 0
    assert with_reading(mine, before, replace(after, notice="It is done.")).notice == "It is done."
    asked, _ = key(before, "c")
    assert with_reading(asked, before, after).asking == asked.asking
    other, _ = key(before, "down")
    assert with_reading(other, before, after).chosen == other.chosen
    gone = replace(after, rows=after.rows[1:], chosen=after.rows[1].id)
    assert with_reading(before, before, gone).chosen == after.rows[1].id
