"""The state of the dashboard and everything that changes it: pure functions from a board to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from maas_client.dashboard.progress import Progress, with_events
from maas_client.dashboard.wording import one_line
from maas_client.endpoint import EndpointStatus
from maas_client.ledger import RunRecord
from maas_client.run import Event, RunRef, RunState, RunStatus

LOG_LINES = 1000
DETAILS = 8
PAGE = 10


class Mode(StrEnum):
    """What fills the screen."""

    OVERVIEW = "overview"
    LOGS = "logs"


@dataclass(frozen=True)
class Command:
    """Something to do outside the board: `verb` is quit, cancel or resume; `run` is the run's id."""

    verb: str
    run: str = ""


@dataclass(frozen=True)
class Cursor:
    """How far a run's log or events were read: where to go on, and whether more can come."""

    after: str | None = None
    is_open: bool = True

    def moved(self, following: str | None) -> Cursor:
        """The cursor after a page; None means that nothing more can come."""
        return replace(self, is_open=False) if following is None else Cursor(following)


@dataclass(frozen=True)
class Detail:
    """What was read of one run: its events digested and its last log lines."""

    progress: Progress = field(default_factory=Progress)
    lines: tuple[str, ...] = ()
    logs: Cursor = Cursor()
    metrics: Cursor = Cursor()

    @property
    def is_drained(self) -> bool:
        """True when all that the run wrote was read."""
        return not (self.logs.is_open or self.metrics.is_open)


@dataclass(frozen=True)
class Row:
    """One run as last seen. `status` is the newest look from here, `trouble` why the look after it failed."""

    record: RunRecord
    status: RunStatus | None = None
    trouble: str = ""

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def ref(self) -> RunRef:
        """The run's identity."""
        return self.record.ref

    @property
    def _status_is_newest(self) -> bool:
        return self.status is not None and self.status.seen_at >= (self.record.seen_at or 0.0)

    @property
    def state(self) -> RunState:
        """The newest state that anybody saw."""
        return self.status.state if self.status and self._status_is_newest else self.record.state

    @property
    def message(self) -> str:
        """What the backend said with that state."""
        return self.status.message if self.status and self._status_is_newest else self.record.message

    @property
    def seen_at(self) -> float | None:
        """When that was, in unix seconds; None where nobody looked yet."""
        return self.status.seen_at if self.status and self._status_is_newest else self.record.seen_at

    @property
    def span(self) -> tuple[float | None, float | None]:
        """When the run started and ended, in unix seconds."""
        newest = self.status if self.status and self._status_is_newest else self.record
        return newest.started_at, newest.ended_at

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        started_at, ended_at = self.span
        facts = {
            **self.record.to_dict(),
            "state": self.state.value,
            "message": self.message,
            "seen_at": self.seen_at,
            "started_at": started_at,
            "ended_at": ended_at,
            "trouble": self.trouble,
        }
        if self.status is not None:
            facts |= {"reason": self.status.reason, "tail": list(self.status.tail)}
        return facts


@dataclass(frozen=True)
class Board:
    """Everything that a frame shows.

    `asking` is a command that waits for y or n; `scroll` counts lines up from the newest log line; `notice`
    is what the last key or command came to.
    """

    rows: tuple[Row, ...] = ()
    chosen: str | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)
    endpoints: tuple[EndpointStatus, ...] = ()
    mode: Mode = Mode.OVERVIEW
    asking: Command | None = None
    scroll: int = 0
    notice: str = ""

    @property
    def row(self) -> Row | None:
        """The chosen run."""
        return self.row_of(self.chosen)

    @property
    def detail(self) -> Detail:
        """What was read of the chosen run; empty where nothing was."""
        return self.details.get(self.chosen or "", Detail())

    def row_of(self, run_id: str | None) -> Row | None:
        """The row of a run."""
        return next((row for row in self.rows if row.id == run_id), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what `maas watch --once -o json` prints."""
        chosen = None
        if self.row is not None:
            chosen = {
                **self.row.to_dict(),
                "progress": self.detail.progress.to_dict(),
                "log": list(self.detail.lines),
            }
        return {
            "runs": [row.to_dict() for row in self.rows],
            "chosen": chosen,
            "endpoints": [endpoint.to_dict() for endpoint in self.endpoints],
        }


def with_runs(board: Board, records: Sequence[RunRecord]) -> Board:
    """The board with the ledger's runs, newest first; keeps the choice and what was read.

    A run that ended and was started again is read again from its start.
    """
    known = {row.id: row for row in board.rows}
    rows = tuple(replace(known[one.id], record=one) if one.id in known else Row(one) for one in records)
    details = dict(board.details)
    for row in rows:
        before = known.get(row.id)
        if before is not None and before.state.is_final and not row.state.is_final:
            details.pop(row.id, None)
    chosen = board.chosen if any(row.id == board.chosen for row in rows) else _first_choice(rows)
    return replace(board, rows=rows, details=details, chosen=chosen)


def _first_choice(rows: Sequence[Row]) -> str | None:
    """The newest run that has not ended, else the newest."""
    unfinished = (row.id for row in rows if not row.state.is_final)
    return next(unfinished, rows[0].id if rows else None)


def with_status(board: Board, run_id: str, status: RunStatus) -> Board:
    """The board after a look at a run."""
    return with_statuses(board, {run_id: status})


def with_statuses(board: Board, statuses: Mapping[str, RunStatus]) -> Board:
    """The board after looks at some runs, by run id."""
    rows = tuple(
        replace(row, status=statuses[row.id], trouble="") if row.id in statuses else row for row in board.rows
    )
    return replace(board, rows=rows)


def with_trouble(board: Board, run_id: str, message: str) -> Board:
    """The board after a look that failed: what was seen before stays and grows old."""
    rows = tuple(replace(row, trouble=one_line(message)) if row.id == run_id else row for row in board.rows)
    return replace(board, rows=rows)


def with_page(
    board: Board, run_id: str, *, lines: Sequence[str], events: Sequence[Event], logs: Cursor, metrics: Cursor
) -> Board:
    """The board after pages of a run's log and events. Keeps 1000 lines a run, and the details of 8 runs."""
    before = board.details.get(run_id, Detail())
    kept = (*before.lines, *map(one_line, lines[-LOG_LINES:]))[-LOG_LINES:]
    detail = Detail(with_events(before.progress, events), kept, logs, metrics)
    details = {**{key: value for key, value in board.details.items() if key != run_id}, run_id: detail}
    for oldest in list(details)[:-DETAILS]:
        del details[oldest]
    scrolled = board.scroll + len(lines) if board.scroll and run_id == board.chosen else board.scroll
    return replace(board, details=details, scroll=min(scrolled, max(0, len(kept) - 1)))


def with_reading(board: Board, before: Board, after: Board) -> Board:
    """The board with what was read while keys were pressed: `before` was read for and became `after`."""
    chosen = board.chosen if after.row_of(board.chosen) is not None else after.chosen
    read = replace(board, rows=after.rows, details=after.details, endpoints=after.endpoints, chosen=chosen)
    scroll = board.scroll
    if scroll and chosen == before.chosen:
        scroll += _lines_since(before.detail.lines, read.detail.lines)
    notice = board.notice if after.notice == before.notice else after.notice
    return replace(read, scroll=min(scroll, max(0, len(read.detail.lines) - 1)), notice=notice)


def _lines_since(before: Sequence[str], after: Sequence[str]) -> int:
    """How many lines came after the last one of before, which is the very same text object."""
    last = before[-1] if before else None
    return next((number for number, line in enumerate(reversed(after)) if line is last), len(after))


def key(board: Board, name: str) -> tuple[Board, Command | None]:
    """The board after a key, and what to do.

    Keys are up, down, page-up, page-down, home, end, enter, escape, or a character.
    """
    if board.asking is not None:
        asked, board = board.asking, replace(board, asking=None, notice="")
        return board, asked if name in {"y", "Y"} else None
    board = replace(board, notice="")
    if name == "q":
        return board, Command("quit")
    if name in {"c", "r"}:
        return _ask(board, name), None
    if name in {"l", "enter"}:
        other = Mode.OVERVIEW if board.mode is Mode.LOGS else Mode.LOGS
        return replace(board, mode=other, scroll=0) if board.row else board, None
    if name == "escape":
        return replace(board, mode=Mode.OVERVIEW, scroll=0), None
    return (_scrolled(board, name) if board.mode is Mode.LOGS else _moved(board, name)), None


def _ask(board: Board, name: str) -> Board:
    """Ask before a run is canceled or resumed, or say why it cannot be."""
    row = board.row
    if row is None:
        return replace(board, notice="There is no run yet.")
    if name == "c" and row.state.is_final:
        return replace(board, notice=f"{row.id} has ended: it {row.state.words}.")
    if name == "r" and row.state not in {RunState.FAILED, RunState.CANCELED}:
        return replace(
            board, notice=f"{row.id} {row.state.words}; only a failed or canceled run can be resumed."
        )
    return replace(board, asking=Command("cancel" if name == "c" else "resume", row.id))


_MOVES = {
    "up": -1,
    "k": -1,
    "down": 1,
    "j": 1,
    "page-up": -PAGE,
    "page-down": PAGE,
    "home": -(10**9),
    "end": 10**9,
}
_MOVES |= {"g": _MOVES["home"], "G": _MOVES["end"]}


def _moved(board: Board, name: str) -> Board:
    """Choose another run."""
    ids = [row.id for row in board.rows]
    if name not in _MOVES or board.chosen not in ids:
        return board
    place = min(max(0, ids.index(board.chosen) + _MOVES[name]), len(ids) - 1)
    return replace(board, chosen=ids[place], scroll=0)


def _scrolled(board: Board, name: str) -> Board:
    """Scroll the log; at its end it follows what comes."""
    if name not in _MOVES:
        return board
    most = max(0, len(board.detail.lines) - 1)
    return replace(board, scroll=min(max(0, board.scroll - _MOVES[name]), most))
