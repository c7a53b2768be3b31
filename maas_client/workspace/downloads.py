"""Fetch blobs into a folder: each appears whole and checked, and one that was cut off goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import QuotaError, RejectedError, ServiceError, UnavailableError
from maas_client.transport.blobs import PIECE_BYTES, Piece
from maas_client.transport.filehash import digest_of, file_hash
from maas_client.workspace.progress import Tally

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.transport.blobs import Blob, Container

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Incoming:
    """A blob and the file that it becomes."""

    blob: Blob
    target: Path

    def is_whole(self) -> bool:
        """Whether the file is there as the blob is: by length and hash, or by the blob's time where no
        hash is known.
        """
        if not self.target.is_file() or self.target.stat().st_size != self.blob.size_bytes:
            return False
        if self.blob.checksum is not None:
            algorithm, expected = self.blob.checksum
            return file_hash(self.target, algorithm) == expected
        return int(self.target.stat().st_mtime) == int(self.blob.modified_at)


def target_in(folder: Path, name: str) -> Path:
    """The file for a blob's name below a folder. Raises RejectedError for a name that leads elsewhere."""
    steps = name.split("/")
    target = folder.joinpath(*steps)
    if not all(map(_is_plain, steps)) or not target.resolve().is_relative_to(folder.resolve()):
        raise RejectedError(
            f"Cannot fetch {name!r}: as a file it would not be inside {folder}.",
            hint="Look at what wrote it; nothing was fetched.",
            operation="download",
            code="UnsafeName",
        )
    return target


def _is_plain(step: str) -> bool:
    """Whether a part of a path names something inside its folder, on this operating system."""
    return step not in {"", ".", ".."} and "\0" not in step and Path(step).name == step


def fetch_files(container: Container, files: Sequence[Incoming], watch: Watch | None) -> None:
    """Fetch what is not there whole. Raises QuotaError where the disk is full."""
    tally = Tally(sum(file.blob.size_bytes for file in files), watch)
    with _told():
        missing = []
        for file in files:
            if file.is_whole():
                tally.reach(file.blob.path, file.blob.size_bytes)
            else:
                missing.append(file)
        _fetch(container, missing, tally)


def _fetch(container: Container, files: Sequence[Incoming], tally: Tally) -> None:
    arrivals: dict[str, _Arrival] = {}

    def pieces() -> Iterator[Piece]:
        for file in files:
            arrival = arrivals[file.blob.path] = _Arrival(file)
            yield from _pieces(file.blob, arrival.done_bytes)

    try:
        with closing(container.pieces(pieces())) as coming:
            for piece, content in coming:
                arrival = arrivals[piece.blob.path]
                arrival.take(content)
                tally.reach(piece.blob.path, arrival.done_bytes)
                if piece.is_last:
                    arrivals.pop(piece.blob.path).finish()
    finally:
        for arrival in arrivals.values():
            arrival.close()


def _pieces(blob: Blob, start: int) -> Iterator[Piece]:
    """The ranges of a blob from `start`; one without bytes where nothing is left."""
    for offset in range(start, blob.size_bytes, PIECE_BYTES) or (blob.size_bytes,):
        yield Piece(blob, offset, min(PIECE_BYTES, blob.size_bytes - offset))


class _Arrival:
    """A file on its way, as NAME.part beside its place; NAME.part.etag says of which blob it is.

    One that is there and of the same blob goes on at its end, any other begins anew.
    """

    def __init__(self, file: Incoming) -> None:
        self._file = file
        self._part = file.target.with_name(f"{file.target.name}.part")
        self._etag = file.target.with_name(f"{file.target.name}.part.etag")
        file.target.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_ours():
            self._etag.unlink(missing_ok=True)
            self._part.write_bytes(b"")
            self._etag.write_text(file.blob.etag, encoding="utf-8")
        checksum = file.blob.checksum
        self._digest = digest_of(self._part, checksum[0]) if checksum else None
        self._stream = self._part.open("ab")
        self.done_bytes = self._stream.tell()

    def _is_ours(self) -> bool:
        if not (self._part.is_file() and self._etag.is_file()):
            return False
        same = self._etag.read_text(encoding="utf-8", errors="replace") == self._file.blob.etag
        return same and self._part.stat().st_size <= self._file.blob.size_bytes

    def take(self, content: bytes) -> None:
        """The next bytes."""
        self._stream.write(content)
        if self._digest is not None:
            self._digest.update(content)
        self.done_bytes += len(content)

    def finish(self) -> None:
        """Check what arrived and put it in its place. Raises UnavailableError where it is damaged."""
        self._stream.close()
        blob = self._file.blob
        checksum = (self._digest.name, self._digest.hexdigest()) if self._digest else None
        if (self._part.stat().st_size, checksum) != (blob.size_bytes, blob.checksum):
            self._part.unlink()
            self._etag.unlink(missing_ok=True)
            raise UnavailableError(
                f"Cannot fetch {blob.path}: what arrived does not have its length and hash.",
                hint="Try again: it begins anew. If it stays, the blob itself is damaged.",
                operation=f"fetch {blob.path}",
                code="HashMismatch",
            )
        os.utime(self._part, (blob.modified_at, blob.modified_at))
        self._part.replace(self._file.target)
        self._etag.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what arrived, to go on with."""
        self._stream.close()


@contextmanager
def _told() -> Iterator[None]:
    """What the disk refused, as an error of errors.py."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            message, hint = "The disk is full.", "Make room, then give the same command again: it goes on."
            raise QuotaError(message, hint=hint, operation="download") from error
        message = f"{error.filename or 'The folder'}: {error.strerror or error}."
        raise ServiceError(message, hint="Check the folder, then try again.", operation="download") from error
