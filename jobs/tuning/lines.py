"""The lines of a data file, read within a bound and decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from tuning.chatrows import RowError

LINE_LIMIT_BYTES = 16 * 1024 * 1024

Lines = Iterable[tuple[int, bytes | RowError]]
"""Line numbers from 1 and bytes with their newline; a RowError stands for a line that is too long."""


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


def texts(lines: Lines) -> Iterator[tuple[int, str | RowError]]:
    """The lines as text; one that is not UTF-8 is a RowError."""
    for line, data in lines:
        if isinstance(data, RowError):
            yield line, data
            continue
        try:
            yield line, data.decode()
        except UnicodeDecodeError as error:
            yield line, not_utf8(data, error, line)


def line_too_long(line: int | None = None) -> RowError:
    """What is wrong with a line over LINE_LIMIT_BYTES."""
    reason = f"the line is longer than {LINE_LIMIT_BYTES // 1024**2} MB; one row a line is expected"
    return RowError(reason, line, "line too long")


def not_utf8(data: bytes, error: UnicodeDecodeError, line: int | None = None) -> RowError:
    """What is wrong with bytes that are no text."""
    reason = f"not UTF-8: byte 0x{data[error.start]:02x} at position {error.start + 1}"
    return RowError(reason, line, "not UTF-8")
