"""MD5 of files, as blob storage keeps it of blobs: at once, or in a thread while something else is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK_BYTES = 2**20


def new_md5() -> _Hash:
    """An empty MD5: it finds damage and change, and protects from nobody."""
    return hashlib.md5(usedforsecurity=False)


def digest_of(path: Path, stop: Event | None = None) -> _Hash:
    """The MD5 of a file, to go on with. Of less than the file where `stop` is set meanwhile."""
    digest = new_md5()
    with path.open("rb") as stream:
        while (stop is None or not stop.is_set()) and (chunk := stream.read(_CHUNK_BYTES)):
            digest.update(chunk)
    return digest


def file_md5(path: Path, stop: Event | None = None) -> str:
    """The MD5 of a file, hexadecimal; `stop` as in `digest_of`."""
    return digest_of(path, stop).hexdigest()


@contextmanager
def hashed_meanwhile(path: Path) -> Iterator[Future[str]]:
    """The file's MD5, worked out in a thread of its own while the block runs; given up where that ends."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(file_md5, path, stop)
        finally:
            stop.set()
