"""Events come once each, whichever end the service lists first, whatever its pages and ties."""

from __future__ import annotations

from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.backends.foundry.openai_v1.events import (
    Cursor,
    lines_of,
    read_cursor,
    read_since,
    write_cursor,
)
from maas_client.backends.foundry.openai_v1.wire import read_event
from maas_client.errors import UsageError
from maas_client.transport.credential import KeyCredential
from maas_client.transport.openai_client import OpenAIService


class Told:
    """A job's events as a service lists them: `size` a page, newest or oldest first."""

    def __init__(self, *, newest_first: bool, size: int) -> None:
        self.events: list[dict[str, Any]] = []
        self.newest_first, self.size = newest_first, size
        self.requests = 0
        self.service = OpenAIService(
            "https://r.openai.azure.com", KeyCredential("k"), "", transport=httpx.MockTransport(self.answer)
        )

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        rows = self.events[::-1] if self.newest_first else self.events
        after = request.url.params.get("after")
        start = 0 if after is None else 1 + next(n for n, row in enumerate(rows) if row["id"] == after)
        size = min(self.size, int(request.url.params["limit"]))
        page = rows[start : start + size]
        return httpx.Response(
            200, json={"object": "list", "data": page, "has_more": start + size < len(rows)}
        )

    def tell(self, at: int, identity: str) -> None:
        self.events.append({"id": identity, "created_at": at, "level": "info", "message": identity})


@settings(max_examples=60, deadline=None)
@given(
    newest_first=st.booleans(),
    size=st.integers(1, 7),
    gaps=st.lists(st.integers(0, 3), min_size=0, max_size=40),
    seed=st.integers(0, 1000),
)
def test_each_event_comes_once_in_order(newest_first: bool, size: int, gaps: list[int], seed: int) -> None:
    chance, told = Random(seed), Told(newest_first=newest_first, size=size)
    cursor, seen, at = Cursor(), list[str](), 1_795_000_000
    for number, gap in enumerate(gaps):
        at += gap
        told.tell(at, f"ftevent-{chance.getrandbits(64):x}-{number}")
        if chance.random() < 0.4:
            events, cursor = read_since(told.service, "ftjob-1", cursor)
            seen += [each.id for each in events]
            cursor = read_cursor(write_cursor({"kind": "logs", "events": cursor.to_list()}), "logs")["events"]
    events, cursor = read_since(told.service, "ftjob-1", cursor)
    seen += [each.id for each in events]
    assert sorted(seen) == sorted(row["id"] for row in told.events)
    assert len(set(seen)) == len(seen)
    times = {row["id"]: row["created_at"] for row in told.events}
    assert [times[each] for each in seen] == sorted(times[each] for each in seen)
    assert read_since(told.service, "ftjob-1", cursor)[0] == []


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_look_reads_only_what_is_new(newest_first: bool) -> None:
    told = Told(newest_first=newest_first, size=100)
    for number in range(1000):
        told.tell(1_795_000_000 + 60 * number, f"e{number}")
    events, cursor = read_since(told.service, "ftjob-1", Cursor())
    assert [each.id for each in events] == [f"e{number}" for number in range(1000)]
    told.requests = 0
    told.tell(1_795_100_000, "new")
    events, cursor = read_since(told.service, "ftjob-1", cursor)
    assert ([each.id for each in events], told.requests) == (["new"], 1)


def test_a_cursor_does_not_grow() -> None:
    told = Told(newest_first=True, size=100)
    cursor, sizes = Cursor(), list[int]()
    for number in range(400):
        told.tell(1_795_000_000 + 2 * number, f"e{number}")
        _, cursor = read_since(told.service, "ftjob-1", cursor)
        sizes.append(len(write_cursor({"kind": "logs", "events": cursor.to_list()})))
    assert max(sizes) < 1000


def test_an_event_that_comes_late_is_not_lost() -> None:
    told = Told(newest_first=True, size=100)
    told.tell(1_795_000_010, "first")
    events, cursor = read_since(told.service, "ftjob-1", Cursor())
    told.tell(1_795_000_002, "late")
    told.events.sort(key=lambda row: row["created_at"])
    events, cursor = read_since(told.service, "ftjob-1", cursor)
    assert [each.id for each in events] == ["late"]


@pytest.mark.parametrize(
    "text", ["yesterday", "1", "[]", "{}", '{"kind": "logs"}', '{"kind": "metrics", "events": [1]}', "null"]
)
def test_foreign_cursors_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_cursor(text, "logs")


def test_a_cursor_is_for_its_kind() -> None:
    text = write_cursor({"kind": "metrics", "events": Cursor().to_list()})
    with pytest.raises(UsageError):
        read_cursor(text, "logs")


def test_lines_say_what_is_wrong_and_are_single() -> None:
    events = [
        read_event({"id": "1", "level": "error", "message": "It broke.\nHere."}),
        read_event({"id": "2", "level": "info", "message": "Fine."}),
        read_event({"id": "3", "message": ""}),
        read_event({}),
    ]
    assert lines_of(events) == ("error: It broke.", "error: Here.", "Fine.")
