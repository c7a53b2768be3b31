"""A data file: opened, its lines read within a bound, each decoded from JSON or CSV."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tuning.chatrows import RowError
from tuning.errors import InputError

LINE_LIMIT_BYTES = 16 * 1024 * 1024
_PEEK_BYTES = 64 * 1024
_BINARY_STARTS = {
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
}


class DataError(InputError):
    """The file as a whole cannot be read as training data: `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_records(path: Path) -> Iterator[tuple[int, object]]:
    """Yield (line, decoded row or RowError) for every row that is not blank; raises DataError."""
    with open_data(path) as stream:
        if is_csv(path, stream):
            yield from csv_records(stream)
            return
        for line, data in read_lines(stream):
            if isinstance(data, RowError):
                yield line, data
            elif data.strip():
                try:
                    yield line, decode_row(data)
                except RowError as error:
                    yield line, RowError(error.reason, line, error.kind)


def mixed_formats(found: str, before: str) -> str:
    """What is wrong with a row whose format is not that of the rows before it."""
    return f"a {found} row among {before} rows; keep one format in a file"


def line_too_long(line: int | None = None) -> RowError:
    """What is wrong with a line over LINE_LIMIT_BYTES."""
    reason = f"the line is longer than {LINE_LIMIT_BYTES // 1024**2} MB; one row a line is expected"
    return RowError(reason, line, "line too long")


def open_data(path: Path) -> BinaryIO:
    """Open a data file after its byte-order mark; raises DataError when it is missing, empty or no text."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the data file in it.")
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    start = stream.read(_PEEK_BYTES)
    reason = _not_text(start)
    if reason:
        stream.close()
        raise DataError(f"{path.name} {reason}.")
    stream.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
    return stream


def _not_text(start: bytes) -> str | None:
    if not start:
        return "is empty; write one JSON object a line into it"
    for magic, kind in _BINARY_STARTS.items():
        if start.startswith(magic):
            return f"is {kind}; turn it into JSON Lines text first"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16 text; save it as UTF-8"
    if b"\0" in start:
        return "is a binary file; training data is JSON Lines or CSV text in UTF-8"
    body = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if not body and len(start) < _PEEK_BYTES:
        return "has no rows, only blank lines"
    if body.startswith(b"["):
        return "is one JSON list; write each of its rows on a line of its own (JSON Lines)"
    return None


def is_csv(path: Path, stream: BinaryIO) -> bool:
    """Whether the rows are CSV: by the name or by a header line; leaves the stream where it was."""
    if path.suffix.lower() == ".csv":
        return True
    place = stream.tell()
    first = stream.readline(_PEEK_BYTES).strip().lower()
    stream.seek(place)
    names = first.replace(b'"', b"").split(b",")
    return b"text" in names and (b"label" in names or b"category" in names)


def read_lines(stream: BinaryIO, first: int = 1) -> Iterator[tuple[int, bytes | RowError]]:
    """Yield (line number, bytes with newline); a line over LINE_LIMIT_BYTES is skipped, as a RowError."""
    line = first
    while data := stream.readline(LINE_LIMIT_BYTES + 1):
        if len(data) <= LINE_LIMIT_BYTES:
            yield line, data
        else:
            while not data.endswith(b"\n") and (data := stream.readline(1 << 20)):
                pass
            yield line, line_too_long(line)
        line += 1


def decode_row(data: bytes) -> object:
    """Decode one line of JSON; raises RowError when it is not UTF-8 or not JSON."""
    try:
        row = json.loads(data.decode())
        if b"\\u" in data:  # an escaped half of a surrogate pair is JSON, but no text
            json.dumps(row, ensure_ascii=False).encode()
        return row
    except UnicodeEncodeError:
        raise RowError("half of a surrogate pair, which is no character", kind="not UTF-8") from None
    except UnicodeDecodeError as error:
        reason = f"not UTF-8: byte 0x{data[error.start]:02x} at position {error.start + 1}"
        raise RowError(reason, kind="not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg.lower()} at column {error.colno}", kind="not JSON") from None
    except (RecursionError, ValueError):
        raise RowError(
            "not JSON that can be read: too deeply nested, or a number too long", kind="not JSON"
        ) from None


def csv_records(stream: BinaryIO) -> Iterator[tuple[int, object]]:
    """Yield (line, {"text", "label"} or RowError) for a CSV file; raises DataError for wrong columns."""
    bad: list[RowError] = []
    reader = csv.reader(_csv_lines(stream, bad), strict=True)
    columns: tuple[int, int, int] | None = None
    while True:
        line = reader.line_num + 1
        record: object
        try:
            fields = next(reader)
            if columns is None:
                columns = _csv_columns(fields)
                continue
            if not fields:
                continue
            record = _csv_row(fields, columns, line)
        except StopIteration:
            return
        except csv.Error as error:
            hint = " (is a quote left open?)" if "field" in str(error) or "end of data" in str(error) else ""
            record = RowError(f"not CSV: {error}{hint}", line, "not CSV")
        if bad:
            record = bad.pop()
            bad.clear()
        yield line, record


def _csv_lines(stream: BinaryIO, bad: list[RowError]) -> Iterator[str]:
    """The lines as text; one that cannot be read becomes a blank field and an entry in `bad`."""
    for line, data in read_lines(stream):
        if isinstance(data, RowError):
            bad.append(data)
            yield "?\n"
            continue
        try:
            yield data.decode()
        except UnicodeDecodeError as error:
            reason = f"not UTF-8: byte 0x{data[error.start]:02x} at position {error.start + 1}"
            bad.append(RowError(reason, line, "not UTF-8"))
            yield data.decode(errors="replace")


def _csv_columns(header: list[str]) -> tuple[int, int, int]:
    """The places of the text and the label, and the number of columns."""
    names = [name.strip().lower() for name in header]
    labels = [name for name in ("label", "category") if name in names]
    if "text" not in names or len(labels) != 1:
        found = ",".join(header)[:80]
        raise DataError(
            f"The columns are '{found}'; a CSV file needs the header 'text,label' or 'text,category'."
        )
    return names.index("text"), names.index(labels[0]), len(names)


def _csv_row(fields: list[str], columns: tuple[int, int, int], line: int) -> object:
    text, label, count = columns
    if len(fields) != count:
        return RowError(f"{len(fields)} columns, the header has {count}", line, "not CSV")
    return {"text": fields[text], "label": fields[label]}
