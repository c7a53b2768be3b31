"""The data planes that turn asset ids into places in a datastore, as downloads ask them to."""

from __future__ import annotations

import re
from typing import Any

from maas_client.simulator.replies import Reply
from maas_client.simulator.routing import WORKSPACE, Call, Operation, all_workspaces

_ASSET = re.compile(r"azureml://locations/[^/]+/workspaces/([^/]+)/(models|data)/([^/]+)/versions/([^/]+)")
_SHORT = re.compile(r"azureml://datastores/(.*)", re.IGNORECASE)


def resolve(call: Call) -> Reply:
    """POST of asset ids; those that are known come back with their URI."""
    values: dict[str, Any] = {}
    homes = {call.world.workspace_guid(each["id"]): each["id"] for each in all_workspaces(call.world)}
    for asset in (call.body or {}).get("values", []):
        match = _ASSET.fullmatch(asset)
        home = homes.get(match[1]) if match else None
        if match is None or home is None:
            continue
        found = call.world.store.get(f"{home}/{match[2]}/{match[3]}/versions/{match[4]}")
        if found is not None:
            properties = found["properties"]
            kind = properties.get("modelType") or properties.get("dataType")
            uri = _full(home, properties.get("modelUri") or properties["dataUri"])
            values[asset] = {"uri": uri, "type": "".join(part.title() for part in kind.split("_"))}
    return Reply(200, {"values": values})


def _full(workspace_id: str, uri: str) -> str:
    """A URI that names its workspace, as the service gives it."""
    match = _SHORT.fullmatch(uri)
    if match is None:
        return uri
    parts = workspace_id.split("/")
    return f"azureml://subscriptions/{parts[2]}/resourcegroups/{parts[4]}/workspaces/{parts[8]}/datastores/{match[1]}"


OPERATIONS = [
    Operation("POST", "/data/v1.0" + WORKSPACE + "/dataversion/batchGetResolvedUris", resolve),
    Operation("POST", "/modelregistry/v1.0" + WORKSPACE + "/models/batchGetResolvedUris", resolve),
]
