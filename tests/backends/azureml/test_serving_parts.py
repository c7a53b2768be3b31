"""What is sent to make endpoints: bodies that hold against Microsoft's contract, within Azure's limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.credentials import AccessToken

from maas_client.backends.azureml.lease import expires_at_of, is_over, lease_tags
from maas_client.backends.azureml.online import Online, read_endpoint
from maas_client.backends.azureml.serving import MOST_BASE_BYTES, Wanted, deployment_body
from maas_client.bundled import model_folder
from maas_client.errors import AccessDeniedError, PlanError
from maas_client.model import RegisteredModel
from maas_client.transport.cloud import PUBLIC
from maas_client.transport.credential import AzureCredential
from maas_client.transport.workspace import Target
from maas_client.workspace.session import Workspace
from tests.backends.azureml.online_stage import NAME, REF, OnlineStage, wanted
from tests.simulator.armcontracts import ML, operation_of, request_problems

ARM_TAGS, ARM_KEY, ARM_VALUE = 50, 512, 256


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[OnlineStage]:
    made = OnlineStage(tmp_path)
    yield made
    made.world.runner.stop()


@pytest.fixture
def adapter(stage: OnlineStage) -> RegisteredModel:
    """An adapter of the bundled model."""
    return stage.open()[0]._models.get("card", 1)


def based_on(model: RegisteredModel, base: str, *, adapter: bool = True) -> RegisteredModel:
    return replace(model, adapter=adapter, lineage=replace(model.lineage, base_model=base))


def body(want: Wanted) -> dict[str, Any]:
    return deployment_body("eastus2", want, model_id="/m", code_id="/c", environment_id="/e")


@pytest.mark.skipif(not ML.is_dir(), reason="the published contracts are not here")
def test_every_request_holds_against_its_contract(stage: OnlineStage) -> None:
    """The whole way of two versions, shares, another number of machines, and the end."""
    failures: list[str] = []
    sent: list[str] = []
    serving, wire = stage.open()
    handle = wire.handle_request

    def look(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if "/onlineEndpoints" in path and request.method in {"PUT", "PATCH", "POST"} and request.content:
            name, operation = operation_of(request.method, path)
            content = json.loads(request.content)
            sent.append(f"{request.method} {path.rpartition('/')[2]}")
            failures.extend(request_problems(name, operation, content, f"{request.method} {path}"))
            tags = content.get("tags") or {}
            assert len(tags) <= ARM_TAGS
            assert all(len(key) <= ARM_KEY and len(value) <= ARM_VALUE for key, value in tags.items())
        return handle(request)

    wire.handle_request = look  # type: ignore[method-assign]
    stage.drive(serving, stage.v1)
    stage.drive(serving, stage.v1, wanted(instances=2))
    serving.deploy(stage.v2, wanted())
    stage.pass_time()
    serving.traffic(REF, {"v1": 60, "v2": 40})
    stage.drive(serving, stage.v2)
    serving.log(REF)
    serving.delete(REF)
    assert failures == []
    assert {f"PUT {NAME}", f"PATCH {NAME}", "POST getLogs"} < set(sent)


def test_a_base_from_hugging_face_is_named_and_fetched_there(adapter: RegisteredModel) -> None:
    want = Wanted(based_on(adapter, "Phi-3-mini-4k-instruct"), wanted(), 0)
    variables = body(want)["properties"]["environmentVariables"]
    assert variables["MAAS_BASE_MODEL"] == want.base == "microsoft/Phi-3-mini-4k-instruct"
    assert "HF_HUB_OFFLINE" not in variables
    assert variables["MAAS_MODEL_NAME"] == NAME


def test_a_bundled_base_travels_with_the_code(adapter: RegisteredModel) -> None:
    want = Wanted(adapter, wanted(), 0)
    assert want.base == model_folder("tiny-phi3")
    variables = body(want)["properties"]["environmentVariables"]
    assert (variables["MAAS_BASE_MODEL"], variables["HF_HUB_OFFLINE"]) == ("base-model", "1")


def test_whole_weights_need_no_base(adapter: RegisteredModel) -> None:
    want = Wanted(based_on(adapter, "no-such-model-anywhere", adapter=False), wanted(), 0)
    assert want.base is None
    assert "MAAS_BASE_MODEL" not in body(want)["properties"]["environmentVariables"]


def test_a_base_that_cannot_be_served_is_refused_at_once(adapter: RegisteredModel, tmp_path: Path) -> None:
    place = "azureml://datastores/workspaceblobstore/paths/models/phi/"
    with pytest.raises(PlanError, match="cannot mount beside it"):
        Wanted(based_on(adapter, place), wanted(), 0)
    large = tmp_path / "large"
    large.mkdir()
    with (large / "model.safetensors").open("wb") as file:
        file.truncate(MOST_BASE_BYTES + 1)
    with pytest.raises(PlanError, match="2 GiB would go with the code"):
        Wanted(based_on(adapter, str(large)), wanted(), 0)


def test_a_slow_start_and_a_long_answer_have_time(adapter: RegisteredModel) -> None:
    properties = body(Wanted(adapter, wanted(), 0))["properties"]
    assert properties["requestSettings"]["requestTimeout"] == "PT3M"  # the most that Azure allows
    probe = properties["readinessProbe"]
    assert probe["failureThreshold"] * int(probe["period"][2:-1]) >= 20 * 60
    assert int(properties["environmentVariables"]["WORKER_TIMEOUT"]) >= 20 * 60


@pytest.mark.parametrize("text", ["", "soon", "-5", "9" * 30, "1.5"])
def test_an_end_that_cannot_be_read_is_no_end(text: str) -> None:
    assert expires_at_of({"maas-expires-at": text}) is None
    assert not is_over({"maas-expires-at": text}, 1e18)


def test_an_end_is_written_for_people_too() -> None:
    assert lease_tags("4h", 1_800_000_000.7) == {
        "maas-ttl": "4h",
        "maas-expires-at": "1800000000",
        "maas-expires": "2027-01-15T08:00:00Z",
    }
    assert lease_tags("999999d", 1e13)["maas-expires"].startswith("9999-12-31")


RECORDED = Path(__file__).parents[4] / "shared/azure"


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings of the live service are not here")
def test_what_the_live_service_said_is_read() -> None:
    """An endpoint in the moment in which it is made, one that is not there, and one that has no keys."""
    folder = RECORDED / "azure-powershell"
    made = json.loads((folder / "CreateScenarioTestOnlineEndpoint.excerpt.json").read_text(encoding="utf-8"))
    endpoint = read_endpoint(made["Entries"][0]["ResponseBody"])
    assert (endpoint.name, endpoint.native_state, endpoint.is_busy) == ("online-pwsh01", "Creating", True)
    assert (endpoint.scoring_url, endpoint.traffic, endpoint.model) == ("", {}, "")
    assert "/mfeOperationsStatus/oeidp:" in endpoint.operation_url
    keys = json.loads((folder / "Get-AzMLWorkspaceOnlineEndpointKey.json").read_text(encoding="utf-8"))
    sdk = RECORDED / "azure-sdk-for-python/recordings/batch_services/e2etests"
    name = "test_batch_endpoint.pyTestBatchEndpointtest_batch_endpoint_create.json"
    entries = json.loads((sdk / name).read_text(encoding="utf-8"))["Entries"]
    missing = next(each["ResponseBody"] for each in entries if each["StatusCode"] == 404)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/listKeys"):
            return httpx.Response(200, json=keys["Entries"][0]["ResponseBody"])
        return httpx.Response(404, json=missing)

    workspace = Workspace(
        Target("sub", "rg", "ws"),
        AzureCredential(open_source=FixedToken),
        lambda: PUBLIC,
        transport=httpx.MockTransport(answer),
    )
    online = Online(workspace)
    assert online.endpoint("gone") is None
    assert online.deployments("gone") == ()
    with pytest.raises(AccessDeniedError, match="has no keys"):
        online.key("online-pwsh01")


class FixedToken:
    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken("t", 4102444800)
