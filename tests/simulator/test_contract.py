"""What the simulator answers holds against Microsoft's published contracts (2024-10-01-preview)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from maas_client.simulator.world import World
from tests.simulator.armcontracts import ML, operation_of, problems, request_problems, status_problems

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
        said = answer.json() if answer.content else None
        failures += status_problems(name, operation, answer.status_code, said, f"{method} {short}")
        world.clock.move_on(100)
    assert failures == []


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
