"""Folders that appear whole or not at all, locks between commands, and what a full disk is called."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maas_client.errors import AccessDeniedError, QuotaError, ServiceError

STAGING_PREFIX = ".tmp-"
_CHUNK_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@contextmanager
def told(operation: str, place: Path) -> Iterator[None]:
    """Turn an OSError into the one sentence that says what happened at `place`. Raises ServiceError."""
    try:
        yield
    except OSError as error:
        where, words = error.filename or place, error.strerror or _first_cause(error)
        if error.errno in _FULL or any(os.strerror(number) in words for number in _FULL):
            hint = "Make room, then give the same command again; nothing half-written is left."
            message = f"The disk that holds {place} is full."
            raise QuotaError(message, operation=operation, hint=hint) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            hint = "Choose a folder that you may write to with MAAS_HOME."
            raise AccessDeniedError(f"{where}: {words}.", operation=operation, hint=hint) from error
        hint = f"Check {place}, then give the same command again."
        raise ServiceError(f"{where}: {words}.", operation=operation, hint=hint) from error


def _first_cause(error: OSError) -> str:
    """What shutil collected while it copied a folder is a list of (source, target, words)."""
    causes = error.args[0] if error.args else ""
    return str(causes[0][2]) if isinstance(causes, list) and causes else str(error)


@contextmanager
def lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file; waits for it. The lock ends with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A new folder beside the final ones, to be filled and then given to `publish`; gone when the block ends.

    Folders that killed commands left behind are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(parent)
    with lock(parent / ".staging.lock", shared=True):
        folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans(parent: Path) -> None:
    """Nobody holds the staging lock: then every staging folder is one that a killed command left."""
    handle = os.open(parent / ".staging.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for orphan in parent.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(orphan, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(handle)


def publish(staged: Path, final: Path) -> bool:
    """Rename a staged folder into its place; False when the place is taken."""
    try:
        staged.rename(final)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    with suppress(OSError):
        handle = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return True


def remove(folder: Path) -> None:
    """Remove a folder at once: it is first renamed out of sight, so that no half of it is ever seen."""
    with staging(folder.parent) as out_of_sight, suppress(FileNotFoundError):
        folder.rename(out_of_sight / folder.name)


def copy_file(source: Path, target: Path) -> str:
    """Copy a file and return `sha256:<hex>` of what was copied. Raises OSError."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
    return f"sha256:{digest.hexdigest()}"


def size_bytes(folder: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy_files(source: Path, target: Path, *, ignore: tuple[str, ...]) -> None:
    """Copy a folder's files into an existing folder; if that fails, nothing of them is left.

    Raises OSError.
    """
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*ignore), dirs_exist_ok=True)
    except BaseException:
        for path in target.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        raise
