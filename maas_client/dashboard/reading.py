"""What the dashboard reads, and when: each call takes what is due and gives the next board."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
    with_trouble,
)
from maas_client.errors import MaasError, UnavailableError
from maas_client.following import UNKNOWN_LOOKS, stays_unknown
from maas_client.run import Event, RunState, RunStatus

if TYPE_CHECKING:
    from maas_client.project import Project

SWEEP_S = 5.0
_BUDGET_S = 0.1

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

    def runs_and_endpoints(self, board: Board) -> Board:
        """The board with the ledger's runs and every endpoint as they are now."""
        try:
            board = with_runs(board, self._project.runs())
            return replace(board, endpoints=tuple(self._project.endpoints()))
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
        try:
            board = self._look(board, row)
            came = True
            while came and self._clock() < until:
                board, has_lines = self._read_lines(board, row)
                board, has_events = self._read_events(board, row)
                came = has_lines or has_events
            return board, came
        except MaasError as error:
            return self._troubled(board, row, error), False

    def read_all(self, board: Board, run_id: str | None) -> Board:
        """Look at a run and take all that it has written so far."""
        more = True
        while more:
            board, more = self.read(board, run_id)
        return board

    def sweep(self, board: Board, *, budget_s: float = _BUDGET_S) -> Board:
        """Look once at runs that have not ended and were not looked at for 5 s, the longest unseen first."""
        now = until = self._clock()
        due = [row for row in board.rows if now - self._looked.get(row.id, -SWEEP_S) >= SWEEP_S]
        for row in sorted(due, key=lambda one: self._looked.get(one.id, -1.0)):
            if row.state.is_final:
                continue
            if until - now > budget_s:
                break
            try:
                board = self._look(board, row)
            except MaasError as error:
                board = self._troubled(board, row, error)
            until = self._clock()
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

    def _look(self, board: Board, row: Row) -> Board:
        self._looked[row.id] = self._clock()
        status = self._project.look(row.record)
        self.errors.pop(row.id, None)
        board = with_status(board, row.id, status)
        self._tell(board, row, (), ())
        self._unknown[row.id] = self._unknown.get(row.id, 0) + 1 if status.state is RunState.UNKNOWN else 0
        if self._unknown[row.id] >= UNKNOWN_LOOKS:
            raise stays_unknown(row.ref, status)
        return board

    def _read_lines(self, board: Board, row: Row) -> tuple[Board, bool]:
        """Take a page of the log; True when it brought something."""
        detail = board.details.get(row.id, Detail())
        if not detail.logs.is_open:
            return board, False
        page = self._project.platform(row.record.backend).jobs.logs(row.ref, after=detail.logs.after)
        logs = detail.logs.moved(page.next)
        board = with_page(board, row.id, lines=page.lines, events=(), logs=logs, metrics=detail.metrics)
        self._tell(board, row, page.lines, ())
        return board, bool(page.lines)

    def _read_events(self, board: Board, row: Row) -> tuple[Board, bool]:
        """Take a page of the events; True when it brought something."""
        detail = board.details.get(row.id, Detail())
        if not detail.metrics.is_open:
            return board, False
        page = self._project.platform(row.record.backend).jobs.metrics(row.ref, after=detail.metrics.after)
        metrics = detail.metrics.moved(page.next)
        board = with_page(board, row.id, lines=(), events=page.events, logs=detail.logs, metrics=metrics)
        self._tell(board, row, (), page.events)
        return board, bool(page.events)

    def _tell(self, board: Board, row: Row, lines: Sequence[str], events: Sequence[Event]) -> None:
        seen = board.row_of(row.id)
        if self._listener is not None and seen is not None and seen.status is not None:
            self._listener(row.id, seen.status, lines, events)

    def _troubled(self, board: Board, row: Row, error: MaasError) -> Board:
        self.errors[row.id] = error
        message = (
            error.message if isinstance(error, UnavailableError) else f"{error.message} {error.hint}".strip()
        )
        return with_trouble(board, row.id, message)


def _is_settled(row: Row) -> bool:
    """True when this dashboard itself saw the final state: then its reason and last lines are known too."""
    return row.status is not None and row.state.is_final
