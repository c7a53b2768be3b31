"""Look at what jobs need: on this machine, and in Azure where the settings name something there.

The part about this machine imports nothing heavy and sends nothing; the part about Azure only reads.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from maas_client.bundled import jobs_folder, model_folder
from maas_client.check import Check
from maas_client.errors import MaasError, UsageError
from maas_client.project import Project

_AZURE_TIMEOUT_S = 15.0
_GIB = 1 << 30
_LOCAL_PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "starlette", "uvicorn")
_MIN_MEMORY_GIB, _MIN_DISK_GIB = 2.0, 1.0


def names_azure() -> bool:
    """Whether the settings name a workspace or a Foundry resource. Raises SettingsError for a wrong one."""
    from maas_client.settings import settings
    from maas_client.transport.workspace import find_target

    found = settings()
    if found.azure_openai_endpoint or found.foundry_project_endpoint:
        return True
    try:
        find_target(found)
    except UsageError:
        return False
    return True


def examine_azure(project: Project) -> list[Check]:
    """Every check of the workspace that the settings name, and of services on which endpoints may bill."""
    from maas_client.workspace.checks import ask_all

    services = [name for name in project.places.in_use() if project.places.is_service(name)]
    listings = {f"Endpoints on {name}": partial(_endpoints_on, project, name) for name in services}
    return [*_workspace_checks(), *ask_all(listings, timeout_s=_AZURE_TIMEOUT_S)]


def _workspace_checks() -> tuple[Check, ...]:
    from maas_client.settings import settings
    from maas_client.workspace import rights
    from maas_client.workspace.checks import Needs, check_needs
    from maas_client.workspace.session import open_workspace

    found = settings()
    try:
        workspace = open_workspace(found)
    except UsageError as error:
        is_elsewhere = bool(found.azure_openai_endpoint or found.foundry_project_endpoint)
        return () if is_elsewhere else (Check("Workspace", False, error.message, error.hint),)
    wanted = (
        *rights.RUN_JOBS,
        *rights.SEND_CODE,
        *rights.REGISTER_MODELS,
        *rights.SERVE_ONLINE,
        *rights.SERVE_SERVERLESS,
    )
    return check_needs(workspace, Needs(rights=wanted, pulls_image=True), timeout_s=_AZURE_TIMEOUT_S)


def _endpoints_on(project: Project, backend: str) -> tuple[Check, ...]:
    """How many endpoints a service lists, and how many of them bill."""
    name = f"Endpoints on {backend}"
    if project.platform(backend).endpoints is None:
        return ()
    listed = project.serving(backend).list()
    bills = sum(one.billing.value != "free" for one in listed)
    return (Check(name, True, f"{len(listed)}, of which {bills} bill or may bill"),)


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
    try:
        return Check("Ledger", True, f"runs: {len(project.runs())}, in {project.ledger.path}")
    except MaasError as error:
        return Check("Ledger", False, error.message, error.hint)
