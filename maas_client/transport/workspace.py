"""The workspace that commands work on, and azure-ai-ml opened for it when it is first used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.errors import SettingsError
from maas_client.transport.redaction import quiet_sdk_logs
from maas_client.transport.sdkfailures import sdk_calls

if TYPE_CHECKING:
    from maas_client.settings import Settings
    from maas_client.transport.cloud import Cloud
    from maas_client.transport.credential import AzureCredential

_CONFIG_PLACES = ("config.json", ".azureml/config.json", "aml_config/config.json")
_CONFIG_KEYS = ("subscription_id", "resource_group", "workspace_name")
_VARIABLES = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME")


@dataclass(frozen=True)
class Target:
    """The workspace that a command reads or changes. Plans are pinned to it; changes print it."""

    subscription_id: str
    resource_group: str
    workspace: str

    def __str__(self) -> str:
        return f"workspace {self.workspace} in {self.resource_group}, subscription {self.subscription_id}"

    @property
    def path(self) -> str:
        """The workspace's path in Azure Resource Manager, which is also its id."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
        )


def find_target(settings: Settings, *, start: Path | None = None) -> Target:
    """The workspace of the environment and .env; what they leave out comes from Azure ML's config.json.

    That file is looked for as Azure ML does: in `start` (default: the working directory) and upward. Raises
    SettingsError that names what is missing.
    """
    named = (settings.azure_subscription_id, settings.azure_resource_group, settings.azureml_workspace_name)
    filed = ("", "", "") if all(named) else _from_file(start or Path.cwd())
    found = tuple(name or file for name, file in zip(named, filed, strict=True))
    missing = [variable for variable, value in zip(_VARIABLES, found, strict=True) if not value]
    if missing:
        raise SettingsError(
            f"The Azure ML workspace is not set: {', '.join(missing)}.",
            hint="Set it in the environment or in .env, or save the workspace's config.json here.",
        )
    return Target(*found)


def _from_file(start: Path) -> tuple[str, str, str]:
    """What the nearest config.json says, as (subscription, resource group, workspace); "" where none does."""
    for place in _config_files(start.absolute()):
        try:
            read = json.loads(place.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(read, dict) and all(isinstance(read.get(key), str) for key in _CONFIG_KEYS):
            return read["subscription_id"], read["resource_group"], read["workspace_name"]
    return "", "", ""


def _config_files(start: Path) -> Iterator[Path]:
    for folder in (start, *start.parents):
        for place in _CONFIG_PLACES:
            if (folder / place).is_file():
                yield folder / place


class Workspace:
    """One workspace through azure-ai-ml, which is slow to import: that happens at the first `client`."""

    def __init__(self, target: Target, credential: AzureCredential, cloud: Cloud) -> None:
        self.target = target
        self._credential = credential
        self._cloud = cloud

    @cached_property
    def client(self) -> Any:
        """The MLClient. Use it inside `sdk_calls(...)`, which turns what it raises into errors.py."""
        with sdk_calls("open the workspace"):
            return _open_client(self.target, self._credential, self._cloud)


def _open_client(target: Target, credential: AzureCredential, cloud: Cloud) -> Any:
    from azure.ai.ml import MLClient

    quiet_sdk_logs()
    options: dict[str, Any] = {"show_progress": False, "enable_telemetry": False}
    if "ARM_CLOUD_METADATA_URL" not in os.environ and "AZUREML_CURRENT_CLOUD" not in os.environ:
        options |= _cloud_options(cloud)
    if cloud.is_loopback and cloud.resource_manager.startswith("http://"):
        options["per_call_policies"] = [_plain_http_policy()]
    return MLClient(
        credential.source,
        subscription_id=target.subscription_id,
        resource_group_name=target.resource_group,
        workspace_name=target.workspace,
        **options,
    )


def _cloud_options(cloud: Cloud) -> dict[str, Any]:
    """Names the cloud to the package, with its addresses where the package does not know it by itself."""
    from maas_client.transport.cloud import CLOUDS

    if CLOUDS.get(cloud.name) == cloud:
        return {"cloud": cloud.name}
    return {
        "cloud": f"{cloud.name}-{cloud.resource_manager.rpartition(':')[2]}",
        "cloud_metadata": {
            "azure_portal": f"{cloud.resource_manager}/",
            "resource_manager": f"{cloud.resource_manager}/",
            "active_directory": f"{cloud.login}/",
            "aml_resource_id": cloud.ml_resource,
            "storage_endpoint": cloud.storage_suffix,
            "registry_discovery_endpoint": f"{cloud.resource_manager}/",
        },
    }


def _plain_http_policy() -> Any:
    """Lets tokens go over http, which the package refuses; only for a cloud on this machine."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class PlainHttp(SansIOHTTPPolicy):  # type: ignore[misc,type-arg,unused-ignore]
        """Switches the check off, request by request."""

        def on_request(self, request: Any) -> None:
            request.context.options["enforce_https"] = False

    return PlainHttp()
