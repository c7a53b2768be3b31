"""Datastores: where their blobs are, what lets one in, and the azureml:// URIs that name a place in them."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maas_client.errors import AccessDeniedError, RejectedError, ServiceError, UsageError
from maas_client.transport.members import mapping_at, text_at
from maas_client.transport.trust import is_loopback, parts_of
from maas_client.workspace.session import API_VERSION

if TYPE_CHECKING:
    from maas_client.transport.workspace import Target
    from maas_client.workspace.session import Workspace

DEFAULT = "workspaceblobstore"
"""The datastore that every workspace has."""
_KINDS = {"accountkey": "AccountKey", "sas": "Sas"}
_SECRET_LIFE_S = 3600.0
_RENEWED_BEFORE_S = 600.0
_PLACE = re.compile(
    r"azureml://(?:subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)"
    r"/(?:providers/Microsoft\.MachineLearningServices/)?workspaces/(?P<workspace>[^/]+)/)?"
    r"datastores/(?P<datastore>[^/]+)(?:/paths(?:/(?P<path>.*))?)?",
    re.IGNORECASE | re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Place:
    """A file or folder in a datastore, written azureml://datastores/{datastore}/paths/{path}.

    `path` is the blob's name as it is, without percent signs for anything and without a slash before it; ""
    is the whole datastore. Raises UsageError for a name or path that no blob can have.
    """

    datastore: str
    path: str

    def __post_init__(self) -> None:
        steps = self.path.split("/")
        if not _NAME.fullmatch(self.datastore) or self.path.startswith("/") or {".", ".."} & set(steps):
            raise UsageError(f"{self!s} is no place in a datastore.", hint=_SHAPE_HINT)

    def __str__(self) -> str:
        return f"azureml://datastores/{self.datastore}/paths/{self.path}"


_SHAPE_HINT = "Write azureml://datastores/NAME/paths/PATH, without . and .. in the path."


def parse_place(uri: str, target: Target | None = None) -> Place:
    """The place that a URI names, in its short form or in the long one with subscription and workspace.

    Raises UsageError for another URI, and for a long one that names another workspace than `target`.
    """
    match = _PLACE.fullmatch(uri)
    if match is None:
        raise UsageError(f"{uri} names no place in a datastore.", hint=_SHAPE_HINT)
    named = (match["subscription"], match["group"], match["workspace"])
    if target is not None and named[0] is not None:
        here = (target.subscription_id, target.resource_group, target.workspace)
        if [part.lower() for part in named] != [part.lower() for part in here]:
            raise UsageError(
                f"{uri} is in another workspace than {target}.", hint="Copy it into this workspace first."
            )
    return Place(match["datastore"], match["path"] or "")


@dataclass(frozen=True)
class Datastore:
    """Blob storage behind a name. `account_url` is https://ACCOUNT.blob.SUFFIX, `kind` what lets one in:
    AccountKey, Sas, or None for the caller's own identity.
    """

    name: str
    account_url: str
    container: str
    kind: str


@dataclass(frozen=True, repr=False)
class Secret:
    """What a datastore keeps to let one in: an account key, or the query of a signed URL."""

    kind: str
    value: str

    def __repr__(self) -> str:
        return f"Secret(kind={self.kind!r})"


def get_datastore(workspace: Workspace, name: str = DEFAULT) -> Datastore:
    """Look at a datastore. Raises NotFoundError, and RejectedError where it is no blob storage."""
    operation = f"get datastore {name}"
    answer = workspace.arm.get(
        workspace.path("datastores", name), params={"api-version": API_VERSION}, operation=operation
    )
    properties = mapping_at(answer.mapping, "properties")
    kind = text_at(properties, "datastoreType") or "unknown"
    if kind.lower() != "azureblob":
        raise RejectedError(
            f"Cannot use datastore {name}: it is of type {kind}, not blob storage.",
            hint=f"Take another one, such as {DEFAULT}.",
            operation=operation,
            code="UnsupportedDatastore",
        )
    return Datastore(
        name,
        _account_url(properties, operation),
        text_at(properties, "containerName"),
        _KINDS.get(text_at(properties, "credentials", "credentialsType").lower(), "None"),
    )


def _account_url(properties: Mapping[str, Any], operation: str) -> str:
    """The account's URL. What follows a # in the account's name is no part of it: so an emulator of storage,
    which has no name in DNS, says where it is.
    """
    protocol, account = text_at(properties, "protocol") or "https", text_at(properties, "accountName")
    suffix = text_at(properties, "endpoint") or "core.windows.net"
    url = f"{protocol}://{account}.blob.{suffix}".partition("#")[0]
    if not (parts_of(url).scheme == "https" or is_loopback(url)):
        raise ServiceError(
            f"Cannot {operation}: its storage account is not reached over https.",
            operation=operation,
            code="UnexpectedAnswer",
        )
    return url


def ask_secret(workspace: Workspace, datastore: Datastore) -> Secret | None:
    """The datastore's secret, for an hour where it can expire. None: it has none, or none for this caller."""
    if datastore.kind not in {"AccountKey", "Sas"}:
        return None
    try:
        answer = workspace.arm.post(
            workspace.path("datastores", datastore.name, "listSecrets"),
            {"expirableSecret": True, "expireAfterHours": int(_SECRET_LIFE_S / 3600)},
            params={"api-version": API_VERSION},
            operation=f"get the secret of datastore {datastore.name}",
            idempotent=True,  # reads only
        )
    except (AccessDeniedError, RejectedError):
        return None
    if key := text_at(answer.mapping, "key"):
        return Secret("AccountKey", key)
    if token := text_at(answer.mapping, "sasToken"):
        return Secret("Sas", token.lstrip("?"))
    return None


class SignedQuery:
    """A datastore's signed query, asked for anew before it ends; safe to share between threads."""

    def __init__(self, workspace: Workspace, datastore: Datastore, first: Secret) -> None:
        self._workspace = workspace
        self._datastore = datastore
        self._held = first.value
        self._renew_at = self._next_renewal()
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The query, without a question mark. Raises AccessDeniedError where it cannot be had any more."""
        with self._lock:
            if self._workspace.clock() >= self._renew_at:
                renewed = ask_secret(self._workspace, self._datastore)
                if renewed is None or renewed.kind != "Sas":
                    raise AccessDeniedError(
                        f"Datastore {self._datastore.name} gives no signed URL any more.",
                        hint="Run the command again.",
                        operation=f"get the secret of datastore {self._datastore.name}",
                    )
                self._held, self._renew_at = renewed.value, self._next_renewal()
            return self._held

    def _next_renewal(self) -> float:
        return self._workspace.clock() + _SECRET_LIFE_S - _RENEWED_BEFORE_S
