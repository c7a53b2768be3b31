"""An Azure ML workspace as a backend: command jobs, the model registry, managed online endpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maas_client.backend import Platform
    from maas_client.transport.workspace import Target
    from maas_client.workspace.session import Workspace


def open_here(home: Path, clock: Callable[[], float]) -> Platform:
    """The workspace of the settings. Nothing is asked before it is needed; plans ask nothing at all."""
    from maas_client.backend import Platform
    from maas_client.backends.azureml.endpoints import AzuremlEndpoints
    from maas_client.backends.azureml.jobs import AzuremlJobs
    from maas_client.workspace.models import WorkspaceModels

    home = home.absolute()

    @cache
    def workspace() -> Workspace:
        from maas_client.settings import settings
        from maas_client.workspace.session import open_workspace

        return open_workspace(settings())

    jobs = AzuremlJobs(home, target=_target, workspace=workspace, clock=clock)
    models = WorkspaceModels(workspace)
    endpoints = AzuremlEndpoints(home, workspace=workspace, models=models, clock=clock)
    return Platform("azureml", jobs, models, endpoints, targets=lambda: (str(_target()),))


def _target() -> Target:
    """The workspace that the settings name. Raises SettingsError."""
    from maas_client.settings import settings
    from maas_client.transport.workspace import find_target

    return find_target(settings())
