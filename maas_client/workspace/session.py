"""The workspace of a command: who signs, where it is, what it is; each learned when first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from maas_client.errors import AccessDeniedError, PlanError, ServiceError
from maas_client.transport.cloud import open_arm, open_cloud
from maas_client.transport.credential import open_credential
from maas_client.transport.members import mapping_at, text_at
from maas_client.transport.redaction import shown_url
from maas_client.transport.rest import Rest
from maas_client.transport.sdkfailures import sdk_calls
from maas_client.transport.trust import is_loopback, parts_of
from maas_client.transport.workspace import Workspace as MlWorkspace
from maas_client.transport.workspace import find_target

if TYPE_CHECKING:
    import httpx

    from maas_client.settings import Settings
    from maas_client.transport.cloud import Cloud
    from maas_client.transport.credential import AzureCredential
    from maas_client.transport.workspace import Target

API_VERSION = "2024-10-01-preview"
"""The api-version that shows every kind of workspace and both ways of listing a datastore's secrets."""
T = TypeVar("T")
_UNAUTHORIZED = 401
_DISCOVERY = "find the workspace's data plane"
_PACKAGES = ("azure.identity", "azure.ai.ml", "azure.storage.blob")


@dataclass(frozen=True)
class WorkspaceFacts:
    """What Azure says about the workspace.

    `kind` is Default, Hub, Project or FeatureStore; `guid` its id in asset URIs; `storage_account_id` and
    `container_registry_id` are ARM ids, the latter None until the first image is built; `principal_id` is the
    object id of its own identity, None where it has only identities that were assigned to it;
    `public_network_access` is Enabled or Disabled.
    """

    location: str
    kind: str
    guid: str
    discovery_url: str
    storage_account_id: str
    container_registry_id: str | None
    tags: Mapping[str, str]
    principal_id: str | None = None
    public_network_access: str = "Enabled"


class Workspace:
    """One Azure ML workspace. Making it sends nothing: `cloud`, `facts`, `api` and `client` each ask Azure
    once, when they are first used, and raise ServiceError where that fails.

    `find_cloud` tells which Azure it is; `transport` replaces the network of `arm` and `api`.
    """

    def __init__(
        self,
        target: Target,
        credential: AzureCredential,
        find_cloud: Callable[[], Cloud],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.target = target
        self.credential = credential
        self.clock = clock
        self.sleep = sleep
        self._find_cloud = find_cloud
        self._transport = transport

    def __repr__(self) -> str:
        return f"Workspace({self.target})"

    def path(self, *parts: str) -> str:
        """The path of something in the workspace, for `arm`: path("jobs", name)."""
        return "/".join([self.target.path, *(quote(part, safe="") for part in parts)])

    @cached_property
    def cloud(self) -> Cloud:
        """Which Azure it is in. Asks ARM_CLOUD_METADATA_URL where that is set."""
        return self._find_cloud()

    @cached_property
    def arm(self) -> Rest:
        """Azure Resource Manager."""
        return open_arm(
            self.cloud, self.credential, clock=self.clock, sleep=self.sleep, transport=self._transport
        )

    @cached_property
    def facts(self) -> WorkspaceFacts:
        """Location, kind and neighbors of the workspace. Raises NotFoundError where it does not exist."""
        query, operation = {"api-version": API_VERSION}, f"look at {self.target}"
        return _read_facts(self.arm.get(self.path(), params=query, operation=operation).mapping)

    @cached_property
    def api(self) -> Rest:
        """The data plane of the workspace's region: run history, metrics, assets. Signs as `arm` does."""
        return self.data_plane(self._find_api())

    def data_plane(self, address: str) -> Rest:
        """A service of Azure ML at another address, such as a registry's; it sees the same tokens.

        Raises ServiceError for an address that may not see them: one without TLS that is not on this machine.
        """
        return Rest(
            self._safe(address),
            self.credential,
            self.cloud.arm_scope,
            clock=self.clock,
            sleep=self.sleep,
            transport=self._transport,
        )

    @cached_property
    def client(self) -> Any:
        """azure-ai-ml's MLClient, imported when first used. `with_client` turns what it raises into ours."""
        return MlWorkspace(self.target, self.credential, self.cloud).client

    def with_client(self, operation: str, do: Callable[[Any], T]) -> T:
        """Do something with azure-ai-ml; it keeps tokens that the service refuses, so then once more with new
        ones. What is done must be the same when it is done twice. Raises ServiceError.
        """
        try:
            with sdk_calls(operation):
                return do(self.client)
        except AccessDeniedError as error:
            if error.status != _UNAUTHORIZED:
                raise
        self.credential.forget()
        vars(self).pop("client", None)
        with sdk_calls(operation):
            return do(self.client)

    def _find_api(self) -> str:
        """Ask the discovery service, which wants no token, where the data plane is."""
        place = self._safe(self.facts.discovery_url)
        with Rest(place, clock=self.clock, sleep=self.sleep, transport=self._transport) as rest:
            return text_at(rest.get(place, operation=_DISCOVERY).mapping, "api")

    def _safe(self, address: str) -> str:
        """The address, where it is one that leads to the service and to nobody between."""
        parts = parts_of(address)
        is_local = self.cloud.is_loopback and is_loopback(address)
        if parts.hostname and (parts.scheme == "https" or is_local):
            return address
        shown = shown_url(address) or "nothing"
        raise ServiceError(
            f"Cannot {_DISCOVERY}: {shown} is no address that may see a token.",
            hint="Check the workspace in the Azure portal: its discovery address is wrong.",
            operation=_DISCOVERY,
            code="UnexpectedAnswer",
        )


def open_workspace(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    start: Path | None = None,
) -> Workspace:
    """The workspace of the settings, or of the nearest config.json from `start` upward. Sends nothing.

    Raises SettingsError that names what is missing, and PlanError where the Azure packages are not installed.
    """
    target = find_target(settings, start=start)
    _require_packages()
    return Workspace(
        target, open_credential(settings, clock=clock), lambda: open_cloud(settings), clock=clock, sleep=sleep
    )


def _require_packages() -> None:
    missing = [package for package in _PACKAGES if not _is_installed(package)]
    if missing:
        names = ", ".join(package.replace(".", "-") for package in missing)
        raise PlanError(
            f"Azure needs packages that are not installed: {names}.", hint="pip install 'maas-client[azure]'"
        )


def _is_installed(package: str) -> bool:
    """Whether a package below a namespace is there; imports nothing, not even the namespace."""
    places: list[str] | None = None
    for part in package.split("."):  # part by part: a dotted name would need its parents imported
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return False
        places = list(spec.submodule_search_locations or ())
    return True


def _read_facts(body: Mapping[str, Any]) -> WorkspaceFacts:
    properties = mapping_at(body, "properties")
    return WorkspaceFacts(
        location=text_at(body, "location"),
        kind=text_at(body, "kind") or "Default",
        guid=text_at(properties, "workspaceId"),
        discovery_url=text_at(properties, "discoveryUrl"),
        storage_account_id=text_at(properties, "storageAccount"),
        container_registry_id=text_at(properties, "containerRegistry") or None,
        tags=mapping_at(body, "tags"),
        principal_id=text_at(body, "identity", "principalId") or None,
        public_network_access=text_at(properties, "publicNetworkAccess") or "Enabled",
    )
