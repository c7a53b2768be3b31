"""Start a user's own project from an example that ships with the package."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

from maas_client.bundled import jobs_folder
from maas_client.errors import ConflictError, UsageError

STARTERS = (
    "card-support",
    "small-talk",
    "delivery-notes",
    "order-desk",
    "museum-guide",
    "shift-reports",
    "garden-handbook",
    "round-dances",
    "reading-room",
    "wall-labels",
    "night-buses",
)
_NO_DATA = (".py", ".pyc", "phrases.json")


def write_starter(folder: Path, example: str) -> list[Path]:
    """Copy an example's job file and data into a folder; returns the new files.

    Raises UsageError for an unknown example and ConflictError where a file is there already (nothing is
    written then).
    """
    if example not in STARTERS:
        near = difflib.get_close_matches(example, STARTERS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose one of: {', '.join(STARTERS)}."
        raise UsageError(f"There is no example {example!r}.", hint=hint)
    examples = jobs_folder() / "examples"
    files = (path for path in sorted((examples / example).iterdir()) if path.is_file())
    names = [
        f"{example}.yaml",
        *(f"{example}/{path.name}" for path in files if not path.name.endswith(_NO_DATA)),
    ]
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise ConflictError(
            f"{folder / taken[0]} is there already.", hint="Choose another folder: maas init FOLDER"
        )
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(examples / name, unfinished)
        unfinished.replace(target)
    return [folder / name for name in names]
