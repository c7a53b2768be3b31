"""A file cut into blocks of whole lines, so that good rows can be decoded many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 1 << 17


def read_blocks(stream: BinaryIO, line_limit: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (number of the first line, number of lines, the lines); None: a line over `line_limit` bytes.

    At most `line_limit` + BLOCK_BYTES are in memory. The last line may lack its newline.
    """
    line = 1
    while block := stream.read(BLOCK_BYTES):
        rest = b"" if block.endswith(b"\n") else stream.readline(line_limit + 1)
        start = block.rfind(b"\n") + 1
        too_long = len(block) - start + len(rest) > line_limit
        block = block[:start] if too_long else block + rest
        if block:
            count = block.count(b"\n") + (not block.endswith(b"\n"))
            yield line, count, block
            line += count
        if too_long:
            yield line, 1, None
            line += 1
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(BLOCK_BYTES)


def lines_of(block: bytes) -> list[bytes]:
    """The lines of a block without their ends (Windows newlines too)."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip(b"\r") for line in lines] if b"\r" in block else lines
