"""What a job tells, read by cursor: each event once, whichever end the service lists first.

A cursor remembers the newest event, the events of its last half minute (some may come late, or in the same
second) and the order of the list, so that a look reads only what is new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.openai_v1.wire import JobEvent, read_event
from maas_client.errors import UsageError
from maas_client.transport.paging import items_of

if TYPE_CHECKING:
    from maas_client.transport.openai_client import OpenAIService

_PAGE = 100
_WINDOW_S = 30.0
_OLDEST_FIRST, _NEWEST_FIRST, _UNKNOWN = "a", "d", ""


@dataclass(frozen=True)
class Cursor:
    """How far the events of a job were given. `recent`: times and digests of those in the window."""

    order: str = _UNKNOWN
    at: float = 0.0
    last: str = ""
    recent: tuple[tuple[float, str], ...] = field(default=())

    def to_list(self) -> list[Any]:
        """JSON-ready data."""
        return [self.order, self.at, self.last, [list(each) for each in self.recent]]

    @classmethod
    def from_list(cls, value: Any) -> Cursor:
        """Read what `to_list` gave. Raises ValueError, TypeError for anything else."""
        order, at, last, recent = value
        known = tuple((float(when), str(digest)) for when, digest in recent)
        return cls(str(order), float(at), str(last), known)


def read_since(service: OpenAIService, job: str, cursor: Cursor) -> tuple[list[JobEvent], Cursor]:
    """The events of a job after a cursor, oldest first, and the next cursor."""
    after = cursor.last if cursor.order == _OLDEST_FIRST else ""
    order, seen = cursor.order, list[JobEvent]()
    for page in _pages(service, job, after):
        seen += page
        order = order or _order(seen)
        if order == _NEWEST_FIRST and page and min(each.at for each in page) < cursor.at - _WINDOW_S:
            break
    given = {digest for _, digest in cursor.recent}
    if order == _NEWEST_FIRST:
        seen.reverse()
    fresh = [each for each in seen if each.at >= cursor.at - _WINDOW_S and _digest(each.id) not in given]
    fresh = sorted({each.id: each for each in fresh}.values(), key=lambda each: each.at)
    return fresh, _moved(cursor, order, fresh, seen)


def _pages(service: OpenAIService, job: str, after: str) -> Iterator[list[JobEvent]]:
    pages = service.pages(
        f"read the events of {job}",
        lambda api, place: api.fine_tuning.jobs.with_raw_response.list_events(job, limit=_PAGE, **place),
        after=after,
    )
    for page in pages:
        yield [read_event(item) for item in items_of(page) if isinstance(item, dict)]


def _order(events: list[JobEvent]) -> str:
    """Which end of the list came first, as far as two events of different times tell it."""
    first, last = events[0].at if events else 0.0, events[-1].at if events else 0.0
    if first == last:
        return _UNKNOWN
    return _OLDEST_FIRST if first < last else _NEWEST_FIRST


def _moved(cursor: Cursor, order: str, fresh: list[JobEvent], seen: list[JobEvent]) -> Cursor:
    at = max([cursor.at, *(each.at for each in fresh)])
    recent = [*cursor.recent, *((each.at, _digest(each.id)) for each in fresh)]
    kept = tuple(each for each in recent if each[0] >= at - _WINDOW_S)
    last = seen[-1].id if order == _OLDEST_FIRST and seen else cursor.last
    return Cursor(order, at, last, kept)


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def write_cursor(parts: dict[str, Any]) -> str:
    """A cursor as text."""
    return json.dumps(parts, separators=(",", ":"))


def read_cursor(text: str | None, kind: str) -> dict[str, Any]:
    """What `write_cursor` wrote for this kind; {} for None. Raises UsageError for a foreign cursor."""
    if text is None:
        return {}
    try:
        parts = json.loads(text)
        if parts["kind"] != kind:
            raise ValueError
        return {**parts, "events": Cursor.from_list(parts["events"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        hint = "Pass the `next` of the page before, or nothing."
        raise UsageError(f"{text!r} is not a cursor.", hint=hint) from None


def lines_of(events: Iterable[JobEvent]) -> tuple[str, ...]:
    """The events as log lines."""
    lines = []
    for each in events:
        mark = "" if each.level.lower() in {"", "info"} else f"{each.level}: "
        lines += [f"{mark}{line}" for line in each.message.splitlines() or [""] if line.strip()]
    return tuple(lines)
