"""A data file: opened, its kind found, and its rows decoded one by one."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tuning.chatrows import RowError
from tuning.errors import InputError
from tuning.lines import LINE_LIMIT_BYTES, Lines, line_too_long, not_utf8, read_lines
from tuning.tablefile import ColumnsError, csv_records, tsv_records, wanted_columns
from tuning.textfile import abc_records, conll_records, is_abc, is_conll, prose_records

__all__ = [
    "LINE_LIMIT_BYTES",
    "DataError",
    "decode_row",
    "kind_of",
    "line_too_long",
    "mixed_formats",
    "open_data",
    "read_records",
    "records",
]

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
        yield from records(stream, kind_of(path, stream))


def records(stream: BinaryIO, kind: str) -> Iterator[tuple[int, object]]:
    """The rows of an open file of a kind, as `read_records` yields them. Raises DataError."""
    try:
        yield from _READERS[kind](read_lines(stream))
    except ColumnsError as error:
        raise DataError(error.reason) from None


def mixed_formats(found: str, before: str) -> str:
    """What is wrong with a row whose format is not that of the rows before it."""
    return f"a {found} row among {before} rows; keep one format in a file"


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
    if body.startswith(b"[") and body[1:].lstrip().startswith((b"{", b"]", b'"')):
        return "is one JSON list; write each of its rows on a line of its own (JSON Lines)"
    return None


def kind_of(path: Path, stream: BinaryIO) -> str:
    """What a file is: `json`, `csv`, `tsv`, `conll`, `abc` or `prose`; leaves the stream where it was.

    The end of its name says it (.csv, .tsv, .abc, .conll), else its first lines; prose is a .txt file that
    is nothing else, and all that is left is read as JSON Lines.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".abc", ".conll"):
        return suffix[1:]
    place = stream.tell()
    start = stream.read(_PEEK_BYTES)
    stream.seek(place)
    lines = start.decode(errors="replace").splitlines()
    if len(start) == _PEEK_BYTES and len(lines) > 1:
        lines.pop()  # it may be cut
    spoken = [line for line in lines if line.strip()][:4]
    if spoken and wanted_columns(spoken[0].replace('"', "").split(",")):
        return "csv"
    if spoken and spoken[0].lstrip().startswith("{"):
        return "json"
    if is_conll(spoken):
        return "conll"
    if is_abc(spoken):
        return "abc"
    return "prose" if suffix == ".txt" else "json"


def json_records(lines: Lines) -> Iterator[tuple[int, object]]:
    """Yield (line, decoded row or RowError) for JSON Lines."""
    for line, data in lines:
        if isinstance(data, RowError):
            yield line, data
        elif data.strip():
            try:
                yield line, decode_row(data)
            except RowError as error:
                yield line, RowError(error.reason, line, error.kind)


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
        raise not_utf8(data, error) from None
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg.lower()} at column {error.colno}", kind="not JSON") from None
    except (RecursionError, ValueError):
        raise RowError(
            "not JSON that can be read: too deeply nested, or a number too long", kind="not JSON"
        ) from None


_READERS: dict[str, Callable[[Lines], Iterator[tuple[int, object]]]] = {
    "json": json_records,
    "csv": csv_records,
    "tsv": tsv_records,
    "conll": conll_records,
    "abc": abc_records,
    "prose": prose_records,
}
