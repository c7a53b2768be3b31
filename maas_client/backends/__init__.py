"""The places that can run jobs, opened by name; a place is imported when it is opened."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import PlanError

if TYPE_CHECKING:
    from maas_client.backend import Platform

_MODULES = {
    "local": "maas_client.backends.local",
    "azureml": "maas_client.backends.azureml",
    "foundry": "maas_client.backends.foundry",
}
INSTALLED = tuple(_MODULES)
"""The backends that are part of this installation."""
KNOWN = ("local", "azureml", "foundry", "kaito")
"""The names that a job file may give."""


def open_platform(name: str, *, home: Path, clock: Callable[[], float] = time.time) -> Platform:
    """Open the backend `name`, which keeps its own records under `home` (a project's `.maas` folder).

    Touches nothing on disk. Raises PlanError for a backend that is unknown or not part of this installation.
    """
    module = _MODULES.get(name)
    if module is None:
        known = name in KNOWN
        what = "is not part of this installation" if known else f"is unknown; known are {', '.join(KNOWN)}"
        raise PlanError(f"Backend {name!r} {what}.", hint="Use backend: local.")
    platform: Platform = importlib.import_module(module).open_here(home, clock)
    return platform
