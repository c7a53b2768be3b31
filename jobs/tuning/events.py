"""The files that tell others how a run goes: events.jsonl line by line, other JSON whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

CHANNEL = "MAAS_EVENTS"
"""Set to `stdout`, each event is also a line `@maas {...}` there: clusters show logs at once, files late."""


class EventLog:
    """Appends one JSON object a line to a file, at once; silent on other processes than the first.

    A `listener` is handed each event, too.
    """

    def __init__(self, path: Path, *, enabled: bool = True) -> None:
        self._file = path.open("ab", buffering=0) if enabled else None  # nothing is left to flush at the end
        self._tells = os.environ.get(CHANNEL) == "stdout"
        self.listener: Callable[[Mapping[str, Any]], None] | None = None

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, event: str, **facts: Any) -> None:
        """Write an event with the time (Unix seconds) and its facts. Raises OSError when the disk is full."""
        if self._file is not None:
            told = {"time": round(time.time(), 3), "event": event, **facts}
            line = json.dumps(told) + "\n"
            if self._tells:  # first: the file may lie on a mount that fails
                sys.stdout.write(f"@maas {line}")
                sys.stdout.flush()
            try:
                self._file.write(line.encode())
            finally:
                if self.listener is not None:
                    self.listener(told)


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file appears whole or not at all, also when the machine dies. Raises OSError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON object a line, whole or not at all. Raises OSError."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def write_text(path: Path, text: str) -> None:
    """Write a text file by way of a temporary one beside it: written, synced, renamed. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
