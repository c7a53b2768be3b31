"""Options that several commands take, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated

import typer

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; start nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to every question.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no service; use what is known here.")]


def day_of(text: str | None) -> date | None:
    """The day that --date names. Raises UsageError."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        from maas_client.errors import UsageError

        raise UsageError(f"--date {text!r} is not a day.", hint="Write it as 2026-11-24.") from None


def clock_of(text: str | None) -> Callable[[], float] | None:
    """A clock that goes on from noon (UTC) of the day that --date names; None where it names none."""
    import time

    day = day_of(text)
    if day is None:
        return None
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
    ahead = noon - time.time()
    return lambda: time.time() + ahead
