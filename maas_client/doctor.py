"""Look at this machine: what a job needs and whether it is there. Imports nothing heavy, sends nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from maas_client.bundled import jobs_folder, model_folder
from maas_client.check import Check
from maas_client.project import Project

_GIB = 1 << 30
_LOCAL_PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "starlette", "uvicorn")
_MIN_MEMORY_GIB, _MIN_DISK_GIB = 2.0, 1.0


def examine(project: Project) -> list[Check]:
    """Every check of this machine and this project, in the order in which to mend them."""
    return [
        _python(),
        *_packages(),
        _memory(),
        _disk(project.home),
        _home(project.home),
        _bundled(),
        _ledger(project),
    ]


def _python() -> Check:
    detail = f"{platform.python_version()} at {sys.executable}, {os.cpu_count()} cores"
    return Check("Python", sys.version_info >= (3, 11), detail, "Use Python 3.11 or newer.")


def _packages() -> Iterator[Check]:
    """What the bundled scripts import; versions are read from metadata, so that torch need not load."""
    for name in _LOCAL_PACKAGES:
        try:
            yield Check(name, True, version(name))
        except PackageNotFoundError:
            yield Check(name, False, "not installed", "pip install 'maas-client[local]'")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / _GIB
    return Check("Memory", free >= _MIN_MEMORY_GIB, f"{free:.1f} GiB free", "Close other programs.")


def _disk(home: Path) -> Check:
    place = _there(home)
    free = shutil.disk_usage(place).free / _GIB
    return Check("Disk", free >= _MIN_DISK_GIB, f"{free:.1f} GiB free at {place}", "Free some space.")


def _home(home: Path) -> Check:
    may_write = os.access(_there(home), os.W_OK)
    return Check("Home", may_write, str(home), "Set MAAS_HOME to a folder that can be written.")


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def _bundled() -> Check:
    there = (jobs_folder() / "train.py").is_file() and model_folder("tiny-phi3") is not None
    return Check("Bundled scripts", there, str(jobs_folder()), "Install maas-client again.")


def _ledger(project: Project) -> Check:
    if not project.ledger.path.exists():
        return Check("Ledger", True, "none yet")
    from maas_client.errors import ServiceError

    try:
        return Check("Ledger", True, f"runs: {len(project.runs())}, in {project.ledger.path}")
    except ServiceError as error:
        return Check("Ledger", False, error.message, error.hint)
