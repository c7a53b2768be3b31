"""Every body that the classic route sends, against the published contract and what azure-ai-ml sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maas_client.backends.foundry.classic.planning import plan_run
from maas_client.backends.foundry.classic.wire import endpoint_body
from maas_client.cloudpath import CloudPath
from tests.backends.foundry.classic.room import DAY, Room
from tests.simulator.armcontracts import ML, body_schema, operation_of, request_problems, unknown_keys
from tests.simulator.boundaries import open_with_boundaries
from tests.transport.recorded import FOLDER

published = pytest.mark.skipif(not ML.is_dir(), reason="the published contracts are not here")
recorded = pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not here")
PLACE = CloudPath("azureml://locations/eastus2/workspaces/guid/models/card/versions/1")
ENDPOINT = endpoint_body(str(PLACE), "eastus2", model="card:1", ttl="4h", expires_at=1.8e9, run="card-1")
SUBSCRIPTION = {"properties": {"modelId": "azureml://registries/azureml-mistral/models/Ministral-3B"}}


def problems(room: Room, path: str, body: Any) -> list[str]:
    path = room.target.path + path
    name, operation = operation_of("PUT", path)
    schema = body_schema(name, operation)
    return [*request_problems(name, operation, body, "$"), *unknown_keys(name, schema, body)]


@published
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"task": "text-generation"},
        {"compute": {"name": "gpus"}},
        {"compute": {"size": "Standard_NC24ads_A100_v4", "priority": "low"}},
    ],
    ids=["chat", "text", "cluster", "spot"],
)
def test_jobs_hold_against_the_contract(room: Room, parts: dict[str, Any]) -> None:
    spec = room.spec(**parts)
    if parts.get("task"):
        spec.data.train.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    plan = plan_run(spec, room.target, on=DAY, region="eastus2")
    body = json.loads(next(step.detail for step in plan.steps if step.verb == "start"))
    details = body["properties"]["fineTuningDetails"]
    details["taskType"] = details["taskType"][0].upper() + details["taskType"][1:]  # as azure-ai-ml lowers it
    assert problems(room, "/jobs/card-1", body) == []


@published
def test_endpoints_and_subscriptions_hold_against_the_contract(room: Room) -> None:
    assert problems(room, "/serverlessEndpoints/card", ENDPOINT) == []
    assert problems(room, "/marketplaceSubscriptions/ministral", SUBSCRIPTION) == []


@published
def test_the_check_finds_what_is_wrong(room: Room) -> None:
    wrong = {**ENDPOINT, "properties": {"modelSettings": {"modelID": "x"}, "autMode": "Key"}}
    assert set(problems(room, "/serverlessEndpoints/card", wrong)) == {
        "$.properties.authMode is required",
        "$.properties.autMode is not in the contract",
        "$.properties.modelSettings.modelID is not in the contract",
    }
    job = {
        "properties": {
            "jobType": "FineTuning",
            "fineTuningDetails": {"modelProvider": "Custom"},
            "compute": "x",
        }
    }
    found = problems(room, "/jobs/card", job)
    assert "$.properties.compute is not in the contract" in found
    assert "$.properties.outputs is required" in found
    assert "$.properties.fineTuningDetails.taskType is required" in found


@recorded
def test_the_job_is_the_one_that_the_live_service_took(room: Room) -> None:
    """Same keys, same kinds of values, at every depth, as in the recorded 201 of a FineTuning job."""
    file = FOLDER / "azure-sdk-assets/azure-ai-ml/finetuning_job/test_maap_using_aml_compute.excerpt.json"
    if not file.is_file():
        pytest.skip("the recording is not here")
    sent = next(
        entry["RequestBody"]
        for entry in json.loads(file.read_text(encoding="utf-8-sig"))["Entries"]
        if entry["RequestMethod"] == "PUT" and entry["StatusCode"] == 201
    )
    plan = room.plan(compute={"name": "gpu-compute-low-pri"})
    ours = json.loads(next(step.detail for step in plan.steps if step.verb == "start"))
    theirs = shape(sent)
    for key in (
        "$.properties.properties.my_property",
        "$.properties.tags.foo_tag",
        "$.properties.isArchived",
    ):
        del theirs[key]
    mine = {key: kind for key, kind in shape(ours).items() if ".tags." not in key}
    assert mine == theirs
    assert ours["properties"]["computeId"].startswith("/subscriptions/")
    assert sent["properties"]["computeId"] == "gpu-compute-low-pri"


def shape(value: Any, at: str = "$") -> dict[str, str]:
    """Every leaf's path and kind."""
    if not isinstance(value, dict):
        return {at: type(value).__name__}
    return {path: kind for key, inner in value.items() for path, kind in shape(inner, f"{at}.{key}").items()}


def test_azure_ai_ml_never_sends_the_key_that_the_contract_requires() -> None:
    """Why endpoints are made by REST here: the package leaves authMode out, whatever is asked for."""
    from azure.ai.ml.entities import ServerlessEndpoint

    made = ServerlessEndpoint(name="card", model_id=str(PLACE), auth_mode="key", location="eastus2")
    rest = made._to_rest_object()
    sent = rest.as_dict() if hasattr(rest, "as_dict") else rest.serialize()
    properties = sent["properties"]
    assert properties.get("authMode", properties.get("auth_mode")) is None
    assert ENDPOINT["properties"]["authMode"] == "Key"


def test_azure_ai_ml_shortens_a_cluster_to_a_bare_name(room: Room) -> None:
    """Why jobs are made by REST here: the contract wants the cluster's whole ARM id."""
    from azure.ai.ml import Input
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities._job.finetuning.custom_model_finetuning_job import CustomModelFineTuningJob

    uri = Input(type=AssetTypes.URI_FILE, path="azureml://datastores/workspaceblobstore/paths/x.jsonl")
    model = Input(type=AssetTypes.MLFLOW_MODEL, path="azureml://registries/azureml/models/Phi-4/versions/1")
    job = CustomModelFineTuningJob(
        task="chat_completion", model=model, training_data=uri, validation_data=uri, compute="gpus"
    )
    rest = job._to_rest_object()
    properties = rest.properties if hasattr(rest, "properties") else rest["properties"]
    assert getattr(properties, "compute_id", None) == "gpus"
    body = json.loads(
        next(step.detail for step in room.plan(compute={"name": "gpus"}).steps if step.verb == "start")
    )
    assert body["properties"]["computeId"] == f"{room.target.path}/computes/gpus"


def test_the_service_shows_the_key_that_was_sent(room: Room) -> None:
    model = room.registered()
    workspace, _ = open_with_boundaries(room.world)
    body = endpoint_body(str(model.place), "eastus2", model="card:1", ttl="4h", expires_at=1.8e9, run="r")
    answer = workspace.arm.put(
        workspace.path("serverlessEndpoints", "card"), body, params={"api-version": "2024-10-01"}
    )
    assert answer.mapping["properties"]["authMode"] == "Key"
