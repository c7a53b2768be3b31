"""Whether the workspace's storage can be used from here, and whether its identity can pull its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from maas_client.check import Check
from maas_client.errors import AccessDeniedError, NotFoundError, ServiceError
from maas_client.workspace.access import check_rights
from maas_client.workspace.datastores import DEFAULT, Place, get_datastore
from maas_client.workspace.rights import READ_SECRETS, WRITE_BLOBS

if TYPE_CHECKING:
    from maas_client.workspace.session import Workspace

_PULLING_ROLES = {
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "8311e382-0749-4cb8-b61a-304f252e45ec": "AcrPush",
    "b24988ac-6180-42a0-ab88-20f7382dd24c": "Contributor",
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635": "Owner",
}
_NOT_PULLING_ROLES = frozenset({"acdd72a7-3385-48ef-bd42-f606fba81ae7"})  # Reader
_PROBE = Place(DEFAULT, "maas/.reachable")
_KEYLESS_HINT = (
    "Make the default datastore identity-based, and ask for Storage Blob Data Contributor on the account."
)


def check_storage(workspace: Workspace) -> tuple[Check, ...]:
    """Whether the default datastore lets the caller in: its secret or the caller's role, and the network."""
    datastore = get_datastore(workspace)
    account = _storage_account(workspace)
    if datastore.kind == "AccountKey" and account.get("allowSharedKeyAccess") is False:
        what = f"datastore {DEFAULT} uses a key, and the storage account takes none: jobs cannot read it"
        return (Check("Storage", False, what, _KEYLESS_HINT),)
    way, wanting = _way_in(workspace, datastore.kind)
    if any(one.ok is False for one in wanting):
        return wanting
    return (*wanting, *_reach(workspace, way, account))


def _way_in(workspace: Workspace, kind: str) -> tuple[str, tuple[Check, ...]]:
    """How the caller gets in, and what is not granted for it: its secret, else a role of their own."""
    secrets: tuple[Check, ...] = ()
    if kind in {"AccountKey", "Sas"}:
        secrets = _wanting(check_rights(workspace.arm, workspace.path(), READ_SECRETS))
        if not secrets:
            return ("with its key" if kind == "AccountKey" else "with a signed URL"), ()
    try:
        roles = _wanting(check_rights(workspace.arm, workspace.facts.storage_account_id, WRITE_BLOBS))
    except (AccessDeniedError, NotFoundError):  # the caller may not see the account; trying will tell
        roles = ()
    return "as yourself", (*secrets, *roles) if roles else ()


def _wanting(checks: Iterable[Check]) -> tuple[Check, ...]:
    return tuple(one for one in checks if not one.ok)


def _storage_account(workspace: Workspace) -> Mapping[str, Any]:
    """The properties of the storage account; empty where the caller may not see them."""
    try:
        answer = workspace.arm.get(
            workspace.facts.storage_account_id,
            params={"api-version": "2023-05-01"},
            operation="look at the storage account",
        )
    except ServiceError:
        return {}
    found = answer.mapping.get("properties")
    return found if isinstance(found, Mapping) else {}


def _reach(workspace: Workspace, way: str, account: Mapping[str, Any]) -> Iterator[Check]:
    """Try to read one blob that is not there."""
    from maas_client.workspace.files import Files

    closed = account.get("publicNetworkAccess") == "Disabled"
    try:
        Files(workspace).read(_PROBE, limit=1)
    except NotFoundError:
        pass
    except AccessDeniedError as error:
        hint = "Use a network that the storage account lets in." if closed else error.hint
        yield Check("Storage", False, error.message, hint)
        return
    except ServiceError:
        if not closed:
            raise
        hint = "Use a network that the storage account lets in."
        yield Check("Storage", False, "the storage account is closed to public networks", hint)
        return
    yield Check("Storage", True, f"datastore {DEFAULT} can be read {way}")


def check_images(workspace: Workspace) -> tuple[Check, ...]:
    """Whether the workspace's identity has a role to pull from the workspace's container registry."""
    name, facts = "Images", workspace.facts
    registry, principal = facts.container_registry_id, facts.principal_id
    if registry is None:
        return (Check(name, True, "the workspace makes its container registry with the first image"),)
    if principal is None:
        return (Check(name, None, "the workspace has no identity of its own whose roles could be read"),)
    rows = workspace.arm.paging(
        f"{registry}/providers/Microsoft.Authorization/roleAssignments",
        params={"api-version": "2022-04-01", "$filter": f"assignedTo('{principal}')"},
        operation="read the roles of the workspace's identity",
    )
    roles = {
        str((row.get("properties") or {}).get("roleDefinitionId")).rpartition("/")[2].lower() for row in rows
    }
    place = registry.rpartition("/")[2]
    if pulling := sorted(_PULLING_ROLES[role] for role in roles if role in _PULLING_ROLES):
        return (Check(name, True, f"the workspace's identity is {pulling[0]} on {place}"),)
    hint = f"az role assignment create --role AcrPull --assignee {principal} --scope {registry}"
    if roles - _NOT_PULLING_ROLES:
        what = f"the workspace's identity has roles on {place} of which none is known to pull images"
        return (Check(name, None, what, hint),)
    return (Check(name, False, f"the workspace's identity may not pull images from {place}", hint),)
