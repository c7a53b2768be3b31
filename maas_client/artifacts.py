"""Copy what a run made, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from maas_client.errors import ConflictError, QuotaError, ServiceError
from maas_client.run import Artifact

_LEFT_OUT = shutil.ignore_patterns("checkpoints", "*.tmp")


def copy_artifact(artifact: Artifact, folder: Path) -> Path:
    """Copy an artifact (without its checkpoints) to a new folder.

    Raises ConflictError where the folder is taken, QuotaError where the disk is full, ServiceError where a
    file cannot be copied.

    The copy is made beside the target and renamed, so that a full disk or Ctrl-C leaves no half of it.
    """
    if folder.exists() or folder.is_symlink():
        raise ConflictError(f"{folder} is there already.", hint="Choose another folder with --to.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        shutil.copytree(artifact.folder, unfinished, ignore=_LEFT_OUT, dirs_exist_ok=True)
        unfinished.rename(folder)
    except shutil.Error as error:
        raise _copy_error(error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _copy_error(error: shutil.Error) -> ServiceError:
    """The first of the failures that copying a tree collects."""
    source, _, reason = error.args[0][0]
    if "No space left" in reason:
        what, hint = "The disk is full; nothing half-written was kept.", "Free some space and try again."
        return QuotaError(what, operation="download", hint=hint)
    what = f"{source} cannot be copied: {reason}."
    return ServiceError(what, operation="download", hint="Check the folder of the run: maas runs show")
