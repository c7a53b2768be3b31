"""Data files with columns: CSV with a header, and TSV with a header or with a source and a target."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from tuning.chatrows import RowError
from tuning.lines import Lines, texts

COLUMNS = (
    ("text", "label"),
    ("text", "category"),
    ("source", "target"),
    ("document", "summary"),
    ("context", "question", "answer"),
    ("prompt", "completion"),
)


class ColumnsError(Exception):
    """The columns of a table are not those of any row format; `reason` says what was found."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def wanted_columns(header: Sequence[str]) -> dict[str, int] | None:
    """The columns that make a row and their places, or None where a header has not one such set."""
    names = [name.strip().lower() for name in header]
    fits = [columns for columns in COLUMNS if set(columns) <= set(names)]
    return {name: names.index(name) for name in fits[0]} if len(fits) == 1 else None


def csv_records(lines: Lines) -> Iterator[tuple[int, object]]:
    """Yield (line, row by column names or RowError) for a CSV file. Raises ColumnsError."""
    bad: list[RowError] = []
    reader = csv.reader(_readable(lines, bad), strict=True)
    columns: dict[str, int] | None = None
    count = 0
    while True:
        line = reader.line_num + 1
        record: object
        try:
            fields = next(reader)
            if columns is None:
                columns, count = _header(fields), len(fields)
                continue
            if not fields:
                continue
            record = _row(fields, columns, count, line)
        except StopIteration:
            return
        except csv.Error as error:
            hint = " (is a quote left open?)" if "field" in str(error) or "end of data" in str(error) else ""
            record = RowError(f"not CSV: {error}{hint}", line, "not CSV")
        if bad:
            record = bad.pop()
            bad.clear()
        yield line, record


def _readable(lines: Lines, bad: list[RowError]) -> Iterator[str]:
    """The lines as text; one that cannot be read becomes a blank field and an entry in `bad`."""
    for _, text in texts(lines):
        if isinstance(text, RowError):
            bad.append(text)
            yield "?\n"
        else:
            yield text


def _header(fields: list[str]) -> dict[str, int]:
    columns = wanted_columns(fields)
    if columns is None:
        accepted = "', '".join(",".join(names) for names in COLUMNS)
        raise ColumnsError(
            f"The columns are '{','.join(fields)[:80]}'; a CSV file needs the header of one row format: "
            f"'{accepted}'."
        )
    return columns


def _row(fields: list[str], columns: dict[str, int], count: int, line: int) -> object:
    if len(fields) != count:
        return RowError(f"{len(fields)} columns, the header has {count}", line, "not CSV")
    return {name: fields[place] for name, place in columns.items()}


def tsv_records(lines: Lines) -> Iterator[tuple[int, object]]:
    """Yield (line, row or RowError) for lines with tabs; quotes are plain characters.

    A first line with the names of a row format is a header; without one a line is a source and its target.
    """
    columns: dict[str, int] = {"source": 0, "target": 1}
    count, is_first = 2, True
    for line, text in texts(lines):
        if isinstance(text, RowError):
            yield line, text
            continue
        if not text.strip():
            continue
        fields = text.rstrip("\r\n").split("\t")
        header = wanted_columns(fields) if is_first else None
        is_first = False
        if header is not None:
            columns, count = header, len(fields)
        elif len(fields) != count:
            reason = f"{len(fields)} columns, expected {count} with a tab between"
            yield line, RowError(reason, line, "not TSV")
        else:
            yield line, {name: fields[place].strip() for name, place in columns.items()}
