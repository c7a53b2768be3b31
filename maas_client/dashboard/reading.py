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
from maas_client.run import Event, RunStatus

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
                board, came = self._read_page(board, row)
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
        if self._listener is not None:
            self._listener(row.id, status, (), ())
        return with_status(board, row.id, status)

    def _read_page(self, board: Board, row: Row) -> tuple[Board, bool]:
        """Take one page of the log and one of the events; True when either brought something."""
        jobs = self._project.platform(row.record.backend).jobs
        detail = board.details.get(row.id, Detail())
        logs, metrics = detail.logs, detail.metrics
        lines: tuple[str, ...] = ()
        events: tuple[Event, ...] = ()
        if logs.is_open:
            log_page = jobs.logs(row.ref, after=logs.after)
            lines, logs = log_page.lines, logs.moved(log_page.next)
        try:
            if metrics.is_open:
                metric_page = jobs.metrics(row.ref, after=metrics.after)
                events, metrics = metric_page.events, metrics.moved(metric_page.next)
        finally:
            board = with_page(board, row.id, lines=lines, events=events, logs=logs, metrics=metrics)
            if self._listener is not None and (status := _status(board, row.id)):
                self._listener(row.id, status, lines, events)
        return board, bool(lines or events)

    def _troubled(self, board: Board, row: Row, error: MaasError) -> Board:
        self.errors[row.id] = error
        message = (
            error.message if isinstance(error, UnavailableError) else f"{error.message} {error.hint}".strip()
        )
        return with_trouble(board, row.id, message)


def _status(board: Board, run_id: str) -> RunStatus | None:
    row = board.row_of(run_id)
    return row.status if row else None


def _is_settled(row: Row) -> bool:
    """True when this dashboard itself saw the final state: then its reason and last lines are known too."""
    return row.status is not None and row.state.is_final
