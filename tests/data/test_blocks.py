"""Blocks of whole lines: nothing lost, nothing split, nothing too long kept."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from maas_client.data.blocks import BLOCK_BYTES, lines_of, read_blocks

LIMIT = 4 * BLOCK_BYTES


def numbered(content: bytes, limit: int = LIMIT) -> list[tuple[int, bytes | None]]:
    found: list[tuple[int, bytes | None]] = []
    for first, count, block in read_blocks(io.BytesIO(content), limit):
        lines = [None] if block is None else lines_of(block)
        assert len(lines) == count
        found += enumerate(lines, first)
    return found


@given(
    lines=st.lists(
        st.binary(max_size=8).map(lambda text: text.translate(None, b"\r\n")) | st.just(b"x" * 90_000)
    ),
    end=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
)
def test_lines_come_out_as_they_went_in(lines: list[bytes], end: bytes, last: bool) -> None:
    content = end.join(lines) + (end if last and lines else b"")
    expected = lines if last or not lines or lines[-1] else lines[:-1]
    assert numbered(content) == list(enumerate(expected, 1))


def test_a_block_and_its_lines_are_the_same() -> None:
    content = b"".join(b"%d\n" % number for number in range(100_000))
    assert b"".join(block or b"" for _, _, block in read_blocks(io.BytesIO(content), LIMIT)) == content
    assert len(numbered(content)) == 100_000


def test_the_limit_counts_the_newline_as_training_does() -> None:
    assert numbered(b"x" * (LIMIT - 1) + b"\n" + b"y" * LIMIT + b"\nz") == [
        (1, b"x" * (LIMIT - 1)),
        (2, None),
        (3, b"z"),
    ]


def test_a_line_over_the_limit_is_skipped_and_counted() -> None:
    content = b"a\n" + b"x" * (LIMIT + 2 * BLOCK_BYTES) + b"\nb\nc"
    assert numbered(content) == [(1, b"a"), (2, None), (3, b"b"), (4, b"c")]
    assert numbered(b"x" * (LIMIT + 2 * BLOCK_BYTES)) == [(1, None)]
