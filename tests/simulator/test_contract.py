"""What the simulator answers holds against Microsoft's published contracts (2024-10-01-preview)."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from maas_client.simulator.world import World

FOLDER = Path(__file__).parents[3] / "shared/azure/azure-rest-api-specs/specification"
ML = (
    FOLDER
    / "machinelearningservices/resource-manager/Microsoft.MachineLearningServices/preview/2024-10-01-preview"
)
FILES = ("mfe.json", "machineLearningServices.json", "workspaceRP.json")
KINDS: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
NEVER_ANSWERED = ".credentials.secrets is required"
"""The contract wants it in answers, too; recordings of the service never have it."""
pytestmark = pytest.mark.skipif(not ML.is_dir(), reason="the published contracts are not here")
STORE = "azureml://datastores/workspaceblobstore/paths/"
MODEL = "azureml://registries/azureml/models/Phi-4-mini-instruct"
DATA = {"uri": f"{STORE}train.jsonl", "jobInputType": "uri_file"}
COMMAND = {
    "jobType": "Command",
    "command": "python train.py --data ${{inputs.rows}}",
    "environmentId": "azureml://registries/azureml/environments/some/versions/1",
    "resources": {"instanceType": "Standard_NC24ads_A100_v4", "instanceCount": 2, "shmSize": "16g"},
    "inputs": {"rows": DATA, "rate": {"jobInputType": "literal", "value": "0.1"}},
    "outputs": {"tuned": {"jobOutputType": "custom_model", "assetName": "tuned"}},
    "distribution": {"distributionType": "PyTorch", "processCountPerInstance": 4},
    "limits": {"jobLimitsType": "Command", "timeout": "PT2H"},
    "queueSettings": {"jobTier": "Spot"},
}
TUNING = {
    "jobType": "FineTuning",
    "fineTuningDetails": {
        "taskType": "ChatCompletion",
        "modelProvider": "Custom",
        "model": {"uri": f"{MODEL}/versions/1", "jobInputType": "mlflow_model"},
        "trainingData": DATA,
        "validationData": DATA,
        "hyperParameters": {"num_train_epochs": "1"},
    },
    "outputs": {"registered_model": {"assetName": "tuned", "jobOutputType": "mlflow_model"}},
}
CLUSTER = {
    "location": "eastus2",
    "properties": {
        "computeType": "AmlCompute",
        "properties": {"vmSize": "Standard_NC24ads_A100_v4", "vmPriority": "LowPriority"},
    },
}
DEPLOYMENT = {
    "location": "eastus2",
    "sku": {"name": "Default", "capacity": 1},
    "properties": {"endpointComputeType": "Managed", "instanceType": "Standard_NC24ads_A100_v4"},
}
REQUESTS: list[tuple[str, str, Any]] = [
    ("PUT", "/jobs/command", {"properties": COMMAND}),
    ("PUT", "/jobs/tuning", {"properties": TUNING}),
    ("GET", "/jobs/command", None),
    ("GET", "/jobs/tuning", None),
    ("GET", "/jobs", None),
    ("POST", "/jobs/command/cancel", None),
    (
        "PUT",
        "/models/tuned/versions/1",
        {"properties": {"modelType": "custom_model", "modelUri": f"{STORE}x/"}},
    ),
    ("GET", "/models/tuned/versions/1", None),
    ("GET", "/models/tuned/versions", None),
    ("GET", "/models/tuned", None),
    ("GET", "/models", None),
    ("PUT", "/data/rows/versions/1", {"properties": {"dataType": "uri_file", "dataUri": f"{STORE}x.jsonl"}}),
    ("GET", "/data/rows/versions", None),
    ("PUT", "/environments/mine/versions/1", {"properties": {"image": "mcr.microsoft.com/x:1"}}),
    ("GET", "/environments/mine", None),
    ("PUT", "/codes/mine/versions/1", {"properties": {"codeUri": "http://localhost:2/maassimulator/a/b"}}),
    ("GET", "/codes/mine/versions/1", None),
    ("GET", "/datastores", None),
    ("GET", "/datastores/workspaceblobstore", None),
    ("POST", "/datastores/workspaceblobstore/listSecrets", {"expirableSecret": True}),
    ("POST", "/datastores/workspaceblobstore/listSecrets", {}),
    ("PUT", "/computes/gpus", CLUSTER),
    ("GET", "/computes/gpus", None),
    ("GET", "/computes", None),
    (
        "PUT",
        "/serverlessEndpoints/tuned",
        {
            "location": "eastus2",
            "sku": {"name": "Consumption"},
            "properties": {"authMode": "Key", "modelSettings": {"modelId": MODEL}},
        },
    ),
    ("GET", "/serverlessEndpoints/tuned", None),
    ("GET", "/serverlessEndpoints", None),
    ("POST", "/serverlessEndpoints/tuned/listKeys", None),
    ("PUT", "/marketplaceSubscriptions/mini", {"properties": {"modelId": MODEL}}),
    ("GET", "/marketplaceSubscriptions", None),
    ("PUT", "/onlineEndpoints/cards", {"location": "eastus2", "properties": {"authMode": "Key"}}),
    ("GET", "/onlineEndpoints/cards", None),
    ("PATCH", "/onlineEndpoints/cards", {"tags": {"color": "blue"}}),
    ("POST", "/onlineEndpoints/cards/listKeys", None),
    ("PUT", "/onlineEndpoints/cards/deployments/blue", DEPLOYMENT),
    ("GET", "/onlineEndpoints/cards/deployments/blue", None),
    ("GET", "/onlineEndpoints/cards/deployments", None),
    ("PATCH", "/onlineEndpoints/cards/deployments/blue", {"sku": {"capacity": 2}}),
    ("POST", "/onlineEndpoints/cards/deployments/blue/getLogs", {"tail": 5}),
    ("DELETE", "/onlineEndpoints/cards/deployments/blue", None),
    ("DELETE", "/serverlessEndpoints/tuned", None),
    ("DELETE", "/computes/gpus", None),
    ("GET", "", None),
    ("GET", "usages", None),
    ("GET", "quotas", None),
    ("GET", "vmSizes", None),
]


@cache
def contracts() -> dict[str, dict[str, Any]]:
    return {name: json.loads((ML / name).read_text(encoding="utf-8")) for name in FILES}


def operation_of(method: str, path: str) -> tuple[str, dict[str, Any]]:
    """The file and the operation that describe a request."""
    for name, contract in contracts().items():
        for template, operations in contract["paths"].items():
            pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path) and method.lower() in operations:
                return name, operations[method.lower()]
    raise AssertionError(f"No contract has {method} {path}")


def resolve(name: str, schema: Any, depth: int = 0) -> Any:
    """A schema with its references followed, as far as the files here hold them."""
    if not isinstance(schema, dict) or depth > 40:
        return schema
    if "$ref" in schema:
        file, _, pointer = schema["$ref"].partition("#/")
        target = file.rpartition("/")[2] or name
        if target not in contracts():
            return {}
        found: Any = contracts()[target]
        for part in pointer.split("/"):
            found = found[part]
        return {"__file": target, **found}
    return schema


def problems(
    name: str, schema: Any, value: Any, at: str = "$", depth: int = 0, *, chosen: bool = False
) -> list[str]:
    """Where a value differs from its schema: types, required properties, enumerations of fixed words."""
    schema = resolve(name, schema)
    name = schema.pop("__file", name) if isinstance(schema, dict) else name
    if not isinstance(schema, dict) or value is None or depth > 40:
        return []
    found = []
    if not chosen and (concrete := concrete_schema(name, schema, value)):
        return problems(name, concrete, value, at, depth + 1, chosen=True)
    for part in schema.get("allOf", []):
        found += problems(name, part, value, at, depth + 1, chosen=True)
    kind = schema.get("type")
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    if kind in kinds and not isinstance(value, kinds[kind]):
        return [*found, f"{at}: {type(value).__name__} where {kind} stands"]
    if isinstance(value, dict):
        missing = [key for key in schema.get("required", []) if value.get(key) is None]
        found += [f"{at}.{key} is required" for key in missing]
        for key, part in schema.get("properties", {}).items():
            if key in value:
                found += problems(name, part, value[key], f"{at}.{key}", depth + 1)
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += problems(name, schema.get("items", {}), item, f"{at}[{number}]", depth + 1)
    words = schema.get("enum")
    if words and value not in words:
        found.append(f"{at}: {value!r} is not one of {words}")
    return found


def concrete_schema(name: str, schema: dict[str, Any], value: Any) -> dict[str, Any] | None:
    """The schema that the discriminator of a value chooses, such as CommandJob for jobType Command."""
    key = schema.get("discriminator")
    if not key or not isinstance(value, dict) or key not in value:
        return None
    for each in contracts()[name]["definitions"].values():
        if each.get("x-ms-discriminator-value") == value[key] and inherits(name, each, schema):
            return {**each, "__file": name}
    raise AssertionError(f"No definition for {key} {value[key]}")


def inherits(name: str, each: dict[str, Any], base: dict[str, Any]) -> bool:
    parents = [part.get("$ref", "").rpartition("/")[2] for part in each.get("allOf", [])]
    definitions = contracts()[name]["definitions"]
    return any(
        parent in definitions and (definitions[parent] == base or inherits(name, definitions[parent], base))
        for parent in parents
    )


def test_every_answer_holds_against_its_contract(ask: Any, world: World) -> None:
    failures = []
    provider = f"/subscriptions/{world.names.subscription}/providers/Microsoft.MachineLearningServices"
    for method, short, body in REQUESTS:
        path = world.names.workspace_id + short
        if short in {"usages", "quotas", "vmSizes"}:
            path = f"{provider}/locations/eastus2/{short}"
        name, operation = operation_of(method, path)
        if method in {"PUT", "PATCH"}:
            failures += request_problems(name, operation, body, f"request of {method} {short}")
        answer: httpx.Response = ask(method, path, body)
        failures += answer_problems(name, operation, answer, f"{method} {short}")
        world.clock.move_on(100)
    assert failures == []


def request_problems(name: str, operation: dict[str, Any], body: Any, at: str) -> list[str]:
    bodies = [resolve(name, each) for each in operation["parameters"]]
    schema = next(each["schema"] for each in bodies if each.get("in") == "body")
    return problems(name, schema, body, at)


def answer_problems(name: str, operation: dict[str, Any], answer: httpx.Response, at: str) -> list[str]:
    declared = operation["responses"].get(str(answer.status_code))
    if declared is None:
        return [f"{at}: status {answer.status_code} is not declared: {answer.text[:300]}"]
    if "schema" not in declared:
        return []
    found = problems(name, declared["schema"], answer.json(), at)
    return [each for each in found if not each.endswith(NEVER_ANSWERED)]


def test_the_checks_find_what_is_wrong(ask: Any, world: World) -> None:
    ask("PUT", "/jobs/command", {"properties": COMMAND})
    path = f"{world.names.workspace_id}/jobs/command"
    name, operation = operation_of("GET", path)
    good = ask("GET", path).json()
    schema = operation["responses"]["200"]["schema"]
    assert problems(name, schema, good) == []
    properties = {**good["properties"], "command": None, "limits": {"jobLimitsType": "Command", "timeout": 5}}
    found = problems(name, schema, {**good, "properties": properties})
    assert "$.properties.command is required" in found
    assert "$.properties.limits.timeout: int where string stands" in found


def test_errors_hold_against_the_contract_of_errors(ask: Any) -> None:
    error = ask("GET", "/jobs/nothing").json()
    assert set(error) == {"error"}
    assert {"code", "message", "details", "additionalInfo"} <= set(error["error"])


def test_next_links_are_whole_urls_with_the_same_query(ask: Any, world: World) -> None:
    world.runner.scripted.plant({"count": 5})
    link = httpx.URL(ask("GET", "/jobs", query={"listViewType": "All"}).json()["nextLink"])
    query = dict(parse_qsl(link.query.decode()))
    assert query["listViewType"] == "All"
    assert query["api-version"] == "2024-10-01-preview"
    assert query["$skipToken"]
