"""Run history: a run's details, and its log from wherever it was read to before.

Logs lie in blobs behind signed URLs that end after a while. A cursor holds how far each file was read, and
only what came since is fetched, in ranges of at most 256 KiB. Each whole line comes once, in order.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from maas_client.errors import AccessDeniedError, NotFoundError, ServiceError
from maas_client.logtext import PAGE_BYTES, lines_of, whole_bytes
from maas_client.run import LogPage, RunState
from maas_client.transport.members import mapping_at, text_at
from maas_client.transport.rest import Rest
from maas_client.workspace.jobs import state_of
from maas_client.workspace.logfiles import (
    MARK_BYTES,
    Expected,
    LogFile,
    Place,
    files_to_read,
    mark_of,
    read_cursor,
    write_cursor,
)

if TYPE_CHECKING:
    from maas_client.transport.answer import Answer
    from maas_client.workspace.session import Workspace

DETAILS_S = 60.0
"""So long the signed URLs of a run's details are used before they are asked for again."""
_TAIL_BYTES = 64 << 10
_MOST_KEPT = 16
_MOST_URLS = 3
_KEPT = (
    "logFiles",
    "status",
    "error",
    "warnings",
    "createdTimeUtc",
    "startTimeUtc",
    "endTimeUtc",
    "currentAttemptId",
)
_RANGE = re.compile(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+)", re.IGNORECASE)
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class _Seen:
    """Details as they were at `at`. `is_last`: the run had ended by then, so they stay as they are."""

    at: float
    details: Mapping[str, Any]
    is_last: bool


@dataclass(frozen=True)
class _Piece:
    """Bytes of a file that has `size` bytes in all. `is_there`: there is such a file."""

    content: bytes = b""
    reaches_end: bool = True
    size: int = 0
    is_there: bool = True


class History:
    """The run history of one workspace. `storage` replaces the way to the log files."""

    def __init__(self, workspace: Workspace, *, storage: Rest | None = None) -> None:
        self._workspace = workspace
        self._storage = storage
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    # -- details

    def details(self, name: str, *, max_age_s: float = 0.0, ended: bool = False) -> Mapping[str, Any]:
        """What run history says of a run: status, times, error, warnings, and logFiles as name -> signed URL.

        Details that were asked for less than `max_age_s` ago are given again; of a run that has `ended`, only
        those from after its end. Raises NotFoundError.
        """
        seen, now = self._seen.get(name), self._workspace.clock()
        if seen is not None and now - seen.at < max_age_s and (seen.is_last or not ended):
            return seen.details
        place = f"/history/v1.0{self._workspace.path()}/runs/{quote(name, safe='')}/details"
        told = self._workspace.api.get(place, operation=f"look at run {name}").mapping
        lowered = {str(key).lower(): value for key, value in told.items()}
        details = {key: lowered[key.lower()] for key in _KEPT if lowered.get(key.lower()) is not None}
        is_last = ended or state_of(text_at(details, "status")).is_final
        self._seen[name] = _Seen(now, details, is_last)
        self._seen.move_to_end(name)
        while len(self._seen) > _MOST_KEPT:
            self._seen.popitem(last=False)
        return details

    def _urls(self, name: str, *, ended: bool) -> Mapping[str, str]:
        """The signed URL of each log file; none where run history does not know the run (yet)."""
        seen = self._seen.get(name)
        max_age_s = 0.0 if seen is not None and _awaits_log(seen) else DETAILS_S
        try:
            files = mapping_at(self.details(name, max_age_s=max_age_s, ended=ended), "logFiles")
        except NotFoundError:
            return {}
        return {str(file): url for file, url in files.items() if isinstance(url, str) and url}

    # -- logs

    def log(self, name: str, after: str | None, *, ended: bool) -> LogPage:
        """The whole lines of a run's log after a cursor: at most 256 KiB of one file.

        `ended` says that the run has ended; only then can `next` be None, once all was given. A file that was
        replaced by another one, as after a preemption, is read from its start. Raises UsageError for a cursor
        of another run, and ServiceError.
        """
        places = read_cursor(name, after)
        urls = self._urls(name, ended=ended)
        files = files_to_read(urls, ended=ended, failed=ended and self._has_failed(name))
        lines: tuple[str, ...] = ()
        for number, file in enumerate(files):
            place, is_last_file = places.get(file.name, Place()), number + 1 == len(files)
            if place.rest is Expected.NOTHING or (place.rest is Expected.LATER and not ended):
                continue
            is_done = ended or (file.is_early and not is_last_file)
            place, chunk, reaches_end = self._next_part(name, file, place, is_done=is_done)
            if is_done and reaches_end:
                place = replace(place, rest=Expected.NOTHING if ended else Expected.LATER)
            places[file.name] = place
            lines = tuple(file.prefix + line for line in lines_of(chunk))
            if lines or not reaches_end:
                break
        over = ended and all(places.get(file.name, Place()).rest is Expected.NOTHING for file in files)
        return LogPage(lines, None if over else write_cursor(name, places))

    def _has_failed(self, name: str) -> bool:
        seen = self._seen.get(name)
        return seen is not None and state_of(text_at(seen.details, "status")) is RunState.FAILED

    def _next_part(
        self, name: str, file: LogFile, place: Place, *, is_done: bool
    ) -> tuple[Place, bytes, bool]:
        """What of a file comes next: the place after it, its bytes, and whether they reach the file's end.

        The bytes before the place are read with it: where they are others than before, or fewer, the file is
        another one. The last line comes without its end where the file is done.
        """
        back = min(MARK_BYTES, place.offset)
        piece = self._range(name, file.name, place.offset - back, back + PAGE_BYTES)
        if not piece.is_there:
            return place, b"", True
        before = piece.content[:back]
        if back and mark_of(before) != place.mark:
            if len(before) < back and not piece.reaches_end:
                return place, b"", False  # cut off before anything new
            place, back, before = Place(), 0, b""
            piece = self._range(name, file.name, 0, PAGE_BYTES)
        chunk = piece.content[back:]
        if not (is_done and piece.reaches_end):
            chunk = chunk[: whole_bytes(chunk)]
        return place.moved(before, chunk), chunk, piece.reaches_end

    def _range(self, name: str, file: str, start: int, count: int) -> _Piece:
        """Bytes of a file from `start` on. Where its URL is refused, another one is asked for."""
        if self._storage is None:
            clock, sleep = self._workspace.clock, self._workspace.sleep
            self._storage = Rest("https://localhost", clock=clock, sleep=sleep)  # signed URLs are whole
        headers = {"Range": f"bytes={start}-{start + count - 1}", "Accept": "*/*"}
        operation, details = f"read the log of run {name}", self._seen[name].details
        for tries in range(1, _MOST_URLS + 1):
            url = text_at(mapping_at(details, "logFiles"), file)
            if not url:
                break
            try:
                return _piece(self._storage.get(url, operation=operation, headers=headers), start, count)
            except AccessDeniedError:
                if tries == _MOST_URLS:
                    raise
                details = self.details(name, ended=self._seen[name].is_last)
            except NotFoundError:
                break
            except ServiceError as error:
                if error.status != _RANGE_NOT_SATISFIABLE:
                    raise
                return _Piece()
        return _Piece(is_there=False)

    def tail(self, name: str, lines: int = 15) -> tuple[str, ...]:
        """The last lines that an ended run wrote (on its first rank), out of its last 64 KiB."""
        files = files_to_read(self._urls(name, ended=True), ended=True, failed=False)
        file = next((file.name for file in files if not file.is_early), None)
        if file is None:
            return ()
        piece = self._range(name, file, 0, _TAIL_BYTES)
        if piece.size <= _TAIL_BYTES:
            return lines_of(piece.content)[-lines:]
        piece = self._range(name, file, piece.size - _TAIL_BYTES, 2 * _TAIL_BYTES)
        return lines_of(piece.content)[1:][-lines:]


def _awaits_log(seen: _Seen) -> bool:
    """True where the log of the command was not there yet, and may be by now."""
    files = files_to_read(mapping_at(seen.details, "logFiles"), ended=False, failed=False)
    return not seen.is_last and all(file.is_early for file in files)


def _piece(answer: Answer, start: int, count: int) -> _Piece:
    """What an answer to a ranged GET holds; also one that comes whole, or shorter than it says."""
    found = _RANGE.search(answer.headers.get("content-range", ""))
    if answer.status != 206:
        size = len(answer.content)
        return _Piece(answer.content[start : start + count], start + count >= size, size)
    if found is None:
        reaches_end = len(answer.content) < count
        return _Piece(answer.content, reaches_end, start + len(answer.content))
    size = int(found.group(2))
    return _Piece(answer.content, start + len(answer.content) >= size, size)
