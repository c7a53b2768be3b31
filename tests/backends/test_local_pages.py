"""Cursors over files that grow: every line once, whole, in order, however it was written and read."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.backends.local.pages import PAGE_BYTES, read_events, read_lines

LINES = st.lists(
    st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=12)
)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def drain(path: Path, cursor: str | None, *, ended: bool) -> tuple[list[str], str | None]:
    """All pages that can be read now."""
    lines: list[str] = []
    while True:
        page, following = read_lines(path, cursor, ended=ended)
        lines += page
        if following is None or following == cursor:
            return lines, following
        cursor = following


@given(lines=LINES, cuts=CUTS, last_line_is_ended=st.booleans())
def test_every_line_comes_once_whatever_the_chunks(
    lines: list[str], cuts: list[int], last_line_is_ended: bool
) -> None:
    text = "\n".join(lines) + ("\n" if lines and last_line_is_ended else "")
    expected = text.removesuffix("\n").split("\n") if text else []
    raw = text.encode()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    seen: list[str] = []
    cursor: str | None = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.touch()
        for start, end in itertools.pairwise(edges):
            with path.open("ab") as file:
                file.write(raw[start:end])
            new, cursor = drain(path, cursor, ended=False)
            assert cursor is not None
            seen += new
        rest, cursor = drain(path, cursor, ended=True)
    assert cursor is None
    assert seen + rest == expected


def test_pages_are_bounded_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    first, _ = read_lines(path, None, ended=True)
    assert sum(len(line) + 1 for line in first) <= PAGE_BYTES
    lines, cursor = drain(path, None, ended=True)
    assert cursor is None
    assert lines == [f"line {number}" for number in range(100_000)]


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_a_line_longer_than_a_page_comes_in_whole_characters(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "log"
    path.write_text("a" + letter * (PAGE_BYTES + 100) + "\nend\n", encoding="utf-8")
    lines, cursor = drain(path, None, ended=True)
    assert cursor is None
    assert "".join(lines[:-1]) == "a" + letter * (PAGE_BYTES + 100)
    assert lines[-1] == "end"


def test_carriage_returns_show_the_last_state(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b" 10%\r 50%\r100%\nplain\r\n\n")
    assert read_lines(path, None, ended=True) == (("100%", "plain", ""), None)


def test_broken_utf8_is_shown_and_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe broken\n\x80\x80\x80\nfine\n")
    lines, _ = read_lines(path, None, ended=True)
    assert lines[-1] == "fine"
    assert len(lines) == 3


def test_a_page_of_broken_bytes_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\x80" * (2 * PAGE_BYTES + 7))
    lines, cursor = drain(path, None, ended=True)
    assert cursor is None
    assert sum(map(len, lines)) == 2 * PAGE_BYTES + 7


def test_no_file_yet_is_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "log", None, ended=False) == ((), "0")
    assert read_lines(tmp_path / "log", None, ended=True) == ((), None)


def test_torn_events_wait_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first, second = {"event": "step", "step": 1}, {"event": "step", "step": 2}
    path.write_text(f'{json.dumps(first)}\n{{"event": oops\n[1]\n"text"\n{json.dumps(second)[:9]}')
    events, cursor = read_events(path, None, ended=False)
    assert events == (first,)
    with path.open("a") as file:
        file.write(json.dumps(second)[9:] + "\n")
    assert read_events(path, cursor, ended=False)[0] == (second,)
