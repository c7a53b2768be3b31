"""Copy what a run made, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from maas_client.errors import ConflictError
from maas_client.run import Artifact

_LEFT_OUT = shutil.ignore_patterns("checkpoints", "*.tmp")


def copy_artifact(artifact: Artifact, folder: Path) -> Path:
    """Copy an artifact (without its checkpoints) to a new folder. Raises ConflictError where that is taken.

    The copy is made beside the target and renamed, so that a full disk or Ctrl-C leaves no half of it.
    """
    if folder.exists():
        raise ConflictError(f"{folder} is there already.", hint="Choose another folder with --to.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        shutil.copytree(artifact.folder, unfinished, ignore=_LEFT_OUT, dirs_exist_ok=True)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder
