"""Serverless endpoints and the marketplace subscriptions that models of other publishers need."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import Response

from maas_client import catalog
from maas_client.simulator.places import STAND_IN, locate
from maas_client.simulator.provisioning import check_key, keys_of, not_ready, provision, regenerate, remove
from maas_client.simulator.replies import Reply, conflict, not_found, user_error
from maas_client.simulator.routing import WORKSPACE, Call, Operation, all_workspaces, page
from maas_client.simulator.servers import Deployed
from maas_client.simulator.state import Resource
from maas_client.simulator.world import resource

_ENDPOINT = WORKSPACE + "/serverlessEndpoints/{endpoint}"
_SUBSCRIPTION = WORKSPACE + "/marketplaceSubscriptions/{name}"
_REGISTRY_MODEL = re.compile(r"azureml://registries/([^/]+)/models/([^/]+)(/.*)?", re.IGNORECASE)
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,50}[a-zA-Z0-9]")


def _missing(kind: str, name: str) -> Any:
    return not_found(f"{kind} {name} was not found.")


def get_endpoint(call: Call) -> Reply:
    """GET of an endpoint."""
    found = call.world.store.get(call.child_id("serverlessEndpoints", call.params["endpoint"]))
    if found is None:
        raise _missing("Serverless endpoint", call.params["endpoint"])
    return Reply(200, found)


def list_endpoints(call: Call) -> Reply:
    """GET of the endpoints."""
    return page(call, call.world.store.members(f"{call.workspace_id}/serverlessEndpoints"))


def put_endpoint(call: Call) -> Reply:
    """PUT of an endpoint: 201 and an operation to poll."""
    model = str((call.properties.get("modelSettings") or {}).get("modelId") or "")
    name = call.params["endpoint"]
    path = call.child_id("serverlessEndpoints", name)
    there = call.world.store.get(path)
    if not _NAME.fullmatch(name):
        raise user_error(f"The endpoint name {name} is invalid.", "BadArgument", "ArgumentInvalid")
    _check_model(call, path, model)
    if there is not None and there["properties"]["modelSettings"]["modelId"] != model:
        raise conflict(f"The endpoint {name} already serves another model.")
    properties = {
        "authMode": "Key",
        "contentSafety": call.properties.get("contentSafety") or {"contentSafetyStatus": "Enabled"},
        "endpointState": "Online" if there else "Creating",
        "inferenceEndpoint": {"uri": f"{call.world.base_url}/serverless/{name}", "headers": {}},
        "marketplaceSubscriptionId": None,
        "modelSettings": {"modelId": model},
    }
    made = resource(path, "workspaces/serverlessEndpoints", properties, call.world.system_data(there))
    body = call.body or {}
    made |= {
        "location": body.get("location") or call.world.names.location,
        "tags": body.get("tags") or {},
        "sku": body.get("sku") or {"name": "Consumption"},
        "kind": None,
        "identity": None,
    }
    call.world.store.put(path, made)

    def done(error: dict[str, Any] | None) -> None:
        made["properties"]["endpointState"] = "CreationFailed" if error else "Online"
        if error is None:
            call.world.bill.open_account(path, f"serverless endpoint {name}, hosting")

    return provision(call, made, created=there is None, done=done)


def _check_model(call: Call, path: str, model: str) -> None:
    """Refuse a model that is not there, that has a deployment already, or that needs a subscription."""
    if not model:
        raise user_error(
            "properties.modelSettings.modelId is required.", "BadArgument", "ArgumentBlankOrEmpty"
        )
    if match := _REGISTRY_MODEL.fullmatch(model):
        if match[3]:
            raise user_error("The model id of a registry model must not carry a version.", "BadArgument")
        known = catalog.lookup(match[2])
        if known is not None and known.publisher != "Microsoft" and not _subscribed(call, model):
            text = f"A marketplace subscription for {model} is needed."
            raise user_error(text, "MarketplaceSubscriptionNotFound")
        return
    locate(call.world, call.workspace_id, model)
    for other in call.world.store.members(f"{call.workspace_id}/serverlessEndpoints"):
        if other["id"].lower() != path.lower() and other["properties"]["modelSettings"]["modelId"] == model:
            raise conflict(f"The model is deployed already, as {other['name']}.")


def _subscribed(call: Call, model: str) -> bool:
    subscriptions = call.world.store.members(f"{call.workspace_id}/marketplaceSubscriptions")
    return any(
        each["properties"]["modelId"].lower() == model.lower()
        and each["properties"]["marketplaceSubscriptionStatus"] == "Subscribed"
        for each in subscriptions
    )


def delete_endpoint(call: Call) -> Reply:
    """DELETE of an endpoint."""
    path = call.child_id("serverlessEndpoints", call.params["endpoint"])
    if found := call.world.store.get(path):
        found["properties"]["endpointState"] = "Deleting"

    def done() -> None:
        call.world.bill.close_account(path)
        call.world.servers.end(path)

    return remove(call, path, done)


def list_keys(call: Call) -> Reply:
    """POST for the keys."""
    found: Resource = get_endpoint(call).body
    return Reply(200, keys_of(call.world, found["id"]))


def regenerate_keys(call: Call) -> Reply:
    """POST for new keys, one at a time."""
    found: Resource = get_endpoint(call).body
    regenerate(call.world, found["id"], (call.body or {}).get("keyType", "Primary"))
    return Reply(200, keys_of(call.world, found["id"]))


def get_subscription(call: Call) -> Reply:
    """GET of a marketplace subscription."""
    found = call.world.store.get(call.child_id("marketplaceSubscriptions", call.params["name"]))
    if found is None:
        raise _missing("Marketplace subscription", call.params["name"])
    return Reply(200, found)


def list_subscriptions(call: Call) -> Reply:
    """GET of the marketplace subscriptions."""
    return page(call, call.world.store.members(f"{call.workspace_id}/marketplaceSubscriptions"))


def put_subscription(call: Call) -> Reply:
    """PUT of a marketplace subscription: 201 and an operation to poll."""
    model = str(call.properties.get("modelId") or "")
    if not _REGISTRY_MODEL.fullmatch(model):
        raise user_error("properties.modelId must name a model of a registry.", "BadArgument")
    path = call.child_id("marketplaceSubscriptions", call.params["name"])
    there = call.world.store.get(path)
    name = model.rpartition("/")[2].lower()
    properties = {
        "modelId": model,
        "marketplacePlan": {"publisherId": "simulated", "offerId": f"{name}-offer", "planId": f"{name}-plan"},
        "marketplaceSubscriptionStatus": "Subscribed" if there else "Unsubscribed",
    }
    made = resource(path, "workspaces/marketplaceSubscriptions", properties, call.world.system_data(there))
    call.world.store.put(path, made)

    def done(error: dict[str, Any] | None) -> None:
        properties_now = made["properties"]
        properties_now["marketplaceSubscriptionStatus"] = "Unsubscribed" if error else "Subscribed"

    return provision(call, made, created=there is None, done=done)


def delete_subscription(call: Call) -> Reply:
    """DELETE of a marketplace subscription."""
    return remove(call, call.child_id("marketplaceSubscriptions", call.params["name"]), lambda: None)


async def infer(call: Call) -> Response:
    """Any request to an endpoint's own URL: key checked, answered by the bundled server with the model."""
    found = _online(call)
    check_key(call.world, found["id"], call.headers)
    not_ready(call.world, f"{call.method} {call.path}")
    uri = found["properties"]["modelSettings"]["modelId"]
    workspace_id = found["id"].rpartition("/serverlessEndpoints/")[0]
    name = STAND_IN if _REGISTRY_MODEL.fullmatch(uri) else uri.split("/models/")[-1].split("/")[0]
    return await call.world.servers.ask(
        call, Deployed(found["id"], workspace_id, uri, name), call.params["rest"]
    )


def _online(call: Call) -> Resource:
    for workspace in all_workspaces(call.world):
        found = call.world.store.get(f"{workspace['id']}/serverlessEndpoints/{call.params['endpoint']}")
        if found is not None and found["properties"]["endpointState"] == "Online":
            return found
    raise _missing("Endpoint", call.params["endpoint"])


OPERATIONS = [
    Operation("GET", WORKSPACE + "/serverlessEndpoints", list_endpoints),
    Operation("GET", _ENDPOINT, get_endpoint),
    Operation("PUT", _ENDPOINT, put_endpoint),
    Operation("DELETE", _ENDPOINT, delete_endpoint),
    Operation("POST", _ENDPOINT + "/listKeys", list_keys),
    Operation("POST", _ENDPOINT + "/regenerateKeys", regenerate_keys),
    Operation("GET", WORKSPACE + "/marketplaceSubscriptions", list_subscriptions),
    Operation("GET", _SUBSCRIPTION, get_subscription),
    Operation("PUT", _SUBSCRIPTION, put_subscription),
    Operation("DELETE", _SUBSCRIPTION, delete_subscription),
    Operation("GET", "/serverless/{endpoint}/{rest:path}", infer),
    Operation("POST", "/serverless/{endpoint}/{rest:path}", infer),
]
