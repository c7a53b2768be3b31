"""A service's JSON, read leniently: any letter case, parts that are missing, null or of another kind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any


def member(body: object, *path: str) -> Any:
    """What lies at a path of names in nested objects; None where anything on the way is missing."""
    for name in path:
        if not isinstance(body, Mapping):
            return None
        if name in body:
            body = body[name]
            continue
        wanted = name.lower()
        body = next((value for key, value in body.items() if str(key).lower() == wanted), None)
    return body


def mapping_at(body: object, *path: str) -> Mapping[str, Any]:
    """The object at a path, empty where there is none. One that was written as JSON text is read."""
    found = member(body, *path)
    if isinstance(found, str):
        with suppress(ValueError, RecursionError):
            found = json.loads(found)
    return found if isinstance(found, Mapping) else {}


def text_at(body: object, *path: str) -> str:
    """The text at a path, "" where there is none."""
    found = member(body, *path)
    return found.strip() if isinstance(found, str) else ""


def number_at(body: object, *path: str) -> float | None:
    """The finite number at a path, also one that was written as text; None where there is none."""
    return as_number(member(body, *path))


def as_number(value: object) -> float | None:
    """A finite number, also one that was written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    with suppress(ValueError, OverflowError):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def time_at(body: object, *path: str) -> float | None:
    """The time at a path as unix seconds. UTC where it names no zone; the year 1 means that there is none."""
    try:
        moment = datetime.fromisoformat(text_at(body, *path))
        if moment.year < 1971:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
