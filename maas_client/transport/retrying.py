"""When to ask again and how long to wait: backoff with full jitter, and the service's own Retry-After."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
REPEATABLE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_MILLISECOND_HEADERS = ("retry-after-ms", "x-ms-retry-after-ms")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)


@dataclass(frozen=True)
class RetryPolicy:
    """How often (`attempts`, the first one included) and how long (`total_s`) one request is tried.

    The wait before try n+1 is random between 0 and min(`cap_s`, `base_s` * 2**(n-1)) seconds.
    """

    attempts: int = 5
    total_s: float = 120.0
    base_s: float = 0.5
    cap_s: float = 20.0

    def wait_s(
        self, failures: int, *, asked_s: float | None, spent_s: float, random: Callable[[], float]
    ) -> float | None:
        """Seconds to wait after `failures` failed tries, at least what the service asked; None = give up."""
        if failures >= self.attempts:
            return None
        ceiling = min(self.cap_s, self.base_s * 2 ** min(failures - 1, 60))
        wait = random() * ceiling if asked_s is None else asked_s + random() * self.base_s
        return wait if spent_s + wait <= self.total_s else None


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the service asks to wait (>= 0), or None. `headers` have lower-case names.

    A date is compared with the answer's own Date header where there is one, so a wrong clock here does no
    harm; `now` is the time in unix seconds otherwise.
    """
    for name in _MILLISECOND_HEADERS:
        milliseconds = _number(headers.get(name, ""))
        if milliseconds is not None:
            return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    until = _date(value)
    if until is None:
        return None
    since = _date(headers.get("date", ""))
    return max(0.0, until - (now if since is None else since))


def _number(text: str) -> float | None:
    """A finite decimal number, or None."""
    if not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _date(text: str) -> float | None:
    """An HTTP date as unix seconds, or None."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
