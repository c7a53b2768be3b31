"""Data files of any kind as one file of JSON Lines: rows as they are, or as the chat that training sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from maas_client.bundled import tuning_module
from maas_client.data.convert import RowWriter, Written, converted
from maas_client.data.formats import FORMATS_HINT, task_of_file
from maas_client.errors import DataError, UsageError


def gather(sources: Sequence[Path], into: Path) -> Written:
    """Write the rows of some files, one after the other, as they are. Raises DataError and UsageError.

    Here and below, `into` is a new file, which appears whole or not at all.
    """
    return _write(_rows(sources), into)


def gather_pairs(source: Path, target: Path, into: Path) -> Written:
    """Join two files line by line: a sentence and its translation a row. Raises DataError and UsageError."""
    return _write(_pairs(source, target), into)


def gather_chats(sources: Sequence[Path], into: Path, *, task: str | None = None) -> Written:
    """Write the rows of some files as messages: as `task` (default: what the rows fit) asks and answers.

    Raises DataError and UsageError.
    """
    return _write(_chats(sources, task), into)


def _write(rows: Iterable[Mapping[str, Any]], into: Path) -> Written:
    if into.exists():
        raise UsageError(f"{into} is there already.", hint="Choose another --to, or remove it.")
    into.parent.mkdir(parents=True, exist_ok=True)
    with RowWriter(into) as writer:
        for row in rows:
            writer.write(row)
    return writer.written()


def _rows(sources: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """The decoded rows, all of one format."""
    rows = tuning_module("rows")
    seen = None
    for source in sources:
        for line, record in _records(source):
            try:
                found = rows.row_format(record)
            except rows.RowError as error:
                raise _bad(source, line, error.reason) from None
            if seen is not None and found != seen:
                raise _bad(source, line, tuning_module("datafile").mixed_formats(found, seen))
            seen = found
            yield record  # type: ignore[misc] # what has a format is a mapping


def _records(source: Path) -> Iterator[tuple[int, object]]:
    """The decoded rows of a file. Raises DataError for the first that cannot be read."""
    files, rows = tuning_module("datafile"), tuning_module("rows")
    try:
        for line, record in files.read_records(source):
            if isinstance(record, rows.RowError):
                raise _bad(source, line, record.reason)
            yield line, record
    except files.DataError as error:
        raise DataError(error.reason, hint=FORMATS_HINT) from None


def _pairs(source: Path, target: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of two files side by side; a line that is blank in both is passed over."""
    for line, both in enumerate(zip_longest(_lines(source), _lines(target)), 1):
        if None in both:
            shorter = source if both[0] is None else target
            raise DataError(f"{shorter} ends before line {line}.", hint="Both need a line for each row.")
        first, second = (str(text).strip() for text in both)
        if bool(first) != bool(second):
            raise _bad(target if first else source, line, "the line is blank, but the other file has text")
        if first:
            yield {"source": first, "target": second}


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file. Raises DataError."""
    lines, files = tuning_module("lines"), tuning_module("datafile")
    try:
        with files.open_data(path) as stream:
            for line, text in lines.texts(lines.read_lines(stream)):
                if not isinstance(text, str):
                    raise _bad(path, line, text.reason)
                yield text
    except files.DataError as error:
        raise DataError(error.reason) from None


def _chats(sources: Sequence[Path], task: str | None) -> Iterator[Mapping[str, Any]]:
    rows = tuning_module("rows")
    for source in sources:
        found = task_of_file(source, task)
        for line, record in _records(source):
            try:
                example = rows.parse_row(record, found)
            except rows.RowError as error:
                raise _bad(source, line, error.reason) from None
            yield converted(example, "messages", source.name, line)


def _bad(path: Path, line: int, reason: str) -> DataError:
    return DataError(
        f"{path.name}, line {line}: {reason}.", hint=f"Look at every row: maas data check {path}"
    )
