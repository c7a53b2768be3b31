"""This machine as a backend: runs and endpoints are detached processes, and folders keep what is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maas_client.backend import Platform


def open_here(home: Path, clock: Callable[[], float]) -> Platform:
    """Runs, models and endpoints under `home`. Imports late: the supervisor passes here too."""
    from maas_client.backend import Platform
    from maas_client.backends.local.endpoints import LocalEndpoints
    from maas_client.backends.local.jobs import LocalJobs
    from maas_client.backends.local.models import LocalModels

    home = home.absolute()
    models = LocalModels(home, clock=clock)
    endpoints = LocalEndpoints(home, models=models, clock=clock)
    return Platform(name="local", jobs=LocalJobs(home, clock=clock), models=models, endpoints=endpoints)
