"""Clusters, and what the region offers: sizes, usage and quota."""

from __future__ import annotations

from typing import Any

from maas_client.simulator.arm import check_subscription
from maas_client.simulator.machines import find_size, limit_of, sizes, usage_rows
from maas_client.simulator.replies import Refusal, Reply, user_error
from maas_client.simulator.routing import LOCATION, SUBSCRIPTION, WORKSPACE, Call, Operation, page
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World, resource

_COMPUTE = WORKSPACE + "/computes/{compute}"
_PRIORITIES = {"dedicated": "Dedicated", "lowpriority": "LowPriority", "low_priority": "LowPriority"}
_CREATION_S = 20.0


def get_compute(call: Call) -> Reply:
    """GET of a cluster, with the number of its nodes just now."""
    return Reply(200, _with_nodes(call.world, _find(call)))


def _find(call: Call) -> Resource:
    found = call.world.store.get(call.child_id("computes", call.params["compute"]))
    if found is None:
        text = f"Compute with name: {call.params['compute']} not found in workspace"
        raise Refusal(404, "NotFound", text)
    return found


def list_computes(call: Call) -> Reply:
    """GET of the clusters."""
    found = call.world.store.members(f"{call.workspace_id}/computes")
    return page(call, [_with_nodes(call.world, each) for each in found])


def _with_nodes(world: World, compute: Resource) -> Resource:
    busy = 0
    workspace = compute["id"].rpartition("/computes/")[0]
    for job in world.store.members(f"{workspace}/jobs"):
        properties = job["properties"]
        if (properties.get("computeId") or "").lower() == compute["id"].lower() and properties[
            "status"
        ] == "Running":
            busy += (properties.get("resources") or {}).get("instanceCount") or 1
    compute["properties"]["properties"] |= {"currentNodeCount": busy, "targetNodeCount": busy}
    compute["properties"]["properties"]["nodeStateCounts"]["runningNodeCount"] = busy
    return compute


def put_compute(call: Call) -> Reply:
    """PUT of a cluster: 201 and an operation to poll, also for one that is changed."""
    asked = call.properties
    if asked.get("computeType") != "AmlCompute":
        raise user_error("The simulator has clusters (AmlCompute) only.", "BadArgument")
    size = find_size((asked.get("properties") or {}).get("vmSize") or "")
    if size is None:
        name = (asked.get("properties") or {}).get("vmSize")
        location = call.world.names.location
        text = f"The specified Azure ML Compute VM size {name} is not available in {location}."
        raise Refusal(400, "InvalidVmSize", text)
    path = call.child_id("computes", call.params["compute"])
    there = call.world.store.get(path)
    made = resource(path, "workspaces/computes", _properties(call, asked, there), {})
    del made["systemData"]
    made |= {"location": call.world.names.location, "tags": (call.body or {}).get("tags")}
    if (call.body or {}).get("identity"):
        made["identity"] = {**call.body["identity"], "tenantId": call.world.names.tenant}
    call.world.store.put(path, made)
    refused = call.world.faults.take("quota", f"{call.method} {call.path}")
    return Reply(
        201,
        made,
        _provision(call, made, refused=refused is not None or not limit_of(call.world, size.family)),
    )


def _provision(call: Call, made: Resource, *, refused: bool) -> dict[str, str]:
    def finish(error: dict[str, Any] | None) -> None:
        made["properties"]["provisioningState"] = "Failed" if error else "Succeeded"
        made["properties"]["provisioningErrors"] = [{"error": error}] if error else None
        made["properties"]["modifiedOn"] = call.world.now()

    text = "The specified subscription has a total vCPU quota of 0 and cannot accomodate any node."
    error = {"code": "ClusterCoreQuotaReached", "message": text} if refused else None
    start = call.world.operations.start
    return start(call, finish, service="compute", seconds=_CREATION_S, error=error)


def _properties(call: Call, asked: dict[str, Any], there: Resource | None) -> dict[str, Any]:
    now = call.world.now()
    inner = asked.get("properties") or {}
    scale = {"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "PT2M"}
    priority = _PRIORITIES[str(inner.get("vmPriority") or "Dedicated").lower()]
    counts = ("preparing", "running", "idle", "unusable", "leaving", "preempted")
    return {
        "createdOn": there["properties"]["createdOn"] if there else now,
        "modifiedOn": now,
        "disableLocalAuth": bool(asked.get("disableLocalAuth")),
        "description": asked.get("description"),
        "resourceId": None,
        "computeType": "AmlCompute",
        "computeLocation": call.world.names.location,
        "provisioningState": "Updating" if there else "Creating",
        "provisioningErrors": None,
        "isAttachedCompute": False,
        "properties": {
            "vmSize": str(inner.get("vmSize")).upper(),
            "vmPriority": priority,
            "scaleSettings": {**scale, **(inner.get("scaleSettings") or {})},
            "subnet": None,
            "currentNodeCount": 0,
            "targetNodeCount": 0,
            "nodeStateCounts": {f"{each}NodeCount": 0 for each in counts},
            "allocationState": "Steady",
            "allocationStateTransitionTime": now,
            "errors": None,
            "remoteLoginPortPublicAccess": inner.get("remoteLoginPortPublicAccess") or "NotSpecified",
            "osType": "Linux",
            "virtualMachineImage": None,
            "isolatedNetwork": False,
            "enableNodePublicIp": inner.get("enableNodePublicIp", True),
            "propertyBag": {},
        },
    }


def delete_compute(call: Call) -> Reply:
    """DELETE of a cluster: 202 and an operation to poll."""
    found = call.world.store.get(call.child_id("computes", call.params["compute"]))
    if found is None:
        return Reply(204)
    found["properties"]["provisioningState"] = "Deleting"

    def finish(error: dict[str, Any] | None) -> None:
        if error is None:
            call.world.store.delete(found["id"])

    return Reply(202, None, call.world.operations.start(call, finish, service="compute", seconds=_CREATION_S))


def list_usages(call: Call) -> Reply:
    """GET of the cores in use and their limits, by family."""
    check_subscription(call)
    return Reply(200, {"value": usage_rows(call.world, call.world.names.workspace_id)})


def list_quotas(call: Call) -> Reply:
    """GET of the limits alone."""
    check_subscription(call)
    rows = usage_rows(call.world, call.world.names.workspace_id)
    kept = ("id", "limit", "unit", "name")
    quotas = [
        {**{key: row[key] for key in kept}, "type": row["type"].replace("usages", "quotas")} for row in rows
    ]
    return Reply(200, {"value": quotas})


def list_vm_sizes(call: Call) -> Reply:
    """GET of the sizes that clusters can have."""
    check_subscription(call)
    rows = [
        {
            "name": each.name,
            "family": each.family,
            "vCPUs": each.cores,
            "gpus": each.gpus,
            "osVhdSizeMB": 1047552,
            "maxResourceVolumeMB": 65536,
            "memoryGB": each.memory_gib,
            "lowPriorityCapable": True,
            "premiumIO": True,
            "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
        }
        for each in sizes()
    ]
    return Reply(200, {"value": rows})


def list_skus(call: Call) -> Reply:
    """GET of Microsoft.Compute/skus: every size, without restrictions."""
    check_subscription(call)
    location = call.world.names.location
    rows = [
        {
            "resourceType": "virtualMachines",
            "name": each.name,
            "tier": "Standard",
            "size": each.name.removeprefix("Standard_"),
            "family": each.family,
            "locations": [location],
            "locationInfo": [{"location": location, "zones": []}],
            "capabilities": [
                {"name": "vCPUs", "value": str(each.cores)},
                {"name": "MemoryGB", "value": str(each.memory_gib)},
                {"name": "GPUs", "value": str(each.gpus)},
            ],
            "restrictions": [],
        }
        for each in sizes()
    ]
    return Reply(200, {"value": rows})


OPERATIONS = [
    Operation("GET", WORKSPACE + "/computes", list_computes),
    Operation("GET", _COMPUTE, get_compute),
    Operation("PUT", _COMPUTE, put_compute),
    Operation("DELETE", _COMPUTE, delete_compute),
    Operation("GET", LOCATION + "/usages", list_usages),
    Operation("GET", LOCATION + "/quotas", list_quotas),
    Operation("GET", LOCATION + "/vmSizes", list_vm_sizes),
    Operation("GET", SUBSCRIPTION + "/providers/Microsoft.Compute/skus", list_skus),
]
