"""Hashes of files: at once, to go on with, or in a thread while something else is done."""

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

SHA256, MD5 = "sha256", "md5"
_CHUNK_BYTES = 2**20


def digest_of(path: Path, algorithm: str, stop: Event | None = None) -> _Hash:
    """The digest of a file by `sha256` or `md5`; of less than the file where `stop` is set meanwhile."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while (stop is None or not stop.is_set()) and (chunk := stream.read(_CHUNK_BYTES)):
            digest.update(chunk)
    return digest


def file_hash(path: Path, algorithm: str) -> str:
    """The hash of a file, hexadecimal."""
    return digest_of(path, algorithm).hexdigest()


@contextmanager
def hashed_meanwhile(path: Path, algorithm: str) -> Iterator[Future[str]]:
    """The file's hash, worked out in a thread of its own while the block runs; given up where that ends."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(lambda: digest_of(path, algorithm, stop).hexdigest())
        finally:
            stop.set()
