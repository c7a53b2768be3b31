"""A training run: its identity (RunRef), one look at it (RunStatus), and pages of what it wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from maas_client.cloudpath import CloudPath
from maas_client.errors import UsageError

_REF = re.compile(r"(?P<backend>[a-z0-9]+)://(?P<id>[A-Za-z0-9._-]+)")

Event = Mapping[str, Any]
"""One line of a run's events.jsonl: at least `time` (unix seconds) and `event` (started, step, ...)."""


class RunState(StrEnum):
    """What a run is doing, in the same words on every backend."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """True when no later look can show another state."""
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED}

    @property
    def words(self) -> str:
        """The state as the end of a sentence about a run: `is running`, `has succeeded`."""
        if self is RunState.CANCELED:
            return "was canceled"
        if self is RunState.UNKNOWN:
            return "is in an unknown state"
        return f"has {self}" if self.is_final else f"is {self}"


class Reason(StrEnum):
    """Why a run waits or failed, as far as the evidence says."""

    QUOTA = "quota"
    CAPACITY = "capacity"
    IMAGE = "image"
    IDENTITY = "identity"
    DATA = "data"
    CODE = "code"
    MEMORY = "memory"
    DISK = "disk"
    KILLED = "killed"
    PREEMPTED = "preempted"


@dataclass(frozen=True)
class RunRef:
    """Identity of a run, written `backend://id`."""

    backend: str
    id: str

    def __str__(self) -> str:
        return f"{self.backend}://{self.id}"

    @classmethod
    def parse(cls, text: str) -> RunRef:
        """Read `backend://id`; raises UsageError for anything else."""
        match = _REF.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is not a run reference.", hint="Write it as backend://id, such as local://card-1."
            )
        return cls(match["backend"], match["id"])


@dataclass(frozen=True)
class RunStatus:
    """One look at a run. Times are unix seconds; `tail` holds the last log lines of a failed run."""

    state: RunState
    native_state: str
    seen_at: float
    reason: Reason | None = None
    message: str = ""
    tail: tuple[str, ...] = ()
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None

    def age_s(self, now: float) -> float:
        """Seconds since this look."""
        return max(0.0, now - self.seen_at)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "", ())}


@dataclass(frozen=True)
class LogPage:
    """Log lines after a cursor. `next` is the cursor to go on from; None when no more lines can come."""

    lines: tuple[str, ...]
    next: str | None


@dataclass(frozen=True)
class MetricPage:
    """Events after a cursor, oldest first. `next` is the cursor to go on from; None when no more can come."""

    events: tuple[Event, ...]
    next: str | None


@dataclass(frozen=True)
class Artifact:
    """What a succeeded run left behind.

    `folder` is here and holds what people read (result.json, samples.jsonl, events.jsonl; what of it the
    service wrote); `result` is result.json, empty where the service writes none. `model_in_cloud` is where
    the adapter or the full weights lie when that is not `folder`/model.
    """

    folder: Path
    result: Mapping[str, Any]
    model_in_cloud: CloudPath | None = None

    @property
    def model(self) -> Path | CloudPath:
        """Where the adapter or the full weights are."""
        return self.model_in_cloud or self.folder / "model"

    @property
    def is_adapter(self) -> bool:
        """True where the model is an adapter, which needs its base."""
        return bool(self.result.get("adapter"))
