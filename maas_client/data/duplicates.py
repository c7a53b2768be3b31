"""Counting repeated rows of a file of any size: 8-byte hashes, sorted into partitions on disk.

A set of all rows grows with the file. Here every row leaves 8 bytes; a full buffer is sorted, cut at fixed
borders and each piece appended to its partition's file, so all equal hashes end up in one partition and
only one partition is in memory at a time. Files with fewer rows than the buffer never touch the disk. Two
different rows share a hash by chance once in about 2**64 / rows**2 files, which for ten million rows is one
in 180,000.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from tuning.rows import Example

BETWEEN_TURNS = "\x1e"
BUFFERED_ROWS = 1 << 19
PARTITIONS = 64
_SPAN = (1 << 64) // PARTITIONS
_BORDERS = [-(1 << 63) + _SPAN * number for number in range(1, PARTITIONS)]


def row_key(example: Example) -> int:
    """The hash by which rows are the same: the same texts in the same order, however written."""
    if example.text is not None:
        return hash(example.text)
    turns = example.messages + example.rejected
    text = BETWEEN_TURNS.join([turn.content for turn in turns])
    calls = [turn.tool_calls for turn in turns if turn.tool_calls]
    return hash((text, json.dumps([example.tools, calls]))) if calls or example.tools else hash(text)


class DuplicateCounter:
    """Takes the hashes of rows (signed 64-bit, as `hash()` gives them), then counts those that came before.

    `repeats` is the number of them, `repeated` the hashes that occur more than once (the first `most`).
    Close it, or use it in a `with` block: its temporary files then go.
    """

    def __init__(self, buffered_rows: int = BUFFERED_ROWS) -> None:
        self._buffer = array("q")
        self._buffered_rows = buffered_rows
        self._partitions: list[IO[bytes]] = []

    def __enter__(self) -> DuplicateCounter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._partitions:
            file.close()

    def add(self, hashes: Iterable[int]) -> None:
        """Take the hashes of some rows."""
        self._buffer.extend(hashes)
        if len(self._buffer) >= self._buffered_rows:
            self._spill()

    def count(self, most: int = 1000) -> tuple[int, set[int]]:
        """(repeats, repeated hashes); to be called once, at the end."""
        repeats, repeated = 0, set[int]()
        for group in self._groups():
            repeats_here = len(group) - len(set(group))
            if repeats_here and len(repeated) < most:
                repeated |= _repeated(group, most - len(repeated))
            repeats += repeats_here
        return repeats, repeated

    def _groups(self) -> Iterator[array[int]]:
        if not self._partitions:
            yield self._buffer
            return
        self._spill()
        for file in self._partitions:
            file.seek(0)
            group = array("q")
            group.frombytes(file.read())
            yield group

    def _spill(self) -> None:
        if not self._partitions:
            self._partitions = [tempfile.TemporaryFile() for _ in range(PARTITIONS)]  # noqa: SIM115
        ordered = array("q", sorted(self._buffer))
        start = 0
        for file, border in zip(self._partitions, [*_BORDERS, None], strict=True):
            end = len(ordered) if border is None else bisect_left(ordered, border, lo=start)
            file.write(memoryview(ordered)[start:end])
            start = end
        self._buffer = array("q")


def _repeated(group: Iterable[int], most: int) -> set[int]:
    """The first hashes of the group that occur again, at most `most`."""
    seen: set[int] = set()
    repeated: set[int] = set()
    for row_hash in group:
        if row_hash in seen:
            repeated.add(row_hash)
            if len(repeated) >= most:
                break
        seen.add(row_hash)
    return repeated
