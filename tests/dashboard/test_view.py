"""Frames as people see them: snapshots at three sizes, and that every line fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from maas_client.dashboard.board import Mode, key, with_runs
from maas_client.dashboard.glyphs import ASCII, STATE_STYLES, UNICODE, glyphs_for
from maas_client.dashboard.view import frame, summary
from maas_client.run import RunState
from tests.dashboard import boards
from tests.dashboard.boards import NOW, drawn

SIZES = [(80, 24), (120, 40), (40, 10)]


@pytest.mark.parametrize(("width", "height"), SIZES, ids=[f"{width}x{height}" for width, height in SIZES])
@pytest.mark.parametrize("name", boards.ALL)
def test_frames(name: str, width: int, height: int, snapshot: SnapshotAssertion) -> None:
    lines = drawn(frame(boards.ALL[name](), width, height, NOW), width)
    assert len(lines) == height
    assert "\n".join(line.rstrip() for line in lines) == snapshot


def test_a_frame_in_ascii(snapshot: SnapshotAssertion) -> None:
    text = "\n".join(
        line.rstrip() for line in drawn(frame(boards.succeeded(), 80, 24, NOW, glyphs=ASCII), 80)
    )
    assert text.isascii()
    assert text == snapshot


def test_the_log_fills_the_screen_and_folds_long_lines() -> None:
    logs = replace(boards.running(), mode=Mode.LOGS)
    lines = drawn(frame(logs, 80, 24, NOW), 80)
    assert lines[1].startswith(f"─ log of {boards.FIRST} · newest line at the bottom ─")
    assert lines[-2].rstrip() == boards.LOG[-1]
    assert lines[2].rstrip() == boards.LOG[-21]
    detail = replace(logs.detail, lines=("first", "x" * 100))
    folded = drawn(frame(replace(logs, details={boards.FIRST: detail}), 80, 24, NOW), 80)
    assert [line.rstrip() for line in folded[2:5]] == ["first", "x" * 80, "x" * 20]


def test_a_scrolled_log_says_how_much_is_below() -> None:
    board = replace(boards.running(), mode=Mode.LOGS, scroll=10)
    lines = drawn(frame(board, 80, 24, NOW), 80)
    assert "10 lines below" in lines[1]
    assert lines[-2].rstrip() == boards.LOG[-11]


def test_the_last_line_asks_tells_and_shows_the_keys() -> None:
    running, failed = boards.running(), boards.failed()
    assert last_line(running) == "q quit · ↑↓ choose · l logs · c cancel"
    assert last_line(failed) == "q quit · ↑↓ choose · l logs · r resume"
    question = f"cancel {boards.FIRST}? It writes a checkpoint first. y/n"
    assert last_line(key(running, "c")[0]) == question
    assert last_line(key(failed, "c")[0]) == f"{boards.FIRST} has ended: it has failed."


def last_line(board: boards.Board) -> str:
    return drawn(frame(board, 80, 24, NOW), 80)[-1].rstrip()


def test_a_resumption_that_bills_says_what_it_costs() -> None:
    asked = key(boards.failed(), "r")[0]
    assert last_line(asked) == f"resume {boards.FIRST}? y/n"
    row = asked.rows[0]
    for cost, words in (("free: runs on this machine", ""), ("$3.67 an hour", " Cost: $3.67 an hour")):
        record = replace(row.record, plan={"cost": cost})
        bills = replace(asked, rows=(replace(row, record=record), *asked.rows[1:]))
        assert last_line(bills) == f"resume {boards.FIRST}? y/n{words}"


def test_a_sight_grows_old() -> None:
    board = boards.running()
    assert drawn(frame(board, 80, 24, NOW), 80)[0].endswith(" seen 3 s ago")
    assert drawn(frame(board, 80, 24, NOW + 27), 80)[0].endswith(" seen 30 s ago")
    assert drawn(frame(board, 80, 24, NOW + 28), 80)[0].endswith(" stale: seen 31 s ago")


def test_the_time_left_counts_down() -> None:
    board = boards.running()
    assert "ETA 2 min 56 s" in "\n".join(drawn(frame(board, 80, 24, NOW), 80))
    later = "\n".join(drawn(frame(board, 80, 24, NOW + 60), 80))
    assert "ETA 1 min 56 s" in later
    assert "3 h 11 min left" in later
    assert "ETA" not in "\n".join(drawn(frame(board, 80, 24, NOW + 1000), 80))


def test_the_table_shows_the_runs_around_the_chosen_one() -> None:
    records = [boards.record(f"run-{number:02d}", RunState.SUCCEEDED) for number in range(50)]
    board = replace(with_runs(boards.empty(), records), chosen="run-30")
    lines = drawn(frame(board, 80, 24, NOW), 80)
    assert lines[1].startswith("  RUN (44 more)")
    assert [line[2:8] for line in lines[2:8]] == [f"run-{number}" for number in range(27, 33)]
    assert [line for line in lines if line.startswith("❯")] == [lines[5]]


def test_without_keys_and_padding_a_frame_is_as_tall_as_it_needs_to_be() -> None:
    lines = drawn(frame(boards.queued(), 80, 24, NOW, keys=False, pad=False), 80)
    assert len(lines) < 15
    assert "q quit" not in lines[-1]


def test_the_summary_keeps_the_chosen_run_alone(snapshot: SnapshotAssertion) -> None:
    text = "\n".join(line.rstrip() for line in drawn(summary(boards.succeeded(), 80, NOW), 80))
    assert "small-talk" not in text
    assert text == snapshot


def test_color_says_nothing_alone_and_can_be_left_out() -> None:
    assert len(set(UNICODE.states)) == len(set(ASCII.states)) == len(STATE_STYLES) == len(RunState)
    console = Console(force_terminal=True, width=80, no_color=True, color_system="truecolor", _environ={})
    with console.capture() as capture:
        console.print(frame(boards.failed(), 80, 24, NOW))
    codes = [code.split("m")[0] for code in capture.get().split("\x1b[")[1:]]
    assert codes
    assert {number for code in codes for number in code.split(";")} <= {"0", "1", "2", "7"}


@pytest.mark.parametrize(
    ("encoding", "glyphs"),
    [("utf-8", UNICODE), ("UTF8", UNICODE), ("ascii", ASCII), ("iso8859-1", ASCII), (None, ASCII)],
)
def test_characters_fit_the_encoding(encoding: str | None, glyphs: object) -> None:
    assert glyphs_for(encoding) is glyphs


def test_a_service_that_tells_losses_alone_has_steps_all_the_same() -> None:
    look = boards.status(RunState.RUNNING, started_at=NOW - 60)
    told = [{"time": NOW - 30 + step, "event": "step", "step": step, "loss": 2.0 / step} for step in (1, 2)]
    board = boards.board((boards.record(boards.FIRST, RunState.RUNNING, backend="foundry"),), look, told)
    text = "\n".join(drawn(frame(board, 80, 24, NOW), 80))
    assert "the service tells no speed" in text
    assert "no steps yet" not in text
