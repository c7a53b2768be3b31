"""Requests to online endpoints themselves: key, traffic, and the process that answers."""

from __future__ import annotations

import random

from starlette.responses import Response

from maas_client.simulator.provisioning import check_key, not_ready
from maas_client.simulator.replies import Refusal
from maas_client.simulator.routing import Call, Operation, all_workspaces
from maas_client.simulator.servers import Deployed
from maas_client.simulator.state import Resource


async def infer(call: Call) -> Response:
    """Any request to an endpoint's own URL: key checked, a deployment chosen by header or by traffic."""
    endpoint = _at_this_name(call)
    check_key(call.world, endpoint["id"], call.headers)
    not_ready(call.world, f"{call.method} {call.path}")
    deployment = _chosen(call, endpoint)
    properties = deployment["properties"]
    workspace_id = endpoint["id"].rpartition("/onlineEndpoints/")[0]
    code = properties.get("codeConfiguration") or {}
    deployed = Deployed(
        deployment["id"],
        workspace_id,
        properties.get("model") or "",
        deployment["name"],
        code.get("codeId") or "",
        code.get("scoringScript") or "",
        properties["environmentVariables"],
    )
    answer: Response = await call.world.servers.ask(call, deployed, call.params["rest"])
    answer.headers["azureml-model-deployment"] = deployment["name"]
    return answer


def _at_this_name(call: Call) -> Resource:
    for workspace in all_workspaces(call.world):
        found = call.world.store.get(f"{workspace['id']}/onlineEndpoints/{call.params['endpoint']}")
        if found is not None:
            return found
    raise Refusal(404, "NotFound", "There is no such endpoint.", inner=None)


def _chosen(call: Call, endpoint: Resource) -> Resource:
    there = {each["name"]: each for each in call.world.store.members(f"{endpoint['id']}/deployments")}
    name = call.headers.get("azureml-model-deployment")
    if name is None:
        shares = {
            key: share for key, share in endpoint["properties"]["traffic"].items() if share and key in there
        }
        if not shares:
            raise Refusal(404, "NotFound", "The endpoint has no deployment with traffic.", inner=None)
        name = random.choices(list(shares), list(shares.values()))[0]
    if name not in there or there[name]["properties"]["provisioningState"] != "Succeeded":
        raise Refusal(404, "NotFound", f"The deployment {name} is not there or not ready.", inner=None)
    return there[name]


OPERATIONS = [
    Operation("POST", "/inference/{endpoint}/{rest:path}", infer),
    Operation("GET", "/inference/{endpoint}/{rest:path}", infer),
]
