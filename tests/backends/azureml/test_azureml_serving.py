"""Endpoints against a simulator that really runs what is deployed: the contract, a chat, kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.backend import Platform
from maas_client.backends.azureml.endpoints import AzuremlEndpoints
from maas_client.backends.azureml.serving import BundledAssets
from maas_client.chat import open_chat
from maas_client.cloudpath import CloudPath
from maas_client.endpoint import EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError, NotFoundError
from maas_client.model import Lineage, ModelRef
from maas_client.run import Artifact
from maas_client.settings import settings
from maas_client.simulator import Simulator
from maas_client.spec import DeploySpec
from maas_client.workspace.datastores import DEFAULT, Place
from maas_client.workspace.files import Files
from maas_client.workspace.models import WorkspaceModels
from maas_client.workspace.session import open_workspace
from tests.backends.azureml.stage import SIZE, AzuremlStage
from tests.contract import ServingContract, wait_for
from tests.jobs.server_stage import ROOT, TINY_PHI3, make_adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::marshmallow"),
    pytest.mark.filterwarnings("ignore:::azure"),
]
SCRIPT = """\
import json, os
def init():
    name = os.environ["MAAS_MODEL_NAME"]
    if name.startswith("bad"):
        raise SystemExit("InputError: the adapter is damaged.")
    print("serves", sorted(os.listdir(os.environ["AZUREML_MODEL_DIR"])), flush=True)
def run(body):
    asked = json.loads(body)
    if asked == {"maas": "health"}:
        return {**asked, "model": os.environ["MAAS_MODEL_NAME"]}
    said = asked["messages"][-1]["content"].upper()
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"choices": [choice], "usage": usage, "model": os.environ["MAAS_MODEL_NAME"]}
"""


class ServingStage(AzuremlStage):
    """The azureml stage with a scoring script that needs no model; everything else is the real thing."""

    def assets(self) -> BundledAssets:
        """The stand-in script and the bundled environment."""
        code = self.root / "score"
        code.mkdir(exist_ok=True)
        (code / "score.py").write_text(SCRIPT)
        workspace = open_workspace(settings())
        return BundledAssets(workspace, Files(workspace), code=code)

    def open(self, home: str = "home") -> Platform:
        platform = super().open(home)
        workspace = open_workspace(settings())
        models = WorkspaceModels(lambda: workspace)
        endpoints = AzuremlEndpoints(
            self.root / home,
            workspace=lambda: workspace,
            models=models,
            clock=self.azure.world.clock.now,
            assets=self.assets,
        )
        return Platform("azureml", platform.jobs, models, endpoints, targets=platform.targets)

    def register(self, folder: Path, *, name: str = "card", run: str = "run-1") -> ModelRef:
        """Put a folder into the workspace's storage and register it."""
        place = Place(DEFAULT, f"maas/{run}/run/model/")
        Files(open_workspace(settings())).upload(folder, place)
        assert self.platform.models is not None
        artifact = Artifact(folder, {"adapter": True}, CloudPath(str(place)))
        lineage = Lineage(run, "tiny-phi3", "chat", "lora")
        return self.platform.models.register(name, artifact, lineage).ref

    @property
    def serving(self) -> AzuremlEndpoints:
        assert isinstance(self.platform.endpoints, AzuremlEndpoints)
        return self.platform.endpoints

    def drive(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Deploy again and again until it is no longer starting."""
        return wait_for(
            lambda: self.serving.deploy(model, spec),
            lambda status: status.state is not EndpointState.STARTING,
        )

    def at_azure(self, kind: str) -> list[dict[str, Any]]:
        """What is there now; operations end when somebody looks."""
        self.azure.world.operations.settle()
        return self.azure.world.store.members(f"{self.target.path}/{kind}")

    def clear(self) -> None:
        """Free the names of endpoints, which are taken in the whole region, and end what answers."""
        for endpoint in self.at_azure("onlineEndpoints"):
            for each in self.at_azure(f"onlineEndpoints/{endpoint['name']}/deployments"):
                self.azure.world.servers.end(each["id"])
            self.azure.world.store.delete(endpoint["id"])


@pytest.fixture
def stage(azure: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServingStage]:
    made = ServingStage(azure, tmp_path, monkeypatch)
    yield made
    azure.world.faults.clear()
    made.clear()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def wanted(name: str = "card-end", **parts: Any) -> DeploySpec:
    return DeploySpec.model_validate({"name": name, "size": SIZE, **parts})


class TestAzuremlEndpoints(ServingContract):
    """Endpoints."""

    def wanted(self, name: str = "card-end") -> DeploySpec:
        return wanted(name)


def test_deploy_and_chat_with_an_adapter_of_tiny_phi3(stage: ServingStage, tmp_path: Path) -> None:
    """The real score.py with the real base model beside it, as it is deployed."""
    ref = stage.register(make_adapter(TINY_PHI3, tmp_path / "adapter"))
    serving = AzuremlStage.open(stage).endpoints
    assert serving is not None
    spec = wanted(ttl="90d")  # the clock is fast
    status = wait_for(
        lambda: serving.deploy(ref, spec), lambda status: status.state is not EndpointState.STARTING
    )
    assert status.state is EndpointState.READY, status
    access = serving.access(status.ref)
    chat = open_chat(access.url, access.key, access.model, speaks=access.speaks)
    answer = chat.complete([{"role": "user", "content": "Hello"}], max_tokens=8)
    assert answer.completion_tokens == 8
    (deployment,) = stage.at_azure("onlineEndpoints/card-end/deployments")
    snapshot = deployment["properties"]["codeConfiguration"]["codeId"]
    assert stage.azure.world.store.get(snapshot) is not None
    assert deployment["properties"]["environmentVariables"]["MAAS_BASE_MODEL"] == "base-model"
    serving.delete(status.ref)


def test_code_and_environment_are_sent_once(stage: ServingStage, weights: Path) -> None:
    first, second = stage.register(weights), stage.register(weights, run="run-2")
    assert stage.drive(first, wanted()).state is EndpointState.READY
    codes = [text for text in stage.requests if text.startswith("PUT /codes/")]
    assert len(codes) == 1
    assert stage.drive(second, wanted()).model == "card:2"
    assert [text for text in stage.requests if text.startswith("PUT /codes/")] == codes
    log = wait_for(lambda: stage.serving.log(EndpointRef("azureml", "card-end")), lambda lines: bool(lines))
    assert any("serves ['model']" in line for line in log)


def test_a_script_that_cannot_start_says_why(stage: ServingStage, weights: Path) -> None:
    """Azure calls the deployment succeeded; nobody answers, and after a while its log is shown."""
    ref = stage.register(weights)
    spec = wanted("bad-end")
    status = wait_for(
        lambda: stage.serving.deploy(ref, spec), lambda status: "does not answer yet" in status.message
    )
    assert status.state is EndpointState.STARTING
    stage.azure.world.clock.move_on(20 * 60)
    status = stage.serving.status(status.ref)
    assert "its log ends with: InputError: the adapter is damaged" in status.message
    with pytest.raises(ConflictError):
        stage.serving.access(status.ref)


def test_a_newer_version_takes_over_without_an_answer_lost(stage: ServingStage, weights: Path) -> None:
    first, second = stage.register(weights), stage.register(weights, run="run-2")
    access = stage.serving.access(stage.drive(first, wanted(ttl="90d")).ref)
    answers: list[int] = []
    over = threading.Event()

    def ask() -> None:
        question = {"messages": [{"role": "user", "content": "hello"}]}
        with httpx.Client(headers={"Authorization": f"Bearer {access.key}"}, timeout=60) as client:
            while not over.is_set():
                answers.append(client.post(access.url, json=question).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        status = stage.drive(second, wanted(ttl="90d"))
    finally:
        over.set()
        asking.join(60)
    assert (status.state, status.model) == (EndpointState.READY, "card:2")
    assert set(answers) == {200}
    assert len(answers) > 5


def start_child(stage: ServingStage, version: int, ids: tuple[str, str]) -> subprocess.Popen[bytes]:
    """A terminal that deploys a version of `card` until it is ready."""
    script = Path(__file__).parent / "deploying_child.py"
    words = [sys.executable, str(script), str(stage.root / "home"), str(version), SIZE, *ids]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=stage.root)


BOUNDARIES = {
    "endpoint": (1, "PUT .*/onlineEndpoints/card-end$", 0),
    "deployment": (1, "PUT .*/deployments/v1-", 0),
    "traffic": (1, "PUT .*/onlineEndpoints/card-end$", 1),
    "newer deployment": (2, "PUT .*/deployments/v2-", 0),
    "older deployment away": (2, "DELETE .*/deployments/v1-", 0),
}


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_kill_9_of_a_deploying_process_is_deployed_exactly_once(
    stage: ServingStage, weights: Path, boundary: str
) -> None:
    """It is killed while it waits for an answer to a request that was done. Then two come at once."""
    version, pattern, after = BOUNDARIES[boundary]
    refs = [stage.register(weights), stage.register(weights, run="run-2")]
    ids = stage.assets().ensure(None)
    if version == 2:
        assert stage.drive(refs[0], wanted(ttl="900d")).state is EndpointState.READY
    order = {"kind": "slow", "match": pattern, "after": after, "seconds": 30}
    fault = stage.azure.world.faults.order(order)
    child = start_child(stage, version, ids)
    try:
        wait_for(lambda: fault.hits, lambda hits: hits > after)
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        stage.azure.world.faults.clear()
        both = [start_child(stage, version, ids) for _ in range(2)]
        for each in both:
            assert each.wait(120) == 0
    finally:
        child.kill()
    wait_for(lambda: len(stage.at_azure("onlineEndpoints/card-end/deployments")), lambda count: count == 1)
    assert [each["name"] for each in stage.at_azure("onlineEndpoints")] == ["card-end"]
    (deployment,) = stage.at_azure("onlineEndpoints/card-end/deployments")
    assert deployment["tags"]["maas-model"] == f"card:{version}"
    assert stage.at_azure("onlineEndpoints")[0]["properties"]["traffic"] == {deployment["name"]: 100}
    stage.serving.delete(EndpointRef("azureml", "card-end"))
    wait_for(lambda: stage.at_azure("onlineEndpoints"), lambda there: not there)
    with pytest.raises(NotFoundError):
        stage.serving.status(EndpointRef("azureml", "card-end"))
