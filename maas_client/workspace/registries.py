"""Models in the registries that all workspaces share: the newest version of one, and what its tags say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from maas_client.errors import NotFoundError, RejectedError, ServiceError
from maas_client.transport.members import mapping_at, member, text_at
from maas_client.transport.redaction import shown_url
from maas_client.transport.rest import Rest
from maas_client.transport.trust import is_loopback, parts_of

if TYPE_CHECKING:
    from maas_client.workspace.session import Workspace

_API_VERSION = "2021-10-01-dataplanepreview"
_ID = re.compile(
    r"azureml://registries/(?P<registry>[^/]+)/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
)
_DISCOVERY = {
    "AzureCloud": "https://eastus.api.azureml.ms",
    "AzureUSGovernment": "https://usgovarizona.api.ml.azure.us",
    "AzureChinaCloud": "https://chinaeast2.api.ml.azure.cn",
}
"""Where each Azure tells the homes of its registries; others tell it on the workspace's own data plane."""


@dataclass(frozen=True)
class RegistryModel:
    """One version of a model in a registry; `id` is azureml://registries/R/models/M/versions/V."""

    id: str
    version: str
    tags: Mapping[str, str]
    properties: Mapping[str, str]


def find_registry_model(workspace: Workspace, model_id: str) -> RegistryModel:
    """The version that an id names, or the newest where it names none.

    Raises NotFoundError, and RejectedError for what is no id of a registry's model.
    """
    match = _ID.fullmatch(model_id)
    operation = f"look at {model_id}"
    if match is None:
        hint = "Write azureml://registries/REGISTRY/models/MODEL, with or without /versions/VERSION."
        raise RejectedError(f"{model_id} names no model of a registry.", hint=hint, operation=operation)
    registry, model, version = match["registry"], match["model"], match["version"]
    home, path = _find_home(workspace, registry)
    place = f"{path}/models/{quote(model)}/versions"
    params: dict[str, str | int | None] = {"api-version": _API_VERSION}
    if version is None:
        params |= {"$orderBy": "createdtime desc", "$top": 1}
    with home:
        answer = home.get(
            f"{place}/{quote(version)}" if version else place, params=params, operation=operation
        ).mapping
    rows = [answer] if version else member(answer, "value")
    if not isinstance(rows, list) or not rows or not text_at(rows[0], "name"):
        hint = "Look for its name in the model catalog of the Azure AI Foundry portal."
        raise NotFoundError(f"Registry {registry} has no model {model}.", hint=hint, operation=operation)
    return _read(registry, model, rows[0])


def _find_home(workspace: Workspace, registry: str) -> tuple[Rest, str]:
    """The service that lists a registry, and the registry's path there."""
    operation = f"find registry {registry}"
    discovery = _DISCOVERY.get(workspace.cloud.name)
    with workspace.data_plane(discovery) if discovery else workspace.api as start:
        place = start.get(
            f"/registrymanagement/v1.0/registries/{quote(registry)}/discovery", operation=operation
        ).mapping
    address = text_at(place, "primaryRegionResourceProviderUri").rstrip("/")
    is_safe = address.startswith("https://") or (workspace.cloud.is_loopback and is_loopback(address))
    if not (is_safe and parts_of(address).hostname):
        raise ServiceError(
            f"Cannot {operation}: {shown_url(address) or 'the answer'} is no address that may see a token.",
            operation=operation,
            code="UnexpectedAnswer",
        )
    path = (
        f"/mferp/managementfrontend/subscriptions/{text_at(place, 'subscriptionId')}"
        f"/resourceGroups/{text_at(place, 'resourceGroup')}/providers/Microsoft.MachineLearningServices"
        f"/registries/{quote(registry)}"
    )
    return workspace.data_plane(address), path


def _read(registry: str, model: str, row: Mapping[str, Any]) -> RegistryModel:
    version = text_at(row, "name")
    return RegistryModel(
        f"azureml://registries/{registry}/models/{model}/versions/{version}",
        version,
        mapping_at(row, "properties", "tags"),
        mapping_at(row, "properties", "properties"),
    )
