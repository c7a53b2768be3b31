"""Logs by cursor: every whole line once and in order, whatever the files, the URLs and the network do."""

from __future__ import annotations

from random import Random

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.errors import AccessDeniedError, NotFoundError, ServiceError, UnavailableError, UsageError
from maas_client.logtext import PAGE_BYTES
from maas_client.workspace.logfiles import files_to_read
from tests.workspace.wired import STORE, Wired

LOG = "user_logs/std_log.txt"
BUILD = "azureml-logs/20_image_build_log.txt"


def read_all(wired: Wired, after: str | None = None, *, ended: bool = True) -> list[str]:
    """Every line from a cursor on, until none comes any more."""
    lines: list[str] = []
    for _ in range(1000):
        page = wired.history.log("card-1", after, ended=ended)
        lines += page.lines
        if page.next is None or not (page.lines or ended):
            return lines
        after = page.next
    raise AssertionError("the log has no end")


def test_lines_come_as_they_are_written_and_a_torn_one_waits() -> None:
    wired = Wired(files={LOG: b"one\ntw"})
    first = wired.history.log("card-1", None, ended=False)
    assert first.lines == ("one",)
    wired.files[LOG] += b"o\nthree"
    second = wired.history.log("card-1", first.next, ended=False)
    assert second.lines == ("two",)
    assert wired.history.log("card-1", second.next, ended=False).lines == ()
    wired.details = {"status": "Completed"}
    last = wired.history.log("card-1", second.next, ended=True)
    assert (last.lines, last.next) == (("three",), None)


def test_only_what_is_new_is_fetched() -> None:
    wired = Wired(files={LOG: b"".join(b"line %d\n" % number for number in range(10_000))})
    cursor = wired.history.log("card-1", None, ended=False).next
    size = wired.fetched_bytes
    for number in range(50):
        wired.files[LOG] += b"more %d\n" % number
        page = wired.history.log("card-1", cursor, ended=False)
        assert page.lines == (f"more {number}",)
        cursor = page.next
    assert wired.fetched_bytes - size < 50 * 100
    assert wired.count("/details") == 1
    assert wired.count(LOG) == 51


def test_a_long_log_comes_in_pages() -> None:
    lines = [f"line {number} {'x' * (number % 90)}" for number in range(20_000)]
    wired = Wired(files={LOG: "\n".join(lines).encode()}, details={"status": "Completed"})
    assert len(wired.files[LOG]) > 3 * PAGE_BYTES
    page = wired.history.log("card-1", None, ended=True)
    assert sum(len(line) + 1 for line in page.lines) <= PAGE_BYTES
    assert read_all(wired) == lines


def test_a_line_longer_than_a_page_comes_in_pieces_of_whole_characters() -> None:
    text = "é" * PAGE_BYTES
    wired = Wired(files={LOG: b"x" + text.encode() + b"\nend\n"}, details={"status": "Completed"})
    lines = read_all(wired)
    assert "".join(lines[:-1]) == "x" + text
    assert lines[-1] == "end"


def test_carriage_returns_and_bad_bytes_are_for_people() -> None:
    wired = Wired(files={LOG: b"a\r\n10%\r50%\r100%\n\xff\xfe ok\n\n"}, details={"status": "Completed"})
    assert read_all(wired) == ["a", "100%", "\ufffd\ufffd ok", ""]


def test_urls_that_have_expired_are_asked_for_again() -> None:
    wired = Wired(files={LOG: b"one\n"})
    cursor = wired.history.log("card-1", None, ended=False).next
    wired.signature = 2
    wired.files[LOG] += b"two\n"
    page = wired.history.log("card-1", cursor, ended=False)
    assert page.lines == ("two",)
    assert wired.count("/details") == 2


def test_storage_that_refuses_for_good_is_an_error() -> None:
    wired = Wired(files={LOG: b"one\n"})
    wired.trouble = lambda request: httpx.Response(403) if request.url.host in STORE else None
    with pytest.raises(AccessDeniedError, match="read the log of run card-1"):
        wired.history.log("card-1", None, ended=False)


@pytest.mark.parametrize("then", [b"", b"n", b"new 0\nnew 1\n", b"x" * 500 + b"\n", b"old 0\nold 1\nother\n"])
def test_a_log_that_was_replaced_is_read_from_its_start(then: bytes) -> None:
    wired = Wired(files={LOG: b"".join(b"old %d\n" % number for number in range(30))})
    cursor = wired.history.log("card-1", None, ended=False).next
    wired.files[LOG] = then
    page = wired.history.log("card-1", cursor, ended=False)
    wired.details = {"status": "Completed"}
    rest = read_all(wired, page.next)
    assert [*page.lines, *rest] == then.decode().split("\n")[
        : -1 if then.endswith(b"\n") or not then else None
    ]


def test_a_replaced_log_that_has_grown_past_the_cursor_is_seen() -> None:
    wired = Wired(files={LOG: b"attempt 1\nstep 1\n"})
    cursor = wired.history.log("card-1", None, ended=False).next
    wired.files[LOG] = b"attempt 2\nstep 9\nstep 10\nstep 11\n"
    assert wired.history.log("card-1", cursor, ended=False).lines == (
        "attempt 2",
        "step 9",
        "step 10",
        "step 11",
    )


def test_a_file_that_is_gone_for_a_moment_repeats_nothing() -> None:
    wired = Wired(files={LOG: b"one\n"})
    cursor = wired.history.log("card-1", None, ended=False).next
    kept = wired.files.pop(LOG)
    page = wired.history.log("card-1", cursor, ended=False)
    assert page.lines == ()
    wired.files[LOG] = kept + b"two\n"
    wired.now += 100
    assert wired.history.log("card-1", page.next, ended=False).lines == ("two",)


def test_a_service_that_ignores_ranges_is_understood() -> None:
    wired = Wired(files={LOG: b"one\ntwo\n"}, ignores_ranges=True)
    cursor = wired.history.log("card-1", None, ended=False).next
    wired.files[LOG] += b"three\n"
    page = wired.history.log("card-1", cursor, ended=False)
    assert page.lines == ("three",)
    wired.details = {"status": "Completed"}
    assert wired.history.log("card-1", page.next, ended=True) == type(page)((), None)


def test_a_run_without_history_or_files_has_no_lines_yet() -> None:
    wired = Wired(details=None)
    page = wired.history.log("card-1", None, ended=False)
    assert page.lines == ()
    assert page.next is not None
    assert wired.history.log("card-1", page.next, ended=True).next is None
    wired.details = {"status": "Queued"}
    assert wired.history.log("card-1", page.next, ended=False).lines == ()
    with pytest.raises(NotFoundError):
        Wired(details=None).history.details("card-1")


def test_a_log_that_appears_is_found_at_the_next_look() -> None:
    wired = Wired(files={BUILD: b"Step 1/4\n"})
    page = wired.history.log("card-1", None, ended=False)
    assert page.lines == ("Step 1/4",)
    wired.files[BUILD] += b"Step 4/4"
    wired.files[LOG] = b"training\n"
    page = wired.history.log("card-1", page.next, ended=False)
    assert page.lines == ("Step 4/4",)
    page = wired.history.log("card-1", page.next, ended=False)
    assert page.lines == ("training",)
    before = wired.count(BUILD)
    page = wired.history.log("card-1", page.next, ended=False)
    assert wired.count(BUILD) == before
    wired.files[BUILD] += b" done\n"
    wired.files[LOG] += b"end\n"
    wired.details = {"status": "Completed"}
    assert read_all(wired, page.next) == [" done", "end"]


def test_the_other_ranks_of_a_failed_run_follow_with_their_number() -> None:
    files = {f"user_logs/std_log_process_{rank}.txt": f"from {rank}\n".encode() for rank in range(12)}
    wired = Wired(files=files, details={"status": "Failed"})
    assert read_all(wired) == ["from 0", *(f"[rank {rank}] from {rank}" for rank in range(1, 12))]
    wired = Wired(files=files, details={"status": "Completed"})
    assert read_all(wired) == ["from 0"]
    wired = Wired(files=files)
    assert read_all(wired, ended=False) == ["from 0"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["system_logs/lifecycler.log", LOG], [LOG]),
        (
            ["user_logs/std_log_process_01.txt", "user_logs/std_log_process_00.txt"],
            ["user_logs/std_log_process_00.txt"],
        ),
        (
            ["azureml-logs/55_azureml-execution.txt", "azureml-logs/70_driver_log.txt"],
            ["azureml-logs/70_driver_log.txt"],
        ),
        (
            ["logs/azureml/executionlogs.txt", "logs/azureml/stderrlogs.txt"],
            ["logs/azureml/executionlogs.txt"],
        ),
        ([BUILD, LOG], [BUILD, LOG]),
        (["system_logs/lifecycler.log"], []),
        ([], []),
    ],
)
def test_which_files_people_read(names: list[str], chosen: list[str]) -> None:
    assert [file.name for file in files_to_read(names, ended=False, failed=False)] == chosen


def test_an_ended_run_shows_whatever_log_there_is() -> None:
    wired = Wired(
        files={"azureml-logs/55_azureml-execution-tvmps.txt": b"no node\n"}, details={"status": "Failed"}
    )
    assert read_all(wired) == ["no node"]


@pytest.mark.parametrize("cursor", ["yesterday", "", "log1.", "log1.!!", "log1.bnVsbA", "7", "log1.W10"])
def test_a_foreign_cursor_is_an_error(cursor: str) -> None:
    with pytest.raises(UsageError, match="not a cursor"):
        Wired(files={LOG: b"x\n"}).history.log("card-1", cursor, ended=False)


def test_the_cursor_of_another_run_is_an_error() -> None:
    wired = Wired(files={LOG: b"x\n"})
    cursor = wired.history.log("card-2", None, ended=False).next
    with pytest.raises(UsageError):
        wired.history.log("card-1", cursor, ended=False)
    assert cursor is not None
    assert "sig" not in cursor


def test_the_tail_is_the_end_of_the_log() -> None:
    lines = [f"line {number} {'y' * 50}" for number in range(5_000)]
    wired = Wired(files={LOG: "\n".join(lines).encode()}, details={"status": "Failed"})
    assert list(wired.history.tail("card-1", 20)) == lines[-20:]
    assert wired.fetched_bytes < 300_000
    assert Wired(files={LOG: b"only\n"}, details={"status": "Failed"}).history.tail("card-1") == ("only",)
    assert Wired(files={}, details={"status": "Failed"}).history.tail("card-1") == ()


def test_details_of_many_runs_are_not_kept_for_ever() -> None:
    wired = Wired(files={LOG: b"x\n"})
    for number in range(100):
        wired.history.log(f"card-{number}", None, ended=False)
    before = wired.count("/details")
    wired.history.log("card-99", None, ended=False)
    wired.history.log("card-0", None, ended=False)
    assert wired.count("/details") == before + 1


LINES = st.lists(
    st.one_of(
        st.text(alphabet="ab é\r", max_size=8).map(lambda text: text.encode() + b"\n"),
        st.binary(max_size=6).map(lambda data: data.replace(b"\n", b"") + b"\r\n"),
        st.integers(100, 80_000).map(lambda size: b"z" * size + b"\n"),
    ),
    max_size=12,
)
TROUBLES = st.sampled_from(["", "", "expired", "500", "429", "reset", "404", "200", "short", "away"])


@settings(max_examples=150, deadline=None)
@given(lines=LINES, troubles=st.lists(TROUBLES, max_size=25), seed=st.integers(0, 2**32))
def test_every_line_comes_once_through_any_trouble(
    lines: list[bytes], troubles: list[str], seed: int
) -> None:
    """The log grows by any number of bytes between looks, and each look may meet trouble."""
    chance, written = Random(seed), b"".join(lines)
    wired = Wired(files={LOG: b""})
    cursor, got, ahead, ended = None, [], list(troubles), False

    def trouble(request: httpx.Request) -> httpx.Response | None:
        if request.url.host not in STORE or not ahead:
            wired.ignores_ranges = False
            return None
        kind = ahead.pop(0)
        wired.ignores_ranges = kind == "200"
        if kind == "expired":
            wired.signature += 1
        if kind in {"reset", "away"}:
            raise httpx.RemoteProtocolError("peer closed connection")
        if kind == "short":  # a proxy that cuts the body off and says nothing
            start, end = (int(part) for part in request.headers["range"][6:].split("-"))
            piece = wired.files[LOG][start : end + 1]
            told = f"bytes {start}-{start + len(piece) - 1}/{len(wired.files[LOG])}"
            return (
                httpx.Response(206, headers={"content-range": told}, content=piece[: len(piece) // 2])
                if piece
                else None
            )
        if kind in {"404", "429", "500"} and not (kind == "404" and ended):
            return httpx.Response(int(kind), headers={"retry-after": "1"} if kind == "429" else {})
        return None

    wired.trouble = trouble
    for _ in range(500):
        try:
            page = wired.history.log("card-1", cursor, ended=ended)
        except (UnavailableError, AccessDeniedError):
            continue
        got += page.lines
        cursor = page.next
        if cursor is None:
            break
        ended = len(wired.files[LOG]) == len(written)
        wired.details = {"status": "Completed" if ended else "Running"}
        wired.files[LOG] = written[: len(wired.files[LOG]) + chance.randrange(1, 100_000)]
        wired.now += chance.choice([1, 100])
    expected = [
        line.decode(errors="replace").rstrip("\r").rpartition("\r")[2] for line in written.split(b"\n")[:-1]
    ]
    assert got == expected
    assert cursor is None


def test_trouble_that_stays_is_told_with_the_request() -> None:
    wired = Wired(files={LOG: b"x\n"})
    wired.trouble = lambda request: httpx.Response(503) if request.url.host in STORE else None
    with pytest.raises(UnavailableError) as caught:
        wired.history.log("card-1", None, ended=False)
    assert isinstance(caught.value, ServiceError)
    assert "sig=" not in caught.value.message
    assert caught.value.request_id
