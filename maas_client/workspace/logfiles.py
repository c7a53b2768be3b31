"""Which of a job's log files people read, and how far each was read: a cursor that means nothing outside."""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2s
from typing import Any

from maas_client.errors import UsageError

MARK_BYTES = 64
"""So many bytes before a file's offset are read again, to see that it is still the same file."""
_VERSION = "log1."
_IMAGE_BUILD = re.compile(r"azureml-logs/20_image_build_log\w*\.txt", re.IGNORECASE)
# The first of these that matches any file names what the job's command writes.
_OF_COMMAND = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"user_logs/std_log\w*\.txt",
        r"azureml-logs/70_(?:driver|mpi)_log\w*\.txt",
        r"(?:logs/azureml|azureml-logs)/executionlogs\.txt",
    )
)
_ANYTHING = re.compile(r"(?:user_logs|azureml-logs|logs/azureml)/.*\.(?:txt|log)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class LogFile:
    """A log file to read. `prefix` goes before each line; `is_early`: it ends where the command starts."""

    name: str
    prefix: str = ""
    is_early: bool = False


class Expected(IntEnum):
    """What is still expected of a file: more; nothing while the job runs; nothing at all."""

    MORE = 0
    LATER = 1
    NOTHING = 2


@dataclass(frozen=True)
class Place:
    """How far a file was read: `offset` bytes; `mark` is a hash over the last of them."""

    offset: int = 0
    mark: str = ""
    rest: Expected = Expected.MORE

    def moved(self, before: bytes, chunk: bytes) -> Place:
        """The place after a chunk. `before` are the bytes that the old mark stands for."""
        if not chunk:
            return self
        return Place(self.offset + len(chunk), mark_of((before + chunk)[-MARK_BYTES:]), self.rest)


def mark_of(data: bytes) -> str:
    """A short hash over the bytes before an offset."""
    return blake2s(data, digest_size=8).hexdigest()


def files_to_read(names: Iterable[str], *, ended: bool, failed: bool) -> tuple[LogFile, ...]:
    """The files that people read, in the order to read them.

    First how the image was built, then what the command wrote on its first rank. Of a job that failed the
    other ranks follow, each line with its rank before it: the first to fail is seldom the first rank. Of an
    ended job that has none of these, whatever log there is.
    """
    known = sorted(names, key=_order)
    early = [LogFile(name, is_early=True) for name in known if _IMAGE_BUILD.fullmatch(name)]
    ranks = next((found for pattern in _OF_COMMAND if (found := _matching(pattern, known))), [])
    if not ranks:
        others = [name for name in known if _ANYTHING.fullmatch(name) and not _IMAGE_BUILD.fullmatch(name)]
        return (*early, *(LogFile(name) for name in others if ended))
    rest = [LogFile(name, f"[{_short(name)}] ") for name in ranks[1:] if failed and ended]
    return (*early, LogFile(ranks[0]), *rest)


def _matching(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    return [name for name in names if pattern.fullmatch(name)]


def _order(name: str) -> tuple[list[int], str]:
    """Ranks by number: std_log_process_2 before std_log_process_10."""
    return [int(number) for number in _NUMBER.findall(name)], name


def _short(name: str) -> str:
    """A file's rank for people: `rank 3` of std_log_process_3.txt, else the file's own name."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    numbers = _NUMBER.findall(stem.removeprefix("70_"))
    return f"rank {int(numbers[-1])}" if numbers else stem


# -- cursors


def write_cursor(run: str, places: Mapping[str, Place]) -> str:
    """A cursor as text."""
    told = {name: [place.offset, place.mark, int(place.rest)] for name, place in places.items()}
    text = json.dumps([_sign(run), told], separators=(",", ":"))
    return _VERSION + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(run: str, after: str | None) -> dict[str, Place]:
    """How far each file was read. Raises UsageError for a cursor that is not of this run's log."""
    if after is None:
        return {}
    try:
        if not after.startswith(_VERSION):
            raise ValueError
        packed = after.removeprefix(_VERSION)
        sign, told = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        places = {str(name): _place(*values) for name, values in told.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        sign, places = None, {}
    if sign != _sign(run):
        raise UsageError(
            f"{after!r} is not a cursor of this run's log.",
            hint="Pass the `next` of the page before, or nothing.",
        )
    return places


def _place(offset: Any, mark: Any, rest: Any) -> Place:
    if not isinstance(offset, int) or offset < 0:
        raise ValueError
    return Place(offset, str(mark), Expected(rest))


def _sign(run: str) -> int:
    return zlib.crc32(run.encode())
