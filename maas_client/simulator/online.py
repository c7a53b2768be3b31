"""Managed online endpoints: deployments with quota, traffic, keys, logs, and requests that are answered."""

from __future__ import annotations

import re
from typing import Any

from maas_client.simulator.machines import find_size, limit_of, reserved_cores, used_cores
from maas_client.simulator.provisioning import keys_of, provision, regenerate, remove
from maas_client.simulator.replies import Refusal, Reply, conflict, user_error
from maas_client.simulator.routing import WORKSPACE, Call, Operation, all_workspaces, page
from maas_client.simulator.state import Resource
from maas_client.simulator.world import resource

_ENDPOINT = WORKSPACE + "/onlineEndpoints/{endpoint}"
_DEPLOYMENT = _ENDPOINT + "/deployments/{deployment}"
_NAME = re.compile(r"[a-zA-Z](?:[a-zA-Z0-9]|-(?=[a-zA-Z0-9])){2,31}")
_BUSY = {"Creating", "Updating", "Deleting", "Scaling"}
_REQUESTS = {"maxConcurrentRequestsPerInstance": 1, "requestTimeout": "PT5S", "maxQueueWait": "PT0.5S"}
_PROBE = {
    "failureThreshold": 30,
    "initialDelay": "PT10S",
    "period": "PT10S",
    "successThreshold": 1,
    "timeout": "PT2S",
}


def _missing(call: Call, kind: str, name: str) -> Refusal:
    text = f"There is no {kind.lower()} with name: {name} in {call.workspace_id.rpartition('/')[2]}"
    details = [{"code": f"NoSuch{kind}", "message": text, "details": [], "additionalInfo": []}]
    return Refusal(404, "NotFound", "The specified resource was not found.", details=details)


def _at(call: Call, workspace_id: str, name: str) -> Resource | None:
    return call.world.store.get(f"{workspace_id}/onlineEndpoints/{name}")


def _endpoint(call: Call) -> Resource:
    found = _at(call, call.workspace_id, call.params["endpoint"])
    if found is None:
        raise _missing(call, "Endpoint", call.params["endpoint"])
    return found


def get_endpoint(call: Call) -> Reply:
    """GET of an endpoint."""
    return Reply(200, _endpoint(call))


def list_endpoints(call: Call) -> Reply:
    """GET of the endpoints."""
    return page(call, call.world.store.members(f"{call.workspace_id}/onlineEndpoints"))


def put_endpoint(call: Call) -> Reply:
    """PUT of an endpoint, or of its traffic: 201 (200 where it was there) and an operation to poll."""
    asked, name = call.properties, call.params["endpoint"]
    path = call.child_id("onlineEndpoints", name)
    there = call.world.store.get(path)
    if not _NAME.fullmatch(name):
        raise user_error(f"The endpoint name {name} is invalid.", "BadArgument", "ArgumentInvalid")
    if there is None and any(_at(call, workspace["id"], name) for workspace in all_workspaces(call.world)):
        raise user_error(f"The endpoint name {name} is taken in this region.", "BadArgument")
    _not_busy(there, f"Already running method on the endpoint {name}.")
    traffic = {key: int(value) for key, value in (asked.get("traffic") or {}).items()}
    _check_traffic(call, path, traffic)
    scoring = there["properties"]["scoringUri"] if there else f"{call.world.base_url}/inference/{name}/score"
    properties = {
        "description": asked.get("description"),
        "properties": {
            **{key: str(value) for key, value in (asked.get("properties") or {}).items()},
            "azureml.onlineendpointid": path.lower(),
        },
        "scoringUri": scoring,
        "swaggerUri": f"{call.world.base_url}/inference/{name}/swagger.json",
        "authMode": asked.get("authMode") or "Key",
        "compute": None,
        "publicNetworkAccess": asked.get("publicNetworkAccess") or "Enabled",
        "traffic": traffic,
        "mirrorTraffic": asked.get("mirrorTraffic") or {},
    }
    made = resource(path, "workspaces/onlineEndpoints", properties, call.world.system_data(there))
    body = call.body or {}
    made |= {
        "location": body.get("location") or call.world.names.location,
        "tags": body.get("tags") or {},
        "kind": "Managed",
        "identity": {
            "type": "SystemAssigned",
            "principalId": call.world.workspace_guid(path),
            "tenantId": call.world.names.tenant,
        },
    }
    return _noted(provision(call, call.world.store.put(path, made), created=there is None))


def _not_busy(there: Resource | None, words: str) -> None:
    if there is not None and there["properties"]["provisioningState"] in _BUSY:
        raise conflict(words)


def _noted(reply: Reply) -> Reply:
    """The service keeps the last operation's address, unsigned, with the resource."""
    place = reply.headers["Azure-AsyncOperation"].partition("&")[0]
    reply.body["properties"]["properties"]["AzureAsyncOperationUri"] = place
    return reply


def patch_endpoint(call: Call) -> Reply:
    """PATCH of an endpoint's tags."""
    found = _endpoint(call)
    _not_busy(found, f"Already running method on the endpoint {found['name']}.")
    found["tags"] = {**found["tags"], **((call.body or {}).get("tags") or {})}
    found["systemData"] = call.world.system_data(found)
    return Reply(200, found)


def _check_traffic(call: Call, path: str, traffic: dict[str, int]) -> None:
    names = {each["name"] for each in call.world.store.members(f"{path}/deployments")}
    if unknown := sorted(set(traffic) - names):
        text = f"The traffic names the deployment {unknown[0]}, which does not exist."
        raise user_error(text, "BadArgument", "ArgumentInvalid")
    if sum(traffic.values()) not in (0, 100):
        raise user_error("The traffic must add up to 0 or 100.", "BadArgument", "ArgumentInvalid")


def delete_endpoint(call: Call) -> Reply:
    """DELETE of an endpoint with its deployments."""
    path = call.child_id("onlineEndpoints", call.params["endpoint"])
    deployments = [each["id"] for each in call.world.store.members(f"{path}/deployments")]

    def done() -> None:
        for each in deployments:
            call.world.bill.close_account(each)
            call.world.servers.end(each)

    return remove(call, path, done)


def list_keys(call: Call) -> Reply:
    """POST for the keys; nulls where the endpoint takes tokens of the directory."""
    found = _endpoint(call)
    if found["properties"]["authMode"].lower() == "aadtoken":
        return Reply(200, {"primaryKey": None, "secondaryKey": None})
    return Reply(200, keys_of(call.world, found["id"]))


def regenerate_keys(call: Call) -> Reply:
    """POST for new keys, one at a time."""
    regenerate(call.world, _endpoint(call)["id"], (call.body or {}).get("keyType", "Primary"))
    return Reply(200)


def _deployment(call: Call) -> Resource:
    found = call.world.store.get(f"{_endpoint(call)['id']}/deployments/{call.params['deployment']}")
    if found is None:
        raise _missing(call, "Deployment", call.params["deployment"])
    return found


def get_deployment(call: Call) -> Reply:
    """GET of a deployment."""
    return Reply(200, _deployment(call))


def list_deployments(call: Call) -> Reply:
    """GET of an endpoint's deployments."""
    return page(call, call.world.store.members(f"{_endpoint(call)['id']}/deployments"))


def put_deployment(call: Call) -> Reply:
    """PUT of a deployment: 201 (200 where it was there) and an operation to poll, which checks the quota."""
    endpoint, asked, body = _endpoint(call), call.properties, call.body or {}
    path = f"{endpoint['id']}/deployments/{call.params['deployment']}"
    there = call.world.store.get(path)
    state = endpoint["properties"]["provisioningState"]
    _not_busy(endpoint, f"Cannot create a deployment in endpoint {endpoint['name']} in state {state}.")
    _not_busy(there, f"Already running method on the deployment {call.params['deployment']}.")
    capacity = int((body.get("sku") or {}).get("capacity") or 1)
    refusal = _quota_error(call, str(asked.get("instanceType") or ""), capacity, there)
    properties = {
        **{key: value for key, value in asked.items() if value is not None},
        "endpointComputeType": "Managed",
        "properties": {key: str(value) for key, value in (asked.get("properties") or {}).items()},
        "environmentVariables": asked.get("environmentVariables") or {},
        "appInsightsEnabled": bool(asked.get("appInsightsEnabled")),
        "scaleSettings": asked.get("scaleSettings") or {"scaleType": "Default"},
        "requestSettings": {**_REQUESTS, **(asked.get("requestSettings") or {})},
        "livenessProbe": {**_PROBE, **(asked.get("livenessProbe") or {})},
        "readinessProbe": {**_PROBE, **(asked.get("readinessProbe") or {})},
    }
    made = resource(path, "workspaces/onlineEndpoints/deployments", properties, call.world.system_data(there))
    made |= {
        "location": body.get("location") or call.world.names.location,
        "tags": body.get("tags") or {},
        "sku": {"name": "Default", "tier": None, "capacity": capacity},
        "kind": "Managed",
    }
    call.world.store.put(path, made)
    call.world.servers.end(path)

    def done(error: dict[str, Any] | None) -> None:
        if error is None:
            words = (
                f"deployment {path.split('/onlineEndpoints/')[1]} on {capacity} x {asked.get('instanceType')}"
            )
            call.world.bill.open_account(path, words, str(asked.get("instanceType")), capacity)
            _note_route(call, endpoint, asked)

    return _noted(provision(call, made, created=there is None, done=done, refusal=refusal))


def patch_deployment(call: Call) -> Reply:
    """PATCH of a deployment's number of machines: 202 and an operation to poll, which checks the quota."""
    found = _deployment(call)
    _not_busy(found, f"Already running method on the deployment {found['name']}.")
    size, before = found["properties"]["instanceType"], found["sku"]["capacity"]
    capacity = int(((call.body or {}).get("sku") or {}).get("capacity") or before)
    refusal = _quota_error(call, size, capacity, found)
    found["sku"] = {**found["sku"], "capacity": capacity}

    def done(error: dict[str, Any] | None) -> None:
        if error is not None:
            found["sku"] = {**found["sku"], "capacity": before}
            return
        words = f"deployment {found['id'].split('/onlineEndpoints/')[1]} on {capacity} x {size}"
        call.world.bill.open_account(found["id"], words, size, capacity)

    reply = _noted(provision(call, found, created=False, done=done, refusal=refusal))
    return Reply(202, None, reply.headers)


def _note_route(call: Call, endpoint: Resource, asked: dict[str, Any]) -> None:
    """An image with a scoring route of its own is asked there instead of at /score."""
    found = call.world.store.get(asked.get("environmentId") or "/")
    route = ((found or {}).get("properties", {}).get("inferenceConfig") or {}).get("scoringRoute") or {}
    if route.get("path"):
        start = endpoint["properties"]["scoringUri"].partition("/inference/")[0]
        endpoint["properties"]["scoringUri"] = f"{start}/inference/{endpoint['name']}{route['path']}"


def _quota_error(
    call: Call, instance_type: str, capacity: int, there: Resource | None
) -> dict[str, Any] | None:
    """What the operation ends with when the cores do not suffice. Raises Refusal for an unknown size."""
    size = find_size(instance_type)
    if size is None:
        raise user_error(f"Instance type {instance_type} is not supported.", "BadArgument", "ArgumentInvalid")
    used = used_cores(call.world, call.workspace_id).get(size.family, 0)
    if there is not None:
        used -= reserved_cores(size, there["sku"]["capacity"])
    wanted = reserved_cores(size, capacity)
    ordered = call.world.faults.take("quota", f"{call.method} {call.path}")
    if not ordered and used + wanted <= limit_of(call.world, size.family):
        return None
    text = f"Not enough quota available for {size.name} in SubscriptionId {call.params['subscription']}. "
    text += f"Current usage/limit: {used}/{limit_of(call.world, size.family)}. Additional needed: {wanted}. "
    return {"code": "OutOfQuota", "message": text + "Please see troubleshooting guide."}


def delete_deployment(call: Call) -> Reply:
    """DELETE of a deployment, which must have no traffic."""
    endpoint = _endpoint(call)
    path = f"{endpoint['id']}/deployments/{call.params['deployment']}"
    _not_busy(call.world.store.get(path), f"Already running method on {call.params['deployment']}.")
    if endpoint["properties"]["traffic"].get(call.params["deployment"], 0):
        raise user_error("The deployment has traffic; set it to 0 first.", "BadArgument")

    def done() -> None:
        call.world.bill.close_account(path)
        call.world.servers.end(path)

    return remove(call, path, done)


def get_logs(call: Call) -> Reply:
    """POST for the last lines that the deployment wrote."""
    found = _deployment(call)
    tail = int((call.body or {}).get("tail") or 100)
    lines = call.world.servers.log(found["id"]).splitlines()[-tail:]
    return Reply(200, {"content": "Instance status:\nInferenceServer: Succeeded\n\n" + "\n".join(lines)})


OPERATIONS = [
    Operation("GET", WORKSPACE + "/onlineEndpoints", list_endpoints),
    Operation("GET", _ENDPOINT, get_endpoint),
    Operation("PUT", _ENDPOINT, put_endpoint),
    Operation("PATCH", _ENDPOINT, patch_endpoint),
    Operation("DELETE", _ENDPOINT, delete_endpoint),
    Operation("POST", _ENDPOINT + "/listKeys", list_keys),
    Operation("POST", _ENDPOINT + "/regenerateKeys", regenerate_keys),
    Operation("GET", _ENDPOINT + "/deployments", list_deployments),
    Operation("GET", _DEPLOYMENT, get_deployment),
    Operation("PUT", _DEPLOYMENT, put_deployment),
    Operation("PATCH", _DEPLOYMENT, patch_deployment),
    Operation("DELETE", _DEPLOYMENT, delete_deployment),
    Operation("POST", _DEPLOYMENT + "/getLogs", get_logs),
]
