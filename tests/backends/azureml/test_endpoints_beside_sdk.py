"""What azure-ai-ml does to endpoints and models, and what we do, on the same simulator.

Each test shows the package going wrong where ours does not, or both sending the same.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.chat import open_chat
from maas_client.cloudpath import CloudPath
from maas_client.endpoint import EndpointRef, EndpointState
from maas_client.model import Lineage, ModelRef
from maas_client.run import Artifact
from maas_client.settings import settings
from maas_client.simulator import Simulator
from maas_client.workspace.session import open_workspace
from tests.backends.azureml.stage import SIZE
from tests.backends.azureml.test_azureml_serving import ServingStage, wanted

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::marshmallow"),
    pytest.mark.filterwarnings("ignore:::azure"),
]
REF = EndpointRef("azureml", "card-end")


@pytest.fixture
def stage(azure: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServingStage]:
    made = ServingStage(azure, tmp_path, monkeypatch)
    yield made
    azure.world.faults.clear()
    made.clear()


@pytest.fixture
def client(stage: ServingStage) -> Any:
    """The MLClient of the stage's workspace."""
    return open_workspace(settings()).client


@pytest.fixture
def model(stage: ServingStage, tmp_path: Path) -> ModelRef:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return stage.register(folder)


def sdk_deployment(stage: ServingStage, name: str, *, like: dict[str, Any]) -> Any:
    """A ManagedOnlineDeployment that asks for what ours asks for."""
    from azure.ai.ml.entities import (
        CodeConfiguration,
        ManagedOnlineDeployment,
        OnlineRequestSettings,
        ProbeSettings,
    )

    asked = like["properties"]
    probe = ProbeSettings(initial_delay=30, period=10, timeout=5, failure_threshold=120)
    return ManagedOnlineDeployment(
        name=name,
        endpoint_name=REF.name,
        model=asked["model"],
        environment=asked["environmentId"],
        code_configuration=CodeConfiguration(code=str(stage.root / "score"), scoring_script="score.py"),
        environment_variables=asked["environmentVariables"],
        instance_type=SIZE,
        instance_count=1,
        request_settings=OnlineRequestSettings(
            request_timeout_ms=180_000, max_concurrent_requests_per_instance=4
        ),
        liveness_probe=probe,
        readiness_probe=probe,
        tags=like["tags"],
    )


def test_both_ask_for_the_same_deployment_and_only_ours_is_silent(
    stage: ServingStage, client: Any, model: ModelRef, capfd: pytest.CaptureFixture[str]
) -> None:
    assert stage.drive(model, wanted(ttl="900d")).state is EndpointState.READY
    assert capfd.readouterr().out == ""
    (ours,) = stage.at_azure("onlineEndpoints/card-end/deployments")
    client.online_deployments.begin_create_or_update(sdk_deployment(stage, "theirs", like=ours)).result()
    printed = capfd.readouterr().out
    assert printed
    assert set(printed) == {"."}
    theirs = stage.at_azure("onlineEndpoints/card-end/deployments")[1]
    for part in ("location", "tags", "sku", "kind"):
        assert ours[part] == theirs[part]
    assert _comparable(ours) == _comparable(theirs)


def _comparable(deployment: dict[str, Any]) -> dict[str, Any]:
    """What was asked for; snapshots have names of their own, durations several spellings."""
    asked = {key: value for key, value in deployment["properties"].items() if key != "properties"}
    text = json.dumps({**asked, "codeConfiguration": asked["codeConfiguration"]["scoringScript"]})
    defaults = {"successThreshold": 1, "maxQueueWait": "PT0.5S"}
    read: dict[str, Any] = json.loads(text)
    for part in ("livenessProbe", "readinessProbe", "requestSettings"):
        read[part] = {**defaults, **read[part]}
        read[part] = {key: value for key, value in read[part].items() if key not in defaults}
    return read


def test_an_invoke_of_the_package_leaves_its_headers_in_the_next_one(
    stage: ServingStage, client: Any, model: ModelRef, tmp_path: Path
) -> None:
    """`deployment_name` of a first call goes to the next endpoint, which has no such deployment."""
    for name in ("card-end", "other-end"):
        assert stage.drive(model, wanted(name, ttl="900d")).state is EndpointState.READY
    spec = wanted(ttl="900d", size="Standard_NC24ads_A100_v4")
    assert stage.drive(model, spec).state is EndpointState.READY
    (chosen,) = stage.serving.traffic(REF)
    question = tmp_path / "question.json"
    question.write_text(json.dumps({"messages": [{"role": "user", "content": "hello"}]}))
    invoke = client.online_endpoints.invoke
    assert "HELLO" in invoke("card-end", request_file=str(question), deployment_name=chosen)
    with pytest.raises(Exception, match="not there or not ready"):
        invoke("other-end", request_file=str(question))
    for name in ("card-end", "other-end", "card-end"):
        access = stage.serving.access(EndpointRef("azureml", name))
        chat = open_chat(access.url, access.key, access.model, speaks=access.speaks)
        assert chat.complete([{"role": "user", "content": "hello"}]).text == "HELLO"


def test_the_package_overwrites_shares_and_leases_that_others_set(
    stage: ServingStage, client: Any, model: ModelRef
) -> None:
    """It writes the whole endpoint as it was read, minutes ago as well as just now."""
    assert stage.drive(model, wanted(ttl="900d")).state is EndpointState.READY
    (ours,) = stage.at_azure("onlineEndpoints/card-end/deployments")
    client.online_deployments.begin_create_or_update(sdk_deployment(stage, "theirs", like=ours)).result()
    entity = client.online_endpoints.get("card-end")
    stage.serving.traffic(REF, {ours["name"]: 80, "theirs": 20})
    entity.description = "a word of mine"
    client.online_endpoints.begin_create_or_update(entity).result()
    assert stage.at_azure("onlineEndpoints")[0]["properties"]["traffic"] == {ours["name"]: 100}
    stage.serving.traffic(REF, {ours["name"]: 70, "theirs": 30})
    status = stage.serving.deploy(model, wanted(ttl="901d"))
    endpoint = stage.at_azure("onlineEndpoints")[0]
    assert status.expires_at is not None
    assert endpoint["tags"]["maas-ttl"] == "901d"
    assert endpoint["properties"]["description"] == "a word of mine"


def test_two_registrations_at_once_meet_in_the_package_and_not_in_ours(
    stage: ServingStage, client: Any
) -> None:
    """Both read the same next version; the package's second one fails or is refused."""
    from azure.ai.ml.entities import Model

    uri = "azureml://datastores/workspaceblobstore/paths/maas/{}/run/model/"

    def theirs(run: str) -> None:
        client.models.create_or_update(
            Model(name="theirs", path=uri.format(run), type="custom_model", tags={"run": run})
        )

    def ours(run: str) -> None:
        artifact = Artifact(stage.root, {"adapter": True}, CloudPath(uri.format(run)))
        lineage = Lineage(run, "tiny-phi3", "chat", "lora")
        assert stage.open().models is not None
        stage.open().models.register("ours", artifact, lineage)  # type: ignore[union-attr]

    stage.azure.world.timing.latency_s = 0.3
    try:
        failed = _at_once(theirs, "run-1", "run-2")
        assert len(failed) == 1
        assert "already exists" in str(failed[0])
        assert _at_once(ours, "run-1", "run-2", "run-1") == []
    finally:
        stage.azure.world.timing.latency_s = 0.0
    kept = stage.azure.world.store.members(f"{stage.target.path}/models/ours/versions")
    assert sorted(each["properties"]["tags"]["maas-run"] for each in kept) == ["run-1", "run-2"]


def _at_once(call: Callable[[str], None], *runs: str) -> list[Exception]:
    failed: list[Exception] = []

    def go(run: str) -> None:
        try:
            call(run)
        except Exception as error:  # noqa: BLE001  whatever the package raises
            failed.append(error)

    threads = [threading.Thread(target=go, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return failed
