"""The dashboard at work: on the screen of a terminal, as lines elsewhere, or as one frame."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live

from maas_client.dashboard.background import Background
from maas_client.dashboard.board import Board, Command, Detail, Mode, key, with_reading, with_runs
from maas_client.dashboard.glyphs import glyphs_for
from maas_client.dashboard.keyboard import Keyboard
from maas_client.dashboard.lines import LineLog
from maas_client.dashboard.reading import SWEEP_S, Reader
from maas_client.dashboard.view import frame, summary
from maas_client.errors import NotFoundError
from maas_client.following import POLL_S
from maas_client.run import Event, RunStatus

if TYPE_CHECKING:
    from maas_client.ledger import RunRecord
    from maas_client.project import Project

_SOON_S = 0.1


def watch_run(project: Project, record: RunRecord) -> RunStatus:
    """Watch a run to its end, on the terminal or else as lines on stderr; returns the last look.

    `q` returns before the end. Ctrl-C says how to come back and raises KeyboardInterrupt; the run goes on.
    Raises NotFoundError where the run is not known.
    """
    screen = next((stream for stream in (sys.stderr, sys.stdout) if can_draw(stream)), None)
    try:
        if screen is not None:
            status = watch_on_screen(project, screen, target=record.id)
        else:
            status = watch_in_lines(project, sys.stderr, target=record.id)
    except KeyboardInterrupt:
        say_detached(record)
        raise
    return status or project.look(record)


def say_detached(record: RunRecord) -> None:
    """Tell on stderr that only the watching ended."""
    print(f"detached; the run goes on: maas watch {record.id}", file=sys.stderr, flush=True)


def can_draw(stream: TextIO) -> bool:
    """True for a terminal that can move its cursor."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


def start_board(project: Project, *, chosen: str | None = None, mode: Mode = Mode.OVERVIEW) -> Board:
    """A board with the runs as the ledger has them, nothing looked at yet. Raises ServiceError."""
    return with_runs(Board(chosen=chosen, mode=mode), project.runs())


# -- one frame


def read_once(project: Project, *, chosen: str | None, mode: Mode = Mode.OVERVIEW) -> tuple[Board, Reader]:
    """Look once at every run that has not ended, read all of the chosen one. The reader holds what failed."""
    reader = Reader(project)
    board = reader.runs_and_endpoints(start_board(project, chosen=chosen, mode=mode))
    board = reader.read_all(board, board.chosen)
    return reader.sweep(board, budget_s=float("inf")), reader


# -- the screen


def watch_on_screen(
    project: Project, stream: TextIO, *, target: str | None = None, mode: Mode = Mode.OVERVIEW
) -> RunStatus | None:
    """Draw until q, or until the run `target` has ended; its summary then stays on the normal screen.

    Returns the last look at `target`. Raises NotFoundError when it is not known, KeyboardInterrupt on Ctrl-C.
    """
    console = Console(file=stream, highlight=False)
    board = _Screen(project, console, target).watch(start_board(project, chosen=target, mode=mode))
    row = board.row_of(target)
    if row is None:
        return None
    if row.state.is_final:
        shown = replace(board, chosen=target)
        console.print(summary(shown, console.width, project.clock(), glyphs=glyphs_for(console.encoding)))
    return row.status or project.look(row.record)


@dataclass(frozen=True)
class _Reading:
    """What was read in the background: the board before and after, and how long to wait with the next one."""

    before: Board
    after: Board
    pause_s: float | None = None


class _Screen:
    """The loop: draw, wait for a key or for what is read in the background, begin what is due."""

    def __init__(self, project: Project, console: Console, target: str | None) -> None:
        self._project, self._console, self._target = project, console, target
        self._reader = Reader(project)
        self._glyphs = glyphs_for(console.encoding)
        self._read_due = self._all_due = time.monotonic()
        self._commands: list[Command] = []

    def watch(self, board: Board) -> Board:
        """Draw until q or until the target has ended and was read to its end. Returns the last board."""
        with (
            Keyboard() as keyboard,
            Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
        ):
            reading = Background[_Reading](keyboard.wake)
            while not _has_ended(board, self._target):
                self._begin_what_is_due(board, reading)
                self._draw(board, live)
                for name in keyboard.wait(self._patience_s(reading)):
                    if name == "hangup":
                        return board
                    if name == "suspend":
                        self._suspend(keyboard, live)
                        continue
                    board, command = key(was := board, name)
                    if command is not None and command.verb == "quit":
                        return board
                    if command is not None:
                        self._commands.append(command)
                    elif board.chosen != was.chosen:
                        self._read_due = time.monotonic() + _SOON_S
                if (read := reading.take()) is not None:
                    board = self._take(board, read)
        return board

    def _draw(self, board: Board, live: Live) -> None:
        width, height = self._console.size
        live.update(frame(board, width, height, self._project.clock(), glyphs=self._glyphs), refresh=True)

    def _suspend(self, keyboard: Keyboard, live: Live) -> None:
        live.stop()
        keyboard.suspend()
        live.start()

    def _patience_s(self, reading: Background[_Reading]) -> float:
        """How long to wait for a key; clocks on the screen go on while something is read."""
        if reading.is_busy:
            return POLL_S
        return min(self._read_due, self._all_due) - time.monotonic()

    def _begin_what_is_due(self, board: Board, reading: Background[_Reading]) -> None:
        if reading.is_busy:
            return
        now = time.monotonic()
        if self._commands:
            command = self._commands.pop(0)
            reading.start(lambda: _Reading(board, self._reader.obey(board, command), 0.0))
        elif now >= self._all_due:
            self._all_due = now + SWEEP_S
            reading.start(lambda: _Reading(board, self._reader.runs_and_endpoints(board)))
        elif now >= self._read_due:
            reading.start(lambda: self._read(board))

    def _read(self, board: Board) -> _Reading:
        """Look at the chosen run and at the target, then at the others."""
        after, more = self._reader.read(board, board.chosen)
        if self._target != board.chosen:
            after, still_more = self._reader.read(after, self._target)
            more = more or still_more
        after = self._reader.sweep(after)
        pause_s = 0.0 if more else self._reader.pause_s(after, (board.chosen, self._target))
        return _Reading(board, after, pause_s)

    def _take(self, board: Board, read: _Reading) -> Board:
        """The board with what was read. Raises what the target's looks came to, where that is the end."""
        if read.pause_s is not None:
            pause_s = read.pause_s if board.chosen == read.before.chosen else _SOON_S
            self._read_due = time.monotonic() + pause_s
            raise_if_lost(self._reader, self._target)
        return with_reading(board, read.before, read.after)


def _has_ended(board: Board, target: str | None) -> bool:
    """True when the target's final state was seen here and all that it wrote was read."""
    row = board.row_of(target)
    if row is None or row.status is None:
        return False
    return row.state.is_final and board.details.get(row.id, Detail()).is_drained


def raise_if_lost(reader: Reader, target: str | None) -> None:
    """Raise what looking at the target came to, unless trying again may help."""
    error = reader.lost(target)
    if error is not None:
        raise error


# -- lines


def watch_in_lines(
    project: Project, stream: TextIO, *, target: str | None = None, with_log: bool = False
) -> RunStatus | None:
    """Write a line for each change until the run `target` (else every run) has ended; `with_log` adds logs.

    Returns the last look at `target`. A backend that is away is waited for. Raises NotFoundError.
    """
    log = LineLog()

    def hear(run_id: str, status: RunStatus, lines: Sequence[str], events: Sequence[Event]) -> None:
        _write(stream, [*(lines if with_log else ()), *log.lines(run_id, status, events)])

    reader = Reader(project, listener=hear)
    board = start_board(project, chosen=target)
    watched = [target] if target else [row.id for row in board.rows if not row.state.is_final]
    told: dict[str, str] = {}
    with Keyboard() as keyboard:
        while watched:
            board, more = reader.turn(board, watched)
            for run_id in list(watched):
                _write(stream, _new_trouble(board, run_id, told))
                row = board.row_of(run_id)
                if row is not None and row.status is not None and reader.is_over(board, row):
                    _write(stream, log.end(run_id, row.status))
                    watched.remove(run_id)
                elif target is None and isinstance(reader.errors.get(run_id), NotFoundError):
                    watched.remove(run_id)
            raise_if_lost(reader, target)
            if watched and not more:
                keyboard.wait(reader.pause_s(board, watched))
    row = board.row_of(target)
    return row.status if row else None


def _write(stream: TextIO, texts: Sequence[str]) -> None:
    """Print lines; what the stream cannot show becomes `?`."""
    encoding = stream.encoding or "utf-8"
    for text in texts:
        print(text.encode(encoding, "replace").decode(encoding), file=stream)
    stream.flush()


def _new_trouble(board: Board, run_id: str, told: dict[str, str]) -> list[str]:
    """A line where a run cannot be seen, and one where it can be seen again."""
    row = board.row_of(run_id)
    trouble = row.trouble if row else ""
    before, told[run_id] = told.get(run_id, ""), trouble
    if trouble == before:
        return []
    return [f"{run_id}: cannot be seen just now: {trouble}" if trouble else f"{run_id}: can be seen again"]
