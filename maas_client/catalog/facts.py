"""A fact and where it comes from: nothing in the catalog is without a source and a date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Where a fact was read. `dated` is the page's own date; without one, the day it was read counts."""

    key: str
    title: str
    url: str
    dated: date | None
    read: date

    @property
    def date(self) -> date:
        """The day for which the source speaks."""
        return self.dated or self.read

    def __str__(self) -> str:
        return f"{self.title}, {self.dated}" if self.dated else f"{self.title}, read {self.read}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        dated = self.dated.isoformat() if self.dated else None
        return {"title": self.title, "url": self.url, "dated": dated, "read": self.read.isoformat()}


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value and its source. `value` None means unknown: nobody guessed, and `source` is None too."""

    value: T | None
    source: Source | None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether a value was found."""
        return self.value is not None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; an unknown value stays null."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        source = self.source.to_dict() if self.source else None
        return {"value": value, "source": source, "note": self.note}


def read_sources(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Source]:
    """The `sources` table of a catalog file, by key."""
    return {
        key: Source(key, row["title"], row["url"], day(row["dated"]), date.fromisoformat(row["read"]))
        for key, row in data.items()
    }


def read_fact(data: Mapping[str, Any], sources: Mapping[str, Source]) -> Fact[Any]:
    """One fact of a catalog file; lists become tuples."""
    value = data["value"]
    if isinstance(value, list):
        value = tuple(value)
    source = sources[data["source"]] if data["source"] else None
    return Fact(value, source, data.get("note", ""))


def day(text: str | None) -> date | None:
    """An ISO date, or None."""
    return date.fromisoformat(text) if text else None
