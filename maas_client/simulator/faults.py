"""Misbehavior on demand: what goes wrong, for which requests or things, and how often."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "status": ("answer with an HTTP status instead", {"status": 503, "retry_after": None, "code": ""}),
    "reset": ("break the connection before anything is done", {}),
    "lost_reply": ("do what was asked, then break the connection", {}),
    "truncate": ("send only the first bytes of the body", {"bytes": 20}),
    "slow": ("send the body in small pieces with pauses", {"seconds": 2.0, "pieces": 8}),
    "expired_token": ("say that the token has expired", {}),
    "not_ready": ("an endpoint that is Succeeded refuses to answer", {"status": 503}),
    "content_filter": ("the content filter refuses a prompt, or a completion", {"where": "prompt"}),
    "quota": ("refuse cores for a job, a cluster or a deployment", {}),
    "lro_fail": (
        "let the long operation of this request fail",
        {"code": "InternalServerError", "message": ""},
    ),
    "lro_slow": ("let the long operation of this request take long", {"seconds": 3600.0}),
    "job_fail": ("let a job fail, whatever its command does", {"message": "The node became unhealthy."}),
    "job_status": ("let a job show a status word for a while", {"word": "Thawing", "seconds": 60.0}),
}
"""Kind -> what it does, and its parameters with their defaults."""

REQUEST_KINDS = frozenset({"status", "reset", "lost_reply", "truncate", "slow", "expired_token"})


@dataclass
class Fault:
    """One order to misbehave.

    `match` is a regular expression searched in `METHOD /path` (kinds about jobs: in the job's name). The
    first `after` hits go well, then `times` go wrong; `times` 0 means all.
    """

    kind: str
    match: str = ""
    times: int = 1
    after: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    def __getitem__(self, name: str) -> Any:
        return self.parameters.get(name, KINDS[self.kind][1][name])

    @property
    def is_spent(self) -> bool:
        """True when it cannot strike any more."""
        return bool(self.times) and self.hits >= self.after + self.times

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "kind": self.kind,
            "match": self.match,
            "times": self.times,
            "after": self.after,
            "hits": self.hits,
            **self.parameters,
        }


class Faults:
    """The orders that stand, and a count of what has struck."""

    def __init__(self) -> None:
        self._orders: list[Fault] = []
        self._lock = threading.Lock()
        self.struck: Counter[str] = Counter()

    def order(self, data: Mapping[str, Any]) -> Fault:
        """Add an order from JSON. Raises ValueError with one sentence when it makes no sense."""
        known = {"kind", "match", "times", "after"}
        kind = str(data.get("kind", ""))
        if kind not in KINDS:
            raise ValueError(f"There is no fault {kind!r}; there are {', '.join(sorted(KINDS))}.")
        parameters = {key: value for key, value in data.items() if key not in known}
        if unknown := set(parameters) - set(KINDS[kind][1]):
            raise ValueError(f"Fault {kind} has no parameter {sorted(unknown)[0]!r}.")
        try:
            match = re.compile(str(data.get("match", ""))).pattern
        except re.error as error:
            raise ValueError(f"match is no regular expression: {error}.") from None
        fault = Fault(kind, match, int(data.get("times", 1)), int(data.get("after", 0)), parameters)
        with self._lock:
            self._orders.append(fault)
        return fault

    def take(self, kinds: frozenset[str] | str, text: str) -> Fault | None:
        """The first order of these kinds that strikes for `text` now; its count goes up."""
        wanted = {kinds} if isinstance(kinds, str) else kinds
        if not self._orders:
            return None
        with self._lock:
            for fault in self._orders:
                if fault.kind in wanted and not fault.is_spent and re.search(fault.match, text):
                    fault.hits += 1
                    if fault.hits > fault.after:
                        self.struck[fault.kind] += 1
                        return fault
        return None

    def standing(self) -> list[Fault]:
        """Every order, also those that are spent."""
        return list(self._orders)

    def clear(self) -> None:
        """Forget every order."""
        with self._lock:
            self._orders.clear()
