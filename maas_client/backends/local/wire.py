"""The JSON files of the local backend: their shapes, how they are written and read, and what evidence means.

A file appears whole or not at all: it is written beside its place, synced and renamed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from maas_client.errors import ServiceError
from maas_client.run import RunState

JOB = "job.json"
LAUNCH = "launch.json"
PROCESS = "process.json"
EXIT = "exit.json"
CANCEL = "cancel.json"
LOG = "logs/std_log.txt"
RESULT = "outputs/run/result.json"
EVENTS = "outputs/run/events.jsonl"


class Evidence(StrEnum):
    """What the files and the process table show about a run."""

    PREPARED = "prepared, not started"
    ALIVE = "process is alive"
    STOPPING = "process was asked to stop"
    RESULT = "result is there"
    NO_RESULT = "exited without a result"
    EXITED = "exited with an error"
    CANCELED = "stopped as asked"
    NEVER_STARTED = "canceled before it started"
    TERMINATED = "stopped by a signal from elsewhere"
    GONE = "process is gone"
    REBOOTED = "machine was restarted"
    UNREADABLE = "records cannot be read"


STATES: Mapping[Evidence, RunState] = {
    Evidence.PREPARED: RunState.QUEUED,
    Evidence.ALIVE: RunState.RUNNING,
    Evidence.STOPPING: RunState.CANCELING,
    Evidence.RESULT: RunState.SUCCEEDED,
    Evidence.NO_RESULT: RunState.FAILED,
    Evidence.EXITED: RunState.FAILED,
    Evidence.CANCELED: RunState.CANCELED,
    Evidence.NEVER_STARTED: RunState.CANCELED,
    Evidence.TERMINATED: RunState.FAILED,
    Evidence.GONE: RunState.FAILED,
    Evidence.REBOOTED: RunState.FAILED,
    Evidence.UNREADABLE: RunState.UNKNOWN,
}


class Record:
    """A dataclass that is one JSON file."""

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises OSError."""
        write_json(path, asdict(self))  # type: ignore[call-overload]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the file; None when there is none. Raises ServiceError for a torn or foreign one."""
        value = read_json(path)
        if value is None:
            return None
        known = {each.name for each in fields(cls)}  # type: ignore[arg-type]
        try:
            return cls(**{key: item for key, item in value.items() if key in known})
        except (TypeError, ValueError, KeyError):
            raise _unreadable(path, "it is not what maas writes there") from None


@dataclass(frozen=True)
class ProcessId(Record):
    """A process that cannot be taken for another: its number, when it was born, in which life of the machine.

    `birth` counts clock ticks since the start of the machine on Linux, unix seconds elsewhere. `boot` names
    the life of the machine.
    """

    pid: int
    birth: float
    boot: str


@dataclass(frozen=True)
class Launch(Record):
    """What the supervisor starts: the words, where, what is added to the environment and where output goes.

    `log` is relative to the folder of the file. `grace_s` seconds pass between asking to stop and killing.
    """

    argv: list[str]
    cwd: str
    log: str
    environment: dict[str, str] = field(default_factory=dict)
    attempt: int = 1
    grace_s: float = 30.0


@dataclass(frozen=True)
class Processes(Record):
    """Who runs an attempt. `child` is None for the moment between the two starts."""

    supervisor: ProcessId
    started_at: float
    attempt: int
    child: ProcessId | None = None

    def __post_init__(self) -> None:
        for name in ("supervisor", "child"):
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, ProcessId(**value))

    @property
    def both(self) -> tuple[ProcessId | None, ...]:
        """Supervisor and child."""
        return (self.supervisor, self.child)


@dataclass(frozen=True)
class Exit(Record):
    """How the command ended. `signal` is 0 where none ended it; `asked`: it was told to stop before."""

    exit_code: int
    signal: int
    ended_at: float
    asked: bool = False
    message: str = ""


@dataclass(frozen=True)
class Cancel(Record):
    """Somebody asked for the end of the run."""

    asked_at: float


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file appears whole or not at all, also when the machine dies. Raises OSError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a text file by way of a temporary one beside it: written, synced, renamed. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None when there is no such file. Raises ServiceError for a torn or foreign one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except ValueError:
        raise _unreadable(path, "it is torn or not JSON") from None
    if not isinstance(value, dict):
        raise _unreadable(path, "it holds no JSON object")
    return value


def _unreadable(path: Path, why: str) -> ServiceError:
    hint = f"Move the folder {path.parent} away and start again."
    return ServiceError(f"{path} cannot be read: {why}.", operation="read", hint=hint)
