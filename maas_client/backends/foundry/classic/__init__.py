"""The classic route: FineTuning jobs and serverless endpoints of a hub-based project or workspace."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import SettingsError

if TYPE_CHECKING:
    from maas_client.backend import Platform
    from maas_client.settings import Settings
    from maas_client.workspace.session import Workspace


def is_configured(settings: Settings) -> bool:
    """Whether the settings, or a config.json from here upward, name a workspace."""
    from maas_client.transport.workspace import find_target

    try:
        find_target(settings)
    except SettingsError:
        return False
    return True


def open_route(settings: Settings, home: Path, clock: Callable[[], float]) -> Platform:
    """Runs, models and endpoints of the workspace. Sends nothing; `home` is Foundry's folder.

    The workspace opens when it is first needed: a plan needs neither it nor the packages of Azure.
    """
    from maas_client.backend import Platform
    from maas_client.backends.foundry.classic.endpoints import ClassicEndpoints
    from maas_client.backends.foundry.classic.jobs import ClassicJobs
    from maas_client.backends.foundry.classic.models import ClassicModels
    from maas_client.transport.workspace import find_target

    @cache
    def workspace() -> Workspace:
        from maas_client.workspace.session import open_workspace

        return open_workspace(settings, clock=clock)

    models = ClassicModels(workspace)
    endpoints = ClassicEndpoints(workspace, models, location=settings.azure_location)
    jobs = ClassicJobs(settings, home, workspace=workspace, clock=clock)
    return Platform("foundry", jobs, models, endpoints, targets=lambda: (str(find_target(settings)),))
