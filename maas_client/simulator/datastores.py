"""Datastores of a workspace and their secrets: account key, signed URL or none (the caller's identity)."""

from __future__ import annotations

from typing import Any

from maas_client.simulator.metadata import STORAGE_SUFFIX
from maas_client.simulator.replies import Reply, not_found, user_error
from maas_client.simulator.routing import WORKSPACE, Call, Operation, page
from maas_client.simulator.storage import ARTIFACT_CONTAINER, DEFAULT_CONTAINER
from maas_client.simulator.world import World, resource

BLOB_STORE = "workspaceblobstore"
ARTIFACT_STORE = "workspaceartifactstore"
_STORE = WORKSPACE + "/datastores/{datastore}"


def make_datastores(world: World, workspace_id: str, credentials: str = "AccountKey") -> None:
    """Put the datastores that every workspace has. `credentials`: AccountKey, Sas or None."""
    for name, container in ((BLOB_STORE, DEFAULT_CONTAINER), (ARTIFACT_STORE, ARTIFACT_CONTAINER)):
        path = f"{workspace_id}/datastores/{name}"
        properties = _properties(world, container, credentials, is_default=name == BLOB_STORE)
        world.store.put(path, resource(path, "workspaces/datastores", properties, world.system_data()))


def _properties(world: World, container: str, credentials: str, *, is_default: bool) -> dict[str, Any]:
    return {
        "description": None,
        "tags": None,
        "properties": None,
        "isDefault": is_default,
        "credentials": {"credentialsType": credentials},
        "subscriptionId": world.names.subscription,
        "resourceGroup": world.names.resource_group,
        "datastoreType": "AzureBlob",
        "accountName": world.storage.account_name,
        "containerName": container,
        "endpoint": STORAGE_SUFFIX,
        "protocol": world.storage.endpoint.partition("://")[0],
        "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity" if is_default else "None",
    }


def container_of(world: World, workspace_id: str, datastore: str) -> str:
    """The container behind a datastore. Raises Refusal 404."""
    found = world.store.get(f"{workspace_id}/datastores/{datastore}")
    if found is None:
        raise not_found(f"Could not find datastore: {datastore}.")
    return str(found["properties"]["containerName"])


def get_datastore(call: Call) -> Reply:
    """GET of a datastore, without its secret."""
    found = call.world.store.get(call.child_id("datastores", call.params["datastore"]))
    if found is None:
        raise not_found(f"Could not find datastore: {call.params['datastore']}.")
    return Reply(200, found)


def list_datastores(call: Call) -> Reply:
    """GET of the datastores; isDefault=true leaves the default one."""
    found = call.world.store.members(f"{call.workspace_id}/datastores")
    if call.query.get("isDefault", "").lower() == "true":
        found = [each for each in found if each["properties"]["isDefault"]]
    return page(call, found)


def put_datastore(call: Call) -> Reply:
    """PUT of a blob datastore: another container of the same simulated account."""
    asked = call.properties
    if asked.get("datastoreType") != "AzureBlob":
        raise user_error("The simulator has blob storage only.", "BadArgument")
    path = call.child_id("datastores", call.params["datastore"])
    there = call.world.store.get(path)
    kind = (asked.get("credentials") or {}).get("credentialsType", "None")
    container = asked.get("containerName") or call.params["datastore"]
    call.world.storage.ensure_container(container)
    properties = _properties(call.world, container, kind, is_default=bool(asked.get("isDefault")))
    properties |= {key: asked.get(key) for key in ("description", "tags", "properties")}
    made = resource(path, "workspaces/datastores", properties, call.world.system_data(there))
    return Reply(201 if there is None else 200, call.world.store.put(path, made))


def delete_datastore(call: Call) -> Reply:
    """DELETE of a datastore; its blobs stay."""
    path = call.child_id("datastores", call.params["datastore"])
    return Reply(200 if call.world.store.delete(path) else 204)


def list_secrets(call: Call) -> Reply:
    """POST for the secret: the key, or a signed URL where an expirable one is asked for or all there is."""
    found = get_datastore(call).body
    kind = found["properties"]["credentials"]["credentialsType"]
    asked = call.body or {}
    if kind == "None":
        raise user_error(f"No secrets for credentials of type {kind}.", "BadArgument")
    if kind == "Sas" or asked.get("expirableSecret"):
        hours = float(asked.get("expireAfterHours") or 1)
        return Reply(200, {"secretsType": "Sas", "sasToken": "?" + call.world.storage.account_sas(hours)})
    return Reply(200, {"secretsType": "AccountKey", "key": call.world.storage.key})


OPERATIONS = [
    Operation("GET", WORKSPACE + "/datastores", list_datastores),
    Operation("GET", _STORE, get_datastore),
    Operation("PUT", _STORE, put_datastore, blocking=True),
    Operation("DELETE", _STORE, delete_datastore),
    Operation("POST", _STORE + "/listSecrets", list_secrets, blocking=True),
]
