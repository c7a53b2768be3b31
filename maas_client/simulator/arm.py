"""The subscription and its workspaces, and what a check before the first job asks of them."""

from __future__ import annotations

import uuid
from typing import Any

from maas_client.simulator.replies import Refusal, Reply
from maas_client.simulator.routing import (
    GROUP,
    SUBSCRIPTION,
    WORKSPACE,
    Call,
    Operation,
    all_workspaces,
    missing_workspace,
    page,
)
from maas_client.simulator.state import Resource
from maas_client.simulator.world import PROVIDER, World, resource

_WORKSPACES = f"{GROUP}/providers/{PROVIDER}/workspaces"


def make_workspace(world: World, path: str, body: dict[str, Any]) -> Resource:
    """Put a workspace with the properties that the service adds."""
    name = path.rpartition("/")[2]
    group = path.partition("/providers/")[0]
    asked = body.get("properties") or {}
    url = world.base_url
    properties = {
        "friendlyName": asked.get("friendlyName") or name,
        "description": asked.get("description") or "",
        "storageAccount": f"{group}/providers/Microsoft.Storage/storageAccounts/{name.replace('-', '')}",
        "keyVault": f"{group}/providers/Microsoft.Keyvault/vaults/{name}",
        "applicationInsights": f"{group}/providers/Microsoft.insights/components/{name}",
        "hbiWorkspace": False,
        "tenantId": world.names.tenant,
        "imageBuildCompute": None,
        "provisioningState": "Succeeded",
        "v1LegacyMode": False,
        "softDeleteEnabled": False,
        "containerRegistry": asked.get("containerRegistry"),
        "storageHnsEnabled": False,
        "workspaceId": world.workspace_guid(path),
        "privateLinkCount": 0,
        "publicNetworkAccess": "Enabled",
        "discoveryUrl": f"{url}/discovery",
        "mlFlowTrackingUri": f"azureml://{url.partition('://')[2]}/mlflow/v1.0{path}",
    }
    made = resource(path, "workspaces", properties, world.system_data(world.store.get(path)))
    made |= {
        "location": body.get("location", world.names.location),
        "tags": body.get("tags") or {},
        "kind": body.get("kind") or "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": {
            "type": "SystemAssigned",
            "tenantId": world.names.tenant,
            "principalId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"identity of {path.lower()}")),
        },
        "etag": None,
    }
    return world.store.put(path, made)


def get_workspace(call: Call) -> Reply:
    """GET of a workspace."""
    return Reply(200, call.workspace)


def put_workspace(call: Call) -> Reply:
    """PUT of a workspace: made at once, with its datastores."""
    if call.params["subscription"].lower() != call.world.names.subscription.lower():
        raise missing_workspace(call.world, call.path, call.params)
    there = call.world.store.get(call.path)
    made = make_workspace(call.world, call.path, call.body or {})
    if there is None:
        from maas_client.simulator.datastores import make_datastores

        make_datastores(call.world, call.path)
    return Reply(200, made)


def delete_workspace(call: Call) -> Reply:
    """DELETE of a workspace with all that is in it."""
    return Reply(200 if call.world.store.delete(call.path) else 204)


def list_workspaces(call: Call) -> Reply:
    """GET of the workspaces of a subscription or of a resource group."""
    check_subscription(call)
    group = call.params.get("group")
    found = [
        each
        for each in all_workspaces(call.world)
        if group is None or each["id"].split("/")[4].lower() == group.lower()
    ]
    return page(call, found)


def check_subscription(call: Call) -> None:
    """Raise Refusal 404 for a subscription that is not there."""
    if call.params["subscription"].lower() != call.world.names.subscription.lower():
        text = f"The subscription '{call.params['subscription']}' could not be found."
        raise Refusal(404, "SubscriptionNotFound", text, inner=None)


def get_subscription(call: Call) -> Reply:
    """GET of the subscription."""
    check_subscription(call)
    names = call.world.names
    return Reply(
        200,
        {
            "id": f"/subscriptions/{names.subscription}",
            "subscriptionId": names.subscription,
            "tenantId": names.tenant,
            "displayName": "Simulated subscription",
            "state": "Enabled",
        },
    )


def get_group(call: Call) -> Reply:
    """GET of a resource group."""
    check_subscription(call)
    names = call.world.names
    if call.params["group"].lower() != names.resource_group.lower():
        text = f"Resource group '{call.params['group']}' could not be found."
        raise Refusal(404, "ResourceGroupNotFound", text, inner=None)
    group = {"id": names.group_id, "name": names.resource_group, "location": names.location}
    return Reply(200, {**group, "properties": {"provisioningState": "Succeeded"}})


def get_storage_account(call: Call) -> Reply:
    """GET of the storage account behind the workspace."""
    check_subscription(call)
    name = call.params["account"]
    if not any(
        each["properties"]["storageAccount"].endswith(f"/{name}") for each in all_workspaces(call.world)
    ):
        text = f"The Resource 'Microsoft.Storage/storageAccounts/{name}' was not found."
        raise Refusal(404, "ResourceNotFound", text, inner=None)
    properties = {
        "provisioningState": "Succeeded",
        "allowSharedKeyAccess": True,
        "publicNetworkAccess": "Enabled",
        "networkAcls": {"defaultAction": "Allow"},
        **call.world.grants.storage,
    }
    account = {
        "id": call.path,
        "name": name,
        "type": "Microsoft.Storage/storageAccounts",
        "kind": "StorageV2",
    }
    return Reply(200, {**account, "location": call.world.names.location, "properties": properties})


def list_resources(call: Call) -> Reply:
    """GET of the resources of a group that are of a type: those of accounts, in the store."""
    check_subscription(call)
    kind = call.query.get("$filter", "").partition("resourceType eq '")[2].partition("'")[0]
    start = call.path.rpartition("/resources")[0]
    accounts = f"{start}/providers/Microsoft.CognitiveServices/accounts"
    found = call.world.store.members(accounts)
    if kind.lower().endswith("/projects"):
        found = [one for each in found for one in call.world.store.members(f"{each['id']}/projects")]
    names = ("id", "name", "type", "location", "kind")
    return page(call, [{key: each.get(key) for key in names} for each in found])


OPERATIONS = [
    Operation("GET", SUBSCRIPTION, get_subscription),
    Operation("GET", GROUP, get_group),
    Operation("GET", GROUP + "/resources", list_resources),
    Operation("GET", GROUP + "/providers/Microsoft.Storage/storageAccounts/{account}", get_storage_account),
    Operation("GET", SUBSCRIPTION + f"/providers/{PROVIDER}/workspaces", list_workspaces),
    Operation("GET", _WORKSPACES, list_workspaces),
    Operation("GET", WORKSPACE, get_workspace),
    Operation("PUT", WORKSPACE, put_workspace),
    Operation("DELETE", WORKSPACE, delete_workspace),
]
