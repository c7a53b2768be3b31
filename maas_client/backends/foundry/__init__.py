"""Azure AI Foundry as a backend: the service trains, serves and bills; two routes behind one face."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maas_client.backend import Platform


def open_here(home: Path, clock: Callable[[], float]) -> Platform:
    """Runs, models and endpoints of the routes that the settings name. Sends nothing and reads no setting."""
    from maas_client.backend import Platform
    from maas_client.backends.foundry.dispatch import FoundryEndpoints, FoundryJobs, FoundryModels
    from maas_client.backends.foundry.memory import Memory
    from maas_client.backends.foundry.routing import Routes

    folder = home.absolute() / "foundry"
    routes, memory = Routes(folder, clock), Memory(folder)
    models = FoundryModels(routes, memory)
    endpoints = FoundryEndpoints(routes, memory, models)
    jobs = FoundryJobs(routes, memory, clock)
    return Platform("foundry", jobs, models, endpoints, targets=routes.targets)
