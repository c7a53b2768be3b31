"""A file cut into blocks of whole lines, so that good rows can be decoded many at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 1 << 17


def read_blocks(stream: BinaryIO, line_limit: int) -> Iterator[tuple[int, bytes, list[bytes] | None]]:
    """Yield (number of the first line, whole lines, the same split); None: a line over `line_limit` bytes.

    At most `line_limit` + BLOCK_BYTES are in memory. The last line may lack its newline.
    """
    line, kept = 1, b""
    while data := stream.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            block, kept = kept + data[:end], data[end:]
            lines = lines_of(block)
            yield line, block, lines
            line += len(lines)
            continue
        kept += data
        if len(kept) > line_limit:
            yield line, b"", None
            _skip_line(stream)
            line, kept = line + 1, b""
    if kept:
        yield line, kept, lines_of(kept)


def _skip_line(stream: BinaryIO) -> None:
    """Go on to the start of the next line."""
    while data := stream.read(BLOCK_BYTES):
        end = data.find(b"\n") + 1
        if end:
            stream.seek(end - len(data), os.SEEK_CUR)
            return


def lines_of(block: bytes) -> list[bytes]:
    """The lines of a block without their ends (Windows newlines too)."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip(b"\r") for line in lines] if b"\r" in block else lines
