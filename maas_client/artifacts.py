"""Bring what a run made into a folder of the user's, whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import ConflictError

if TYPE_CHECKING:
    from maas_client.backend import Backend, Watch
    from maas_client.run import RunRef


def fetch_artifact(jobs: Backend, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> Path:
    """Bring all that a succeeded run left, without its checkpoints, into a new folder.

    The files are gathered beside the target, in a folder that is renamed at the end: the same call again goes
    on with a download that was cut off, and Ctrl-C leaves no half of the target. Raises ConflictError where
    the folder is taken or the run has not succeeded, and ServiceError.
    """
    if folder.exists() or folder.is_symlink():
        raise ConflictError(f"{folder} is there already.", hint="Choose another folder with --to.")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        jobs.download(ref, unfinished, watch=watch)
        unfinished.rename(folder)
    finally:
        with suppress(OSError):  # there is nothing in it to go on with
            unfinished.rmdir()
    return folder
