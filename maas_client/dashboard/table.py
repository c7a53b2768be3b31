"""The table of runs, and how old the sight of a run is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from maas_client.dashboard.board import Board, Row
from maas_client.dashboard.glyphs import BOLD, FAINT, PLAIN, STATE_STYLES, WARN, Pen
from maas_client.dashboard.wording import ago, duration, percent

STALE_S = 30.0
_NAME_CELLS = 16


def is_stale(row: Row, now: float) -> bool:
    """True when a run that may have changed was not seen for 30 s, or could not be seen just now."""
    if row.state.is_final:
        return False
    return bool(row.trouble) or (row.seen_at is not None and now - row.seen_at > STALE_S)


def sight_age(row: Row, now: float) -> tuple[str, Style]:
    """How old the sight of a run is."""
    if row.state.is_final:
        ended = row.span[1] or row.seen_at
        return ("" if ended is None else f"ended {ago(now - ended)}"), FAINT
    if row.seen_at is None:
        return ("not reached yet" if row.trouble else "not seen yet"), WARN
    seen = f"seen {ago(now - row.seen_at)}"
    return (f"stale: {seen}", WARN) if is_stale(row, now) else (seen, FAINT)


@dataclass(frozen=True)
class _Column:
    """A column of the runs table."""

    heading: str
    width: int
    cell: Callable[[Row, Board, float], str]
    right: bool = False


def _took(row: Row, _board: Board, now: float) -> str:
    started, ended = row.span
    return "" if started is None else duration((ended or (started if row.state.is_final else now)) - started)


def _seen(row: Row, _board: Board, now: float) -> str:
    if row.state.is_final:
        return ""
    return (
        "never" if row.seen_at is None else ("stale " if is_stale(row, now) else "") + ago(now - row.seen_at)
    )


def _done(row: Row, board: Board, _now: float) -> str:
    detail = board.details.get(row.id)
    share = detail.progress.fraction if detail is not None else None
    return "" if share is None else percent(share)


def _spec(row: Row, *keys: str) -> str:
    value: object = row.record.spec
    for name in keys:
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else str(value)


_COLUMNS = (
    _Column("STATE", 11, lambda row, _board, _now: row.state.value),
    _Column("DONE", 5, _done, right=True),
    _Column("STARTED", 10, lambda row, _board, now: ago(now - row.record.created_at), right=True),
    _Column("TOOK", 12, _took, right=True),
    _Column("SEEN", 15, _seen, right=True),
    _Column("TASK", 15, lambda row, _board, _now: _spec(row, "task")),
    _Column("MODEL", 14, lambda row, _board, _now: _spec(row, "model")),
    _Column("METHOD", 6, lambda row, _board, _now: _spec(row, "method", "name")),
    _Column("WHERE", 8, lambda row, _board, _now: row.record.backend),
)


def runs_table(board: Board, pen: Pen, now: float, lines: int) -> list[Text]:
    """A window of the runs around the chosen one, with a heading where there is room for it."""
    columns, name_width = _columns(board, pen.width)
    heading = lines > 1
    window = _window(board, lines - heading)
    made = []
    if heading:
        cells = [pen.column(one.heading, one.width, right=one.right) for one in columns]
        hidden = len(board.rows) - len(window)
        name = f"RUN ({hidden} more)" if hidden else "RUN"
        made.append(pen.line(("  " + "  ".join([pen.column(name, name_width), *cells]), FAINT)))
    return made + [_run_line(row, columns, board, name_width, pen, now) for row in window]


def _columns(board: Board, width: int) -> tuple[list[_Column], int]:
    """As many columns as leave room for the longest run's id, at least the state; and the room for the id."""
    longest = max(_NAME_CELLS, *(cell_len(row.id) for row in board.rows))
    room = width - 2
    chosen: list[_Column] = []
    for column in _COLUMNS:
        if chosen and room - column.width - 2 < longest:
            break
        chosen.append(column)
        room -= column.width + 2
    return chosen, max(1, room)


def _window(board: Board, size_: int) -> tuple[Row, ...]:
    place = next((at for at, row in enumerate(board.rows) if row.id == board.chosen), 0)
    first = max(0, min(place - size_ // 2, len(board.rows) - size_))
    return board.rows[first : first + size_]


def _run_line(row: Row, columns: list[_Column], board: Board, name_width: int, pen: Pen, now: float) -> Text:
    is_chosen = row.id == board.chosen
    parts: list[str | tuple[str, Style]] = [
        (f"{pen.glyphs.pointer} " if is_chosen else "  ", BOLD),
        (pen.column(row.id, name_width), BOLD if is_chosen else PLAIN),
    ]
    for column in columns:
        cell, style = column.cell(row, board, now), FAINT
        if column.heading == "STATE":
            cell, style = f"{pen.glyphs.sign(row.state)} {cell}", STATE_STYLES[row.state]
        elif column.heading == "SEEN" and is_stale(row, now):
            style = WARN
        parts += ["  ", (pen.column(cell, column.width, right=column.right), style)]
    return pen.line(*parts)
