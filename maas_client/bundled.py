"""Where the files that travel with the package lie: the job scripts and the tiny model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent


def _bundled(name: str) -> Path:
    """The folder `name` inside an installed wheel, else at the root of a checkout."""
    inside = PACKAGE / "_bundled" / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def jobs_folder() -> Path:
    """The folder of the bundled scripts (train.py, evaluate.py, merge.py, serve.py and their parts)."""
    return _bundled("jobs")


def model_folder(name: str) -> Path | None:
    """The folder of a model that ships with the package (`tiny-phi3`), or None."""
    if "/" in name or "\\" in name or name in {"", ".", ".."}:
        return None
    folder = _bundled("models") / name
    return folder if (folder / "config.json").is_file() else None


def tuning_module(name: str) -> ModuleType:
    """Import `tuning.<name>` from the bundled scripts: client and script share one reading of the data.

    The scripts never import maas_client, so the client comes to them: their folder is put on sys.path once.
    """
    folder = str(jobs_folder())
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"tuning.{name}")
