"""Pages of a file that grows: a cursor is the number of bytes read, and only whole lines are given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maas_client.errors import UsageError
from maas_client.logtext import PAGE_BYTES, lines_of, whole_bytes
from maas_client.run import Event

_TAIL_BYTES = 64 << 10


def read_lines(path: Path, after: str | None, *, ended: bool) -> tuple[tuple[str, ...], str | None]:
    """Lines after the cursor, and the next cursor; None when the file has `ended` and all of it was given.

    A line without its end waits for it until the file has ended. A page holds at most PAGE_BYTES; a line
    longer than that comes in pieces. Of a line that carriage returns overwrote, the last state is given.
    """
    start = _offset(after)
    chunk, at_end = _read(path, start)
    if not at_end or not ended:
        chunk = chunk[: whole_bytes(chunk)]
    return lines_of(chunk), None if ended and at_end else str(start + len(chunk))


def read_events(path: Path, after: str | None, *, ended: bool) -> tuple[tuple[Event, ...], str | None]:
    """Events after the cursor, and the next cursor. A torn last line waits; a broken one is left out."""
    lines, cursor = read_lines(path, after, ended=ended)
    return tuple(_events(lines)), cursor


def last_text(path: Path) -> str:
    """The last 64 KiB of a file as text; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _offset(after: str | None) -> int:
    if after is None:
        return 0
    if not (after.isascii() and after.isdecimal()):
        raise UsageError(
            f"{after!r} is not a cursor.", hint="Pass the `next` of the page before, or nothing."
        )
    return int(after)


def _read(path: Path, start: int) -> tuple[bytes, bool]:
    """Up to a page of bytes, and whether they reach the end of the file as it is now."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            chunk = file.read(PAGE_BYTES + 1)
    except FileNotFoundError:
        return b"", True
    return chunk[:PAGE_BYTES], len(chunk) <= PAGE_BYTES


def _events(lines: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "event" in value:
            yield value
