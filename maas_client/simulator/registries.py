"""Model registries: the models that the catalog knows, all with the bundled tiny model as their weights."""

from __future__ import annotations

from typing import Any

from maas_client import catalog
from maas_client.simulator.replies import Reply, not_found
from maas_client.simulator.routing import GROUP, Call, Operation, page
from maas_client.simulator.world import PROVIDER

_REGISTRY = "/mferp/managementfrontend" + GROUP + f"/providers/{PROVIDER}/registries/{{registry}}"
_VERSION = "1"


def _model(call: Call) -> Any:
    found = catalog.lookup(call.params["name"])
    if found is None:
        raise not_found(f"No model exists for name: {call.params['name']}, version: , label: ")
    return found


def _versioned(call: Call, version: str) -> dict[str, Any]:
    model = _model(call)
    route = next((each for each in model.routes if each.name == "foundry-classic" and each.offered), None)
    regions = ",".join(route.regions or ()) if route else ""
    tags = {"SharedComputeCapacityEnabled": "", "maas-finetuning-deploy-regions": regions} if route else {}
    path = f"azureml://registries/{call.params['registry']}/models/{call.params['name']}/versions/{version}"
    return {
        "id": path,
        "name": version,
        "type": "models",
        "properties": {
            "description": f"{model.name} by {model.publisher}",
            "tags": tags,
            "properties": {},
            "isArchived": False,
            "isAnonymous": False,
            "flavors": {},
            "modelType": "mlflow_model",
            "modelUri": path,
            "jobName": None,
            "provisioningState": "Succeeded",
        },
        "systemData": call.world.system_data(),
    }


def list_versions(call: Call) -> Reply:
    """GET of a model's versions: one."""
    return page(call, [_versioned(call, _VERSION)])


def get_version(call: Call) -> Reply:
    """GET of one version, whatever its number."""
    return Reply(200, _versioned(call, call.params["version"]))


def get_model(call: Call) -> Reply:
    """GET of a model."""
    found = _versioned(call, _VERSION)
    path = found["id"].rpartition("/versions/")[0]
    properties = {
        **{key: found["properties"][key] for key in ("description", "tags", "properties", "isArchived")},
        "latestVersion": _VERSION,
        "nextVersion": None,
    }
    return Reply(200, {**found, "id": path, "name": call.params["name"], "properties": properties})


def list_models(call: Call) -> Reply:
    """GET of every model of a registry."""
    every = []
    for model in catalog.models():
        params = {**call.params, "name": model.name}
        every.append(get_model(Call(**{**vars(call), "params": params})).body)
    return page(call, every)


OPERATIONS = [
    Operation("GET", _REGISTRY + "/models", list_models),
    Operation("GET", _REGISTRY + "/models/{name}", get_model),
    Operation("GET", _REGISTRY + "/models/{name}/versions", list_versions),
    Operation("GET", _REGISTRY + "/models/{name}/versions/{version}", get_version),
]
