"""Send files to a container: those that lie there already are left, several short ones go at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import ServiceError, UsageError
from maas_client.transport.blobs import PIECE_BYTES
from maas_client.transport.filehash import SHA256, file_hash
from maas_client.workspace.progress import Tally

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.transport.blobs import Blob, Container

_AT_ONCE = 4
# What another command that sends the same blob just now can do to this one.
_COLLISIONS = frozenset({"InvalidBlockList", "OtherContent"})


@dataclass(frozen=True)
class Outgoing:
    """A file and the blob that it becomes."""

    source: Path
    path: str
    size_bytes: int


def outgoing(source: Path, path: str) -> tuple[Outgoing, ...]:
    """What a file, or all files of a folder (links followed to files), become at a path of a container.

    A file becomes the blob `path`, or one of its own name where that ends with a slash or is empty. Raises
    UsageError where there is no such file or folder.
    """
    if source.is_dir():
        start = f"{path.rstrip('/')}/" if path.strip("/") else ""
        found = [(file, start + file.relative_to(source).as_posix()) for file in _files(source)]
    elif source.is_file():
        found = [(source, path + source.name if path.endswith("/") or not path else path)]
    else:
        raise UsageError(f"{source} is neither a file nor a folder.", hint="Check the path.")
    return tuple(Outgoing(file, name, file.stat().st_size) for file, name in found)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if Path(parent, name).is_file())


def send_files(
    container: Container, files: tuple[Outgoing, ...], there: Mapping[str, Blob], watch: Watch | None
) -> None:
    """Send what is not there yet. `there` is what lies in the container, by path.

    A blob is the same when its length and its hash are: the SHA-256 that is noted in its metadata when it is
    sent, and comes with one listing of a folder; of blobs that others sent, the MD5 that storage keeps.
    """
    tally = Tally(sum(file.size_bytes for file in files), watch)
    short = [file for file in files if file.size_bytes <= PIECE_BYTES]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sent = [pool.submit(_send_file, container, file, there.get(file.path), tally) for file in short]
        try:
            for each in sent:
                each.result()
        finally:
            for each in sent:
                each.cancel()
    for file in files:
        if file.size_bytes > PIECE_BYTES:
            _send_file(container, file, there.get(file.path), tally)


def _send_file(
    container: Container, file: Outgoing, there: Blob | None, tally: Tally, *, again: bool = True
) -> None:
    """Send unless it is there; once more where another command sent the same blob at the same time."""
    known = None
    if there is not None and there.size_bytes == file.size_bytes and there.checksum is not None:
        algorithm, expected = there.checksum
        found = file_hash(file.source, algorithm)
        if found == expected:
            tally.reach(file.path, file.size_bytes)
            return
        known = found if algorithm == SHA256 else None
    try:
        container.send(file.source, file.path, sha256=known, watch=lambda done: tally.reach(file.path, done))
    except ServiceError as error:
        if not again or error.code not in _COLLISIONS:
            raise
        _send_file(container, file, container.look(file.path), tally, again=False)
    tally.reach(file.path, file.size_bytes)
