"""Managed online endpoints and deployments at Azure Resource Manager, as values: its JSON stops here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maas_client.backends.azureml.lease import TAG_MODEL
from maas_client.errors import AccessDeniedError, NotFoundError
from maas_client.transport.errorwords import error_words
from maas_client.transport.members import as_number, mapping_at, number_at, text_at, time_at

if TYPE_CHECKING:
    from maas_client.transport.operations import Operation
    from maas_client.workspace.session import Workspace

API_VERSION = "2024-10-01"
_VERSION = {"api-version": API_VERSION}
_BUSY = {"creating", "updating", "deleting", "scaling"}
_FAILED = {"failed", "canceled"}
_OPERATION = "AzureAsyncOperationUri"
_NO_WORKSPACE = {
    "SubscriptionNotFound",
    "ResourceGroupNotFound",
    "ParentResourceNotFound",
    "InvalidSubscriptionId",
}


@dataclass(frozen=True)
class _Provisioned:
    """What endpoints and deployments have in common. `native_state` is Azure's own word."""

    name: str
    native_state: str
    tags: Mapping[str, str]
    changed_at: float | None
    operation_url: str = field(repr=False)

    @property
    def is_busy(self) -> bool:
        """True while Azure works on it and refuses every change; never for a word that nobody knows."""
        return self.native_state.lower() in _BUSY

    @property
    def is_going(self) -> bool:
        """True while it is being deleted."""
        return self.native_state.lower() == "deleting"

    @property
    def has_failed(self) -> bool:
        """True where the last operation on it failed or was canceled."""
        return self.native_state.lower() in _FAILED

    @property
    def is_up(self) -> bool:
        """True where Azure calls it succeeded; whether it answers is another question."""
        return self.native_state.lower() == "succeeded"

    @property
    def model(self) -> str:
        """The model that maas put there, written name:version; "" where maas did not make it."""
        return self.tags.get(TAG_MODEL, "")


@dataclass(frozen=True)
class Deployment(_Provisioned):
    """One deployment: `instances` machines of `size`."""

    size: str
    instances: int


@dataclass(frozen=True)
class Endpoint(_Provisioned):
    """One endpoint. `traffic` is in percent, without zeros; `body` is what Azure showed."""

    scoring_url: str
    traffic: Mapping[str, int]
    body: Mapping[str, Any] = field(repr=False)

    def again(self, *, traffic: Mapping[str, int], tags: Mapping[str, str]) -> dict[str, Any]:
        """The body that puts the endpoint as it was seen, but for its traffic and tags."""
        shown = mapping_at(self.body, "properties")
        kept = ("authMode", "description", "publicNetworkAccess", "mirrorTraffic", "compute")
        own = {name: value for name, value in mapping_at(shown, "properties").items() if name != _OPERATION}
        properties = {name: shown[name] for name in kept if shown.get(name) is not None}
        properties |= {"properties": own, "traffic": dict(traffic)}
        identity = mapping_at(self.body, "identity")
        users: dict[str, Any] = {name: {} for name in mapping_at(identity, "userAssignedIdentities")}
        return {
            "location": text_at(self.body, "location"),
            "identity": {
                "type": text_at(identity, "type") or "SystemAssigned",
                **({"userAssignedIdentities": users} if users else {}),
            },
            "tags": {**self.tags, **tags},
            "properties": properties,
        }


class Online:
    """The endpoints of a workspace. Every call is one request (a list may be several); none waits."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    # -- endpoints

    def endpoint(self, name: str) -> Endpoint | None:
        """Look at an endpoint; None where there is none. Raises NotFoundError for the workspace itself."""
        try:
            answer = self._workspace.arm.get(
                self._path(name), params=_VERSION, operation=f"get endpoint {name}"
            )
        except NotFoundError as error:
            if error.code in _NO_WORKSPACE or (
                error.code == "ResourceNotFound" and "/onlineendpoints/" not in error.message.lower()
            ):
                raise
            return None
        return read_endpoint(answer.mapping)

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint of the workspace, page by page."""
        path = self._workspace.path("onlineEndpoints")
        for body in self._workspace.arm.paging(path, params=_VERSION, operation="list endpoints"):
            yield read_endpoint(body)

    def put_endpoint(self, name: str, body: Mapping[str, Any], *, operation: str) -> Operation:
        """Begin to make or change an endpoint."""
        return self._workspace.arm.begin(
            "PUT", self._path(name), dict(body), params=_VERSION, operation=operation
        )

    def tag_endpoint(self, name: str, tags: Mapping[str, str]) -> None:
        """Set tags and leave everything else alone; may be repeated."""
        self._workspace.arm.patch(
            self._path(name),
            {"tags": dict(tags)},
            params=_VERSION,
            operation=f"tag endpoint {name}",
            idempotent=True,
        )

    def delete_endpoint(self, name: str) -> None:
        """Begin to delete an endpoint with its deployments; may be repeated."""
        operation = f"delete endpoint {name}"
        self._workspace.arm.delete(self._path(name), params=_VERSION, operation=operation)

    def key(self, name: str) -> str:
        """The endpoint's first key. Raises AccessDeniedError where it has none for this caller."""
        operation = f"get the key of endpoint {name}"
        answer = self._workspace.arm.post(
            self._path(name, "listKeys"), params=_VERSION, operation=operation, idempotent=True
        )
        if key := text_at(answer.mapping, "primaryKey"):
            return key
        raise AccessDeniedError(
            f"Endpoint {name} has no keys: it takes tokens of Microsoft Entra.",
            hint=f"Delete it and deploy again: maas endpoints delete {name}",
            operation=operation,
        )

    # -- deployments

    def deployments(self, endpoint: str) -> tuple[Deployment, ...]:
        """Every deployment of an endpoint; none where the endpoint has gone meanwhile."""
        path, operation = self._path(endpoint, "deployments"), f"list deployments of {endpoint}"
        try:
            found = self._workspace.arm.paging(path, params=_VERSION, operation=operation)
            return tuple(read_deployment(body) for body in found)
        except NotFoundError:
            return ()

    def put_deployment(self, endpoint: str, name: str, body: Mapping[str, Any]) -> None:
        """Begin to make a deployment."""
        path, operation = self._path(endpoint, "deployments", name), f"deploy {endpoint}/{name}"
        self._workspace.arm.put(path, dict(body), params=_VERSION, operation=operation)

    def scale(self, endpoint: str, name: str, instances: int) -> None:
        """Begin to give a deployment another number of machines; may be repeated."""
        self._workspace.arm.patch(
            self._path(endpoint, "deployments", name),
            {"sku": {"name": "Default", "capacity": instances}},
            params=_VERSION,
            operation=f"scale {endpoint}/{name}",
            idempotent=True,
        )

    def delete_deployment(self, endpoint: str, name: str) -> None:
        """Begin to delete a deployment, which must get no requests; may be repeated."""
        path, operation = self._path(endpoint, "deployments", name), f"delete {endpoint}/{name}"
        self._workspace.arm.delete(path, params=_VERSION, operation=operation)

    def log(self, endpoint: str, name: str, *, lines: int) -> tuple[str, ...]:
        """The last lines that a deployment's container wrote."""
        answer = self._workspace.arm.post(
            self._path(endpoint, "deployments", name, "getLogs"),
            {"tail": lines, "containerType": "InferenceServer"},
            params=_VERSION,
            operation=f"get the log of {endpoint}/{name}",
            idempotent=True,
        )
        return tuple(text_at(answer.mapping, "content").splitlines()[-lines:])

    def failure(self, failed: Endpoint | Deployment) -> str:
        """Why the last operation failed, in Azure's words; "" where it does not say."""
        if not failed.operation_url:
            return ""
        answer = self._workspace.arm.get(failed.operation_url, operation=f"look at {failed.name}")
        if not mapping_at(answer.body, "error"):
            return ""
        words = error_words(answer.body)
        return ": ".join(part for part in (words.code, words.message.rstrip(". ")) if part)

    def _path(self, name: str, *rest: str) -> str:
        return self._workspace.path("onlineEndpoints", name, *rest)


def read_endpoint(body: Mapping[str, Any]) -> Endpoint:
    """An endpoint as Azure shows it."""
    shares = mapping_at(body, "properties", "traffic")
    return Endpoint(
        **_provisioned(body),
        scoring_url=text_at(body, "properties", "scoringUri"),
        traffic={name: int(share) for name, each in shares.items() if (share := as_number(each))},
        body=body,
    )


def read_deployment(body: Mapping[str, Any]) -> Deployment:
    """A deployment as Azure shows it."""
    capacity = number_at(body, "sku", "capacity")
    return Deployment(
        **_provisioned(body),
        size=text_at(body, "properties", "instanceType"),
        instances=1 if capacity is None else int(capacity),
    )


def _provisioned(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": text_at(body, "name"),
        "native_state": text_at(body, "properties", "provisioningState") or "Unknown",
        "tags": {name: str(value) for name, value in mapping_at(body, "tags").items()},
        "changed_at": time_at(body, "systemData", "lastModifiedAt")
        or time_at(body, "systemData", "createdAt"),
        "operation_url": text_at(body, "properties", "properties", _OPERATION),
    }
