"""The openai route: tuning by the OpenAI v1 API of a Foundry resource, deployments by Resource Manager."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maas_client.backend import Platform
    from maas_client.backends.foundry.openai_v1.account import Account
    from maas_client.settings import Settings


def is_configured(settings: Settings) -> bool:
    """Whether the settings name a Foundry resource or project."""
    return bool(settings.azure_openai_endpoint or settings.foundry_project_endpoint)


def open_route(settings: Settings, home: Path, clock: Callable[[], float]) -> Platform:
    """Runs, models and endpoints of the resource. Sends nothing; `home` is Foundry's folder."""
    from maas_client.backend import Platform
    from maas_client.backends.foundry.openai_v1.account import find_resource, open_account
    from maas_client.backends.foundry.openai_v1.endpoints import OpenAIEndpoints
    from maas_client.backends.foundry.openai_v1.jobs import OpenAIJobs
    from maas_client.backends.foundry.openai_v1.models import OpenAIModels

    @cache
    def account() -> Account:
        return open_account(settings, clock=clock)

    folder = home / "openai"
    models = OpenAIModels(folder, clock=clock)
    endpoints = OpenAIEndpoints(account, models, folder, clock=clock)
    jobs = OpenAIJobs(settings, account, folder, clock=clock)
    return Platform("foundry", jobs, models, endpoints, targets=lambda: (str(find_resource(settings)),))
