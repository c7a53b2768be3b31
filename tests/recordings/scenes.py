"""Where a journey happens: in a simulator, in a real subscription, or in a cassette; and its own clock.

The clock moves only when the journey sleeps. So a journey that is played goes through the same moments as
when it was recorded, and asks the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.core.credentials import AccessToken

from maas_client.backend import Platform
from maas_client.backends.azureml.endpoints import AzuremlEndpoints
from maas_client.backends.azureml.environment import bundled_environment
from maas_client.backends.azureml.jobs import AzuremlJobs
from maas_client.backends.azureml.serving import BundledAssets
from maas_client.backends.foundry.classic.endpoints import ClassicEndpoints
from maas_client.backends.foundry.classic.jobs import ClassicJobs
from maas_client.backends.foundry.classic.models import ClassicModels
from maas_client.backends.foundry.openai_v1.account import Account, find_resource
from maas_client.backends.foundry.openai_v1.endpoints import OpenAIEndpoints
from maas_client.backends.foundry.openai_v1.jobs import OpenAIJobs
from maas_client.backends.foundry.openai_v1.models import OpenAIModels
from maas_client.plan import Plan
from maas_client.project import Project
from maas_client.settings import Settings
from maas_client.simulator.metadata import CLOUD, ML_AUDIENCE, STORAGE_SUFFIX
from maas_client.transport.cloud import PUBLIC, Cloud
from maas_client.transport.credential import AzureCredential
from maas_client.transport.workspace import Target
from maas_client.workspace.files import Files
from maas_client.workspace.models import WorkspaceModels
from maas_client.workspace.session import Workspace

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TENANT = "00000000-0000-0000-0000-000000000002"
GROUP, WORKSPACE, ACCOUNT = "resource-group", "workspace", "account"
"""What a cassette calls the subscription and what is in it."""
LOOPBACK = "https://localhost:1"
"""What a cassette calls the simulator."""


class JourneyClock:
    """Unix seconds that pass when `sleep` is called. `wait` really lets time pass, where there is any."""

    def __init__(self, began: float, wait: Callable[[float], object] = lambda _: None) -> None:
        self._now = began
        self._wait = wait

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self._wait(seconds)


@dataclass(frozen=True)
class Where:
    """An Azure: its cloud, what the settings name in it, who signs in. `pace`: real seconds a second."""

    cloud: Cloud
    settings: Settings
    source: Callable[[], Any]
    pace: float = 0.0

    @property
    def target(self) -> Target:
        return Target(
            str(self.settings.azure_subscription_id),
            str(self.settings.azure_resource_group),
            str(self.settings.azureml_workspace_name),
        )

    def names(self) -> dict[str, str]:
        """What the settings name, and what a cassette calls it."""
        settings = self.settings
        found = {
            settings.azure_subscription_id: SUBSCRIPTION,
            settings.azure_tenant_id: TENANT,
            settings.azure_resource_group: GROUP,
            settings.azureml_workspace_name: WORKSPACE,
        }
        if settings.azure_openai_endpoint and not self.cloud.is_loopback:
            found[find_resource(settings).name] = ACCOUNT
        return {name: fake for name, fake in found.items() if name}

    def secrets(self) -> list[str]:
        """Secrets of the settings."""
        held = (self.settings.azure_openai_api_key, self.settings.azure_client_secret)
        return [secret.get_secret_value() for secret in held if secret]

    def about(self) -> dict[str, Any]:
        """What must be known to play what was recorded here."""
        region = self.settings.azure_location or ""
        return {"cloud": CLOUD if self.cloud.is_loopback else self.cloud.name, "region": region}


class StoredToken:
    """Signs in where nobody looks at the token."""

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken("played", int(time.time()) + 86_400)


def in_cassette(about: Mapping[str, Any]) -> Where:
    """Where a cassette plays, by what was kept beside it."""
    is_simulated = about["cloud"] == CLOUD
    address = LOOPBACK if is_simulated else f"https://{ACCOUNT}.openai.azure.com"
    settings = Settings(
        _env_file=None,
        azure_subscription_id=SUBSCRIPTION,
        azure_tenant_id=TENANT,
        azure_resource_group=GROUP,
        azureml_workspace_name=WORKSPACE,
        azure_location=about["region"] or None,
        azure_openai_endpoint=address,
    )
    return Where(simulated_cloud(LOOPBACK) if is_simulated else PUBLIC, settings, StoredToken)


def simulated_cloud(url: str) -> Cloud:
    """The cloud of a simulator at `url`."""
    return Cloud(CLOUD, url, url, STORAGE_SUFFIX, ML_AUDIENCE)


@dataclass
class Scene:
    """A project of its own in a folder, in front of an Azure. `began` is when the journey begins."""

    where: Where
    folder: Path
    began: float
    clock: JourneyClock = field(init=False)

    def __post_init__(self) -> None:
        random.seed(7)  # pauses between tries have a part of chance
        pace = self.where.pace
        self.clock = JourneyClock(self.began, lambda seconds: time.sleep(seconds * pace) if pace else None)
        self.folder.mkdir(parents=True, exist_ok=True)

    def project(self, platform: Platform) -> Project:
        """A project that knows this platform."""
        return Project(self.folder / "home", clock=self.clock.now, platforms={platform.name: platform})

    def write(self, name: str, text: str) -> Path:
        """A file in the scene's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    # -- the platforms, over the clock and the Azure of the scene

    def workspace(self) -> Workspace:
        where = self.where
        return Workspace(
            where.target,
            AzureCredential(open_source=where.source),
            lambda: where.cloud,
            clock=self.clock.now,
            sleep=self.clock.sleep,
        )

    def azureml(self, scoring: Path) -> Platform:
        """The azureml backend, whose deployments have the scripts of `scoring`."""
        workspace, home = self.workspace(), self.folder / "home"
        jobs = AzuremlJobs(
            home, target=lambda: workspace.target, workspace=lambda: workspace, clock=self.clock.now
        )
        models = WorkspaceModels(lambda: workspace)
        endpoints = AzuremlEndpoints(
            home,
            workspace=lambda: workspace,
            models=models,
            clock=self.clock.now,
            assets=lambda: BundledAssets(workspace, Files(workspace), code=scoring),
        )
        return Platform("azureml", jobs, models, endpoints, targets=lambda: (str(workspace.target),))

    def classic(self) -> Platform:
        """The classic route of Foundry."""
        workspace, home = self.workspace(), self.folder / "home" / "foundry"
        models = ClassicModels(lambda: workspace)
        endpoints = ClassicEndpoints(lambda: workspace, models, location=self.where.settings.azure_location)
        jobs = ClassicJobs(self.where.settings, home, workspace=lambda: workspace, clock=self.clock.now)
        return Platform("foundry", jobs, models, endpoints, targets=lambda: (str(workspace.target),))

    def openai(self) -> Platform:
        """The openai route of Foundry."""
        where, folder = self.where, self.folder / "home" / "foundry" / "openai"
        resource, key = find_resource(where.settings), where.settings.azure_openai_api_key
        account = Account(
            resource,
            AzureCredential(open_source=where.source),
            lambda: where.cloud,
            key=key.get_secret_value() if key else None,
            subscription=where.settings.azure_subscription_id,
            group=where.settings.azure_resource_group,
            clock=self.clock.now,
            sleep=self.clock.sleep,
        )
        models = OpenAIModels(folder, clock=self.clock.now)
        endpoints = OpenAIEndpoints(lambda: account, models, folder, clock=self.clock.now)
        jobs = OpenAIJobs(where.settings, lambda: account, folder, clock=self.clock.now)
        return Platform("foundry", jobs, models, endpoints, targets=lambda: (str(resource),))


def own_values(plan: Plan) -> dict[str, str]:
    """What in the requests of a plan follows from our own files, and what a cassette calls it."""
    own = {digest.removeprefix("sha256:"): f"<sha256 of {name}>" for name, digest in plan.hashes.items()}
    own |= {plan.run_id: "<run>", plan.fingerprint: "<fingerprint>"}
    own |= {plan.run_id.rpartition("-")[0]: "<run without number>"}
    for purpose in ("training", "serving"):
        environment = bundled_environment(purpose)  # type: ignore[arg-type]
        own |= {environment.version: f"<version of {purpose}>", environment.image: f"<image of {purpose}>"}
    return own
