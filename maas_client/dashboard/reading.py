"""What the dashboard reads, and when: each call takes what is due and gives the next board."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from maas_client.dashboard.board import (
    Board,
    Command,
    Detail,
    Row,
    with_page,
    with_runs,
    with_status,
    with_statuses,
    with_trouble,
)
from maas_client.errors import MaasError, UnavailableError
from maas_client.following import LOCAL, POLL_S, REFUSED_LOOKS, UNKNOWN_LOOKS, pause_s, stays_unknown
from maas_client.run import Event, RunState, RunStatus

if TYPE_CHECKING:
    from maas_client.project import Project

SWEEP_S = 5.0
SERVICE_SWEEP_S = 15.0
LIST_S = 60.0
"""So long the endpoints of a service are shown before it is asked for them again."""
_BUDGET_S = 0.1
_FULL_PAGE = 500
_MOST_READ = 4
"""Logs and events of so many runs of services are read side by side."""

Listener = Callable[[str, RunStatus, Sequence[str], Sequence[Event]], None]
"""Is told of each look: the run's id, its status, and the lines and events that came."""


class Reader:
    """Reads a project for a dashboard. A backend that fails leaves its runs as last seen, with the reason.

    `errors` holds the error of each run whose last look failed.
    """

    def __init__(
        self,
        project: Project,
        *,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.errors: dict[str, MaasError] = {}
        self._project = project
        self._listener = listener
        self._clock = clock
        self._looked: dict[str, float] = {}
        self._unknown: dict[str, int] = {}
        self._quiet: dict[str, int] = {}
        self._distant: frozenset[str] | None = None
        self._refused: dict[str, int] = {}  # of runs that were seen: looks that failed since

    def runs_and_endpoints(self, board: Board) -> Board:
        """The board with the ledger's runs and every endpoint as they are now."""
        try:
            board = with_runs(board, self._project.runs())
            return replace(board, endpoints=tuple(self._project.endpoints(max_age_s=LIST_S)))
        except MaasError as error:
            return replace(board, notice=error.message)

    def read(self, board: Board, run_id: str | None) -> tuple[Board, bool]:
        """Look at a run and take the next pages, for at most 0.1 s; True when more is there already.

        A run that has ended and was read to its end is not looked at again.
        """
        row = board.row_of(run_id)
        if row is None or (_is_settled(row) and board.details.get(row.id, Detail()).is_drained):
            return board, False
        until = self._clock() + _BUDGET_S
        quiet, count = self._quiet.get(row.id, 0) + 1, 0
        try:
            board = self._look(board, row)
            came = 1
            while came and self._clock() < until:
                board, lines = self._read_lines(board, row)
                board, events = self._read_events(board, row)
                came = lines + events
                quiet, count = 0 if came else quiet, count + came
            return board, bool(came) and self._expects_more(board, row, count)
        except MaasError as error:
            return self._troubled(board, row, error), False
        finally:
            self._quiet[row.id] = quiet

    def _expects_more(self, board: Board, row: Row, count: int) -> bool:
        """Whether to read again at once after so many lines and events; a service is asked with a pause."""
        seen = board.row_of(row.id)
        has_ended = seen is not None and seen.state.is_final
        return row.record.backend == LOCAL or has_ended or count >= _FULL_PAGE

    def turn(self, board: Board, run_ids: Sequence[str]) -> tuple[Board, bool]:
        """Read these runs once each; True when more is there already.

        Of more than a few runs of services only the states are looked at, all at once: each log is requests.
        """
        rows = [row for run_id in run_ids if (row := board.row_of(run_id)) is not None]
        self._distant = _distant(rows) if self._distant is None else self._distant
        more = False
        for row in rows:
            if row.id not in self._distant:
                board, came = self.read(board, row.id)
                more = more or came
        return (self.sweep(board) if self._distant else board), more

    def is_over(self, board: Board, row: Row) -> bool:
        """True when a run's end was seen here, and all that is read of it was read."""
        is_read = row.id in (self._distant or ()) or board.details.get(row.id, Detail()).is_drained
        return _is_settled(row) and is_read

    def pause_s(self, board: Board, run_ids: Iterable[str | None]) -> float:
        """Seconds until one of these runs should be read again: services are asked less often."""
        rows = [row for run_id in run_ids if (row := board.row_of(run_id)) is not None]
        return min((pause_s(row.record.backend, self._quiet.get(row.id, 0)) for row in rows), default=POLL_S)

    def read_all(self, board: Board, run_id: str | None) -> Board:
        """Look at a run and take all that it has written so far."""
        more = True
        while more:
            board, more = self.read(board, run_id)
        return board

    def sweep(self, board: Board, *, budget_s: float = _BUDGET_S) -> Board:
        """Look once at runs that have not ended and were not looked at for a while, the longest unseen first.

        Runs on this machine one by one, every 5 s and for at most `budget_s`; those of services every 15 s
        and all at once.
        """
        due = [row for row in board.rows if not row.state.is_final and self._is_due(row)]
        due.sort(key=lambda one: self._looked.get(one.id, -1.0))
        board = self._look_at_all(board, [row for row in due if row.record.backend != LOCAL])
        began = until = self._clock()
        for row in due:
            if row.record.backend != LOCAL:
                continue
            if until - began > budget_s:
                break
            try:
                board = self._look(board, row)
            except MaasError as error:
                board = self._troubled(board, row, error)
            until = self._clock()
        return board

    def _is_due(self, row: Row) -> bool:
        every_s = SWEEP_S if row.record.backend == LOCAL else SERVICE_SWEEP_S
        return self._clock() - self._looked.get(row.id, -every_s) >= every_s

    def _look_at_all(self, board: Board, rows: Sequence[Row]) -> Board:
        """Look at runs of services, in as few requests as they allow."""
        seen = self._project.look_at_all([row.record for row in rows]) if rows else {}
        board = with_statuses(
            board, {run_id: one for run_id, one in seen.items() if isinstance(one, RunStatus)}
        )
        for row in rows:
            self._looked[row.id] = self._clock()
            status = seen[row.id]
            try:
                if isinstance(status, MaasError):
                    raise status
                self._saw(board, row, status)
            except MaasError as error:
                board = self._troubled(board, row, error)
        return board

    def obey(self, board: Board, command: Command) -> Board:
        """Cancel or resume a run; what came of it is the notice."""
        row = board.row_of(command.run)
        if row is None:
            return board
        act = self._project.cancel if command.verb == "cancel" else self._project.resume
        told = "is asked to stop" if command.verb == "cancel" else "goes on from its newest checkpoint"
        try:
            act(row.record)
            board = with_runs(self._look(board, row), self._project.runs())
        except MaasError as error:
            return replace(board, notice=f"{error.message} {error.hint}".strip())
        return replace(board, notice=f"{row.id} {told}.")

    def lost(self, run_id: str | None) -> MaasError | None:
        """Why looking at a run again will not help; None while it may, as where its service is away."""
        error = self.errors.get(run_id or "")
        if error is None or isinstance(error, UnavailableError):
            return None
        return error if self._refused.get(run_id or "", REFUSED_LOOKS) >= REFUSED_LOOKS else None

    def _look(self, board: Board, row: Row) -> Board:
        self._looked[row.id] = self._clock()
        status = self._project.look(row.record)
        board = with_status(board, row.id, status)
        self._saw(board, row, status)
        return board

    def _saw(self, board: Board, row: Row, status: RunStatus) -> None:
        """Tell of a look that went well. Raises ServiceError where a run stays unknown."""
        self.errors.pop(row.id, None)
        self._refused[row.id] = 0
        self._tell(board, row, (), ())
        self._unknown[row.id] = self._unknown.get(row.id, 0) + 1 if status.state is RunState.UNKNOWN else 0
        if self._unknown[row.id] >= UNKNOWN_LOOKS:
            self._refused[row.id] = REFUSED_LOOKS
            raise stays_unknown(row.ref, status)

    def _read_lines(self, board: Board, row: Row) -> tuple[Board, int]:
        """Take a page of the log; how many lines it brought."""
        detail = board.details.get(row.id, Detail())
        if not detail.logs.is_open:
            return board, 0
        page = self._project.platform(row.record.backend).jobs.logs(row.ref, after=detail.logs.after)
        logs = detail.logs.moved(page.next)
        board = with_page(board, row.id, lines=page.lines, events=(), logs=logs, metrics=detail.metrics)
        self._tell(board, row, page.lines, ())
        return board, len(page.lines)

    def _read_events(self, board: Board, row: Row) -> tuple[Board, int]:
        """Take a page of the events; how many it brought."""
        detail = board.details.get(row.id, Detail())
        if not detail.metrics.is_open:
            return board, 0
        page = self._project.platform(row.record.backend).jobs.metrics(row.ref, after=detail.metrics.after)
        metrics = detail.metrics.moved(page.next)
        board = with_page(board, row.id, lines=(), events=page.events, logs=detail.logs, metrics=metrics)
        self._tell(board, row, (), page.events)
        return board, len(page.events)

    def _tell(self, board: Board, row: Row, lines: Sequence[str], events: Sequence[Event]) -> None:
        seen = board.row_of(row.id)
        if self._listener is not None and seen is not None and seen.status is not None:
            self._listener(row.id, seen.status, lines, events)

    def _troubled(self, board: Board, row: Row, error: MaasError) -> Board:
        self.errors[row.id] = error
        if row.id in self._refused:
            self._refused[row.id] += 1
        message = (
            error.message if isinstance(error, UnavailableError) else f"{error.message} {error.hint}".strip()
        )
        return with_trouble(board, row.id, message)


def _distant(rows: Sequence[Row]) -> frozenset[str]:
    """The runs of which only the state is looked at: those of services, where they are many."""
    far = frozenset(row.id for row in rows if row.record.backend != LOCAL)
    return far if len(far) > _MOST_READ else frozenset()


def _is_settled(row: Row) -> bool:
    """True when this dashboard itself saw the final state: then its reason and last lines are known too."""
    return row.status is not None and row.state.is_final
