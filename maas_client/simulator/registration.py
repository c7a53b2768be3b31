"""What the service registers when a job has succeeded: outputs with a name become models or data."""

from __future__ import annotations

from typing import Any

from maas_client.simulator import finetuning
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World, resource

_MODEL_TYPES = frozenset({"custom_model", "mlflow_model", "triton_model"})


def register_outputs(world: World, workspace_id: str, job: Resource) -> None:
    """Register the outputs that have an assetName, and note the asset in the job."""
    tuning = job["properties"]["jobType"] == "FineTuning"
    for name, output in job["properties"]["outputs"].items():
        asset = output.get("assetName")
        if not asset or name == "default":
            continue
        uri = output.get("uri")
        if tuning:
            uri = f"{finetuning.place_of_run(job['name'])}model/"
            output["uri"] = uri
        kind = "models" if output["jobOutputType"] in _MODEL_TYPES else "data"
        version = output.get("assetVersion") or _next_version(
            world, f"{workspace_id}/{kind}/{asset}/versions"
        )
        path = f"{workspace_id}/{kind}/{asset}/versions/{version}"
        made = resource(path, f"{kind}/versions", _properties(job, kind, output, uri), world.system_data())
        world.store.put(
            path, {**made, "type": f"{made['type'].partition('/')[0]}/workspaces/{kind}/versions"}
        )
        output["assetVersion"] = version
        location, guid = world.names.location, world.workspace_guid(workspace_id)
        asset_id = f"azureml://locations/{location}/workspaces/{guid}/{kind}/{asset}/versions/{version}"
        world.runner.record(job["id"]).setdefault("assets", {})[name] = asset_id


def _next_version(world: World, collection: str) -> str:
    return str(
        max(
            (int(each["name"]) for each in world.store.members(collection) if each["name"].isdigit()),
            default=0,
        )
        + 1
    )


def _properties(job: Resource, kind: str, output: dict[str, Any], uri: str) -> dict[str, Any]:
    common: dict[str, Any] = {
        "description": None,
        "tags": {},
        "properties": {},
        "isArchived": False,
        "isAnonymous": False,
    }
    if kind == "data":
        return {**common, "dataType": output["jobOutputType"], "dataUri": uri}
    if job["properties"]["jobType"] == "FineTuning":
        base = job["properties"]["fineTuningDetails"]["model"]["uri"]
        common["properties"] = {"baseModelId": base, "azureml.finetuning.jobName": job["name"]}
        common["tags"] = {"task": job["properties"]["fineTuningDetails"]["taskType"], "baseModelId": base}
    return {
        **common,
        "flavors": {},
        "modelType": output["jobOutputType"],
        "modelUri": uri,
        "jobName": job["name"],
        "provisioningState": "Succeeded",
        "stage": None,
    }
