"""What is read, how often, and what a backend that is away does to the board."""

from __future__ import annotations

from pathlib import Path

import pytest

from maas_client.dashboard.board import Board, Command
from maas_client.dashboard.live import read_once, start_board
from maas_client.dashboard.reading import SERVICE_SWEEP_S, SWEEP_S, Reader
from maas_client.errors import NotFoundError, UnavailableError
from maas_client.run import RunState
from tests.dashboard import boards
from tests.dashboard.stage import Part, Stage, set_up


class Clock:
    """A clock that a test moves; each look at it takes a millisecond."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return set_up(tmp_path)


def part_of(stage: Stage, run_id: str) -> Part:
    return stage.play.parts[run_id]


def test_every_page_is_taken_once(stage: Stage) -> None:
    run = stage.add("card")
    part, stage.play.page_size = part_of(stage, run.id), 7
    part.lines, part.events = [f"line {number}" for number in range(50)], list(boards.events(100))
    reader = Reader(stage.project, clock=Clock())
    board = reader.read_all(start_board(stage.project), run.id)
    assert board.detail.lines == tuple(part.lines)
    assert board.detail.progress.step == 100
    assert len(board.detail.progress.notes) == len(
        [event for event in part.events if event["event"] != "step"]
    )
    part.lines.append("one more")
    assert reader.read_all(board, run.id).detail.lines[-2:] == ("line 49", "one more")


def test_a_finished_run_is_read_to_its_end_and_then_left_alone(stage: Stage) -> None:
    run = stage.add("card", RunState.SUCCEEDED)
    part = part_of(stage, run.id)
    part.lines = ["the only line"]
    reader = Reader(stage.project, clock=Clock())
    board = reader.read_all(start_board(stage.project), run.id)
    assert board.detail.is_drained
    part.calls.clear()
    board = reader.sweep(reader.read_all(reader.runs_and_endpoints(board), run.id))
    assert part.calls == []


def test_other_runs_get_one_look_every_five_seconds_and_finished_ones_none(stage: Stage) -> None:
    going, done, chosen = stage.add("going"), stage.add("done", RunState.FAILED), stage.add("chosen")
    stage.project.look(done)
    for part in stage.play.parts.values():
        part.calls.clear()
    clock = Clock()
    reader = Reader(stage.project, clock=clock)
    board, _ = reader.read(start_board(stage.project, chosen=chosen.id), chosen.id)
    for _ in range(3):
        board = reader.sweep(board)
    assert part_of(stage, going.id).calls == ["status"]
    assert part_of(stage, done.id).calls == []
    clock.now += SWEEP_S
    reader.sweep(board)
    assert part_of(stage, going.id).calls == ["status", "status"]


def test_a_backend_that_is_away_leaves_the_sight_and_says_why(stage: Stage) -> None:
    run = stage.add("card")
    part = part_of(stage, run.id)
    part.lines = ["first"]
    reader = Reader(stage.project, clock=Clock())
    board = reader.read_all(start_board(stage.project), run.id)
    part.failures, part.lines = 2, ["first", "second"]
    board, _ = reader.read(board, run.id)
    assert board.row is not None
    assert (board.row.state, board.row.trouble) == (RunState.RUNNING, "The service does not answer.")
    assert isinstance(reader.errors[run.id], UnavailableError)
    part.failures = 0
    board = reader.read_all(board, run.id)
    assert board.row is not None
    assert (board.row.trouble, board.detail.lines) == ("", ("first", "second"))
    assert reader.errors == {}


def test_a_run_that_stays_unknown_is_an_error_until_it_is_known(stage: Stage) -> None:
    run = stage.add("card", RunState.UNKNOWN)
    reader = Reader(stage.project, clock=Clock())
    board = start_board(stage.project)
    for _ in range(19):
        board, _ = reader.read(board, run.id)
    assert reader.errors == {}
    board, _ = reader.read(board, run.id)
    assert "cannot be learned" in reader.errors[run.id].message
    part_of(stage, run.id).becomes(RunState.RUNNING)
    board, _ = reader.read(board, run.id)
    assert reader.errors == {}
    assert board.row is not None
    assert (board.row.state, board.row.trouble) == (RunState.RUNNING, "")


class AwayAtEvents(Part):
    """A run whose events cannot be read the first time."""

    def call(self, name: str) -> None:
        if name == "metrics" and name not in self.calls:
            self.failures = 1
        super().call(name)


def test_a_page_that_was_read_is_kept_when_the_next_one_fails(stage: Stage) -> None:
    run = stage.add("card")
    part = AwayAtEvents(part_of(stage, run.id).status, ["first"], list(boards.events(3)))
    stage.play.parts[run.id] = part
    reader = Reader(stage.project, clock=Clock())
    board, _ = reader.read(start_board(stage.project), run.id)
    assert board.row is not None
    assert board.row.trouble
    assert board.detail.lines == ("first",)
    board = reader.read_all(board, run.id)
    assert board.detail.lines == ("first",)
    assert board.detail.progress.step == 3


def test_commands_are_obeyed_and_their_end_told(stage: Stage) -> None:
    run = stage.add("card")
    reader = Reader(stage.project, clock=Clock())
    board = reader.obey(start_board(stage.project), Command("cancel", run.id))
    assert board.row is not None
    assert (board.row.state, board.notice) == (RunState.CANCELED, f"{run.id} is asked to stop.")
    board = reader.obey(board, Command("resume", run.id))
    assert board.row is not None
    assert (board.row.state, board.notice) == (
        RunState.RUNNING,
        f"{run.id} goes on from its newest checkpoint.",
    )
    part_of(stage, run.id).failures = 1
    assert reader.obey(board, Command("cancel", run.id)).notice == "The service does not answer. Try again."
    verbs = [action.verb for action in stage.project.ledger.actions(run.id)]
    assert verbs == ["cancel", "resume", "cancel"]


def test_reading_once_shows_endpoints_and_every_unfinished_run(stage: Stage) -> None:
    first, second = stage.add("first"), stage.add("second", RunState.QUEUED)
    del stage.play.parts[first.id]
    stage.doors.statuses = (boards.endpoint(),)
    board, reader = read_once(stage.project, chosen=None)
    assert board.chosen == second.id
    assert board.endpoints == stage.doors.statuses
    assert isinstance(reader.errors[first.id], NotFoundError)


def test_a_run_that_is_not_there_is_not_read(stage: Stage) -> None:
    assert Reader(stage.project).read(Board(), "nobody") == (Board(), False)


# -- runs of services


@pytest.fixture
def cloud(tmp_path: Path) -> Stage:
    return set_up(tmp_path, backend="azureml")


def test_runs_of_a_service_are_looked_at_all_at_once(cloud: Stage) -> None:
    runs = [cloud.add(f"card{number}") for number in range(30)]
    clock = Clock()
    reader = Reader(cloud.project, clock=clock)
    board = reader.sweep(start_board(cloud.project))
    assert cloud.play.rounds == [30]
    assert [row.state for row in board.rows] == [RunState.RUNNING] * 30
    part_of(cloud, runs[3].id).becomes(RunState.SUCCEEDED)
    board = reader.sweep(board)
    assert cloud.play.rounds == [30]
    clock.now += SERVICE_SWEEP_S
    board = reader.sweep(board)
    assert cloud.play.rounds == [30, 30]
    clock.now += SERVICE_SWEEP_S
    assert reader.sweep(board).row_of(runs[3].id) == board.row_of(runs[3].id)
    assert cloud.play.rounds == [30, 30, 29]
    assert all(part.calls == [] for part in cloud.play.parts.values())
    assert cloud.project.find(runs[3].id).state is RunState.SUCCEEDED


def test_a_service_that_is_away_leaves_all_its_runs_as_seen(cloud: Stage) -> None:
    runs = [cloud.add(f"card{number}") for number in range(3)]
    del cloud.play.parts[runs[2].id]
    clock = Clock()
    reader = Reader(cloud.project, clock=clock)
    board = reader.sweep(start_board(cloud.project))
    assert isinstance(reader.errors[runs[2].id], NotFoundError)
    clock.now += SERVICE_SWEEP_S
    part_of(cloud, runs[0].id).failures = 1
    board = reader.sweep(board)
    assert [row.trouble for row in board.rows] == ["The service does not answer."] * 3
    assert [row.state for row in board.rows][1:] == [RunState.RUNNING] * 2


def test_a_service_is_read_with_pauses_that_grow_while_nothing_comes(cloud: Stage) -> None:
    run = cloud.add("card")
    part = part_of(cloud, run.id)
    part.lines = ["first"]
    reader = Reader(cloud.project, clock=Clock())
    board, more = reader.read(start_board(cloud.project), run.id)
    assert not more
    assert reader.pause_s(board, [run.id]) == 3.0
    for _ in range(20):
        board, _ = reader.read(board, run.id)
    assert reader.pause_s(board, [run.id]) == 15.0
    part.lines.append("second")
    board, _ = reader.read(board, run.id)
    assert reader.pause_s(board, [run.id, None, "nobody"]) == 3.0
    assert reader.pause_s(board, []) == 0.5


def test_refusals_after_a_look_that_went_well_are_outlasted(cloud: Stage) -> None:
    run = cloud.add("card")
    reader = Reader(cloud.project, clock=Clock())
    board, _ = reader.read(start_board(cloud.project), run.id)
    part = cloud.play.parts.pop(run.id)
    for _ in range(4):
        board, _ = reader.read(board, run.id)
        assert reader.lost(run.id) is None
    board, _ = reader.read(board, run.id)
    assert isinstance(reader.lost(run.id), NotFoundError)
    cloud.play.parts[run.id] = part
    board, _ = reader.read(board, run.id)
    assert reader.lost(run.id) is None
    part.failures = 100
    for _ in range(10):
        board, _ = reader.read(board, run.id)
    assert reader.lost(run.id) is None
    fresh = Reader(cloud.project, clock=Clock())
    del cloud.play.parts[run.id]
    fresh.read(board, run.id)
    assert isinstance(fresh.lost(run.id), NotFoundError)


def test_many_runs_of_a_service_are_followed_by_their_states(cloud: Stage) -> None:
    runs = [cloud.add(f"card{number}") for number in range(6)]
    reader = Reader(cloud.project, clock=Clock())
    board, _ = reader.turn(start_board(cloud.project), [run.id for run in runs])
    assert cloud.play.rounds == [6]
    assert all(part.calls == [] for part in cloud.play.parts.values())
    row = board.row_of(runs[0].id)
    assert row is not None
    assert not reader.is_over(board, row)
    few = Reader(cloud.project, clock=Clock())
    few.turn(board, [run.id for run in runs[:3]])
    assert part_of(cloud, runs[0].id).calls == ["status", "logs", "metrics"]
