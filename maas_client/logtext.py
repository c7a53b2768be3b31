"""The bytes of a log as lines for people: only whole ones, without what carriage returns overwrote."""

from __future__ import annotations

PAGE_BYTES = 256 << 10
"""A page of a log holds at most so many bytes."""
_UTF8_BYTES = 4


def whole_bytes(chunk: bytes, page_bytes: int = PAGE_BYTES) -> int:
    """How many bytes of the chunk are whole lines; of a line that fills a page, whole characters."""
    if (end := chunk.rfind(b"\n") + 1) or len(chunk) < page_bytes:
        return end
    for back in range(1, _UTF8_BYTES + 1):
        if chunk[-back] & 0xC0 != 0x80:
            return len(chunk) - back if chunk[-back] >= 0xC0 else len(chunk)
    return len(chunk)


def lines_of(chunk: bytes) -> tuple[str, ...]:
    """The lines of a chunk. Of a line that carriage returns overwrote, the last state is given."""
    lines = chunk.decode(errors="replace").split("\n")
    if not lines[-1]:
        lines.pop()
    return tuple(line.rstrip("\r").rpartition("\r")[2] for line in lines)
