"""Commands that are killed (-9) while a request is on its way, then given again: one job, one endpoint."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.foundry.classic.models import ClassicModels
from maas_client.cloudpath import CloudPath
from maas_client.ledger import Ledger
from maas_client.model import Lineage
from maas_client.run import Artifact
from maas_client.settings import settings
from maas_client.simulator import Simulator
from maas_client.simulator.arm import make_workspace
from maas_client.simulator.datastores import make_datastores
from maas_client.simulator.world import Timing
from maas_client.workspace.session import open_workspace
from tests.backends.azureml.test_azureml_exactly_once import PATIENCE_S, TRANSIENT, Scene, Submitter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOB = """\
name: card
task: chat
model: Phi-4-mini-instruct
backend: foundry
data: {train: rows.jsonl, validation: {split: 0.5}}
register: {name: card-end}
deploy: {name: card-end}
"""


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    """A simulator in which jobs wait for ever and endpoints are never ready: nothing trains or serves."""
    timing = Timing(queue_s=1e9, provisioning_s=1e9)
    with Simulator(speed=60, timing=timing) as running, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def submitter(azure: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitter]:
    submitter = Submitter(tmp_path_factory.mktemp("submitter"))
    yield submitter
    submitter.stop()


SetScene = Callable[[], Scene]


@pytest.fixture
def set_scene(azure: Simulator, submitter: Submitter, tmp_path: Path) -> Iterator[SetScene]:
    def make() -> Scene:
        mark = uuid.uuid4().hex[:8]
        scene = Scene(azure, submitter, tmp_path / mark, f"ws-{mark}")
        scene.folder.mkdir()
        (scene.folder / "job.yaml").write_text(JOB)
        rows = [json.dumps({"prompt": f"{mark} {number}", "completion": "ok"}) for number in range(8)]
        (scene.folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
        make_workspace(azure.world, scene.path, {"kind": "Project"})
        make_datastores(azure.world, scene.path)
        return scene

    yield make
    azure.world.faults.clear()


def do(scene: Scene, verb: str, *homes: str) -> list[int]:
    scene.start(verb, *homes)
    return scene.submitter.codes()


def requests_of(scene: Scene, verb: str) -> int:
    before = len(scene.requests)
    assert do(scene, verb) == [0], scene.submitter.log.read_text()[-2000:]
    return len(scene.requests) - before


def kill_at(scene: Scene, verb: str, number: int) -> bool:
    """Kill the command when its request of that number was done and its reply is on its way."""
    before = len(scene.requests)
    scene.fault("slow", after=number, seconds=20)
    [pid] = scene.start(verb)
    deadline = time.monotonic() + PATIENCE_S
    while len(scene.requests) <= before + number:
        assert time.monotonic() < deadline, scene.requests[before:]
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    killed = scene.submitter.codes() == [-signal.SIGKILL]
    scene.azure.world.faults.clear()
    return killed


def test_exactly_once_when_the_submission_is_killed_at_any_request(set_scene: SetScene) -> None:
    killed = 0
    for number in range(requests_of(set_scene(), "submit")):
        scene = set_scene()
        killed += kill_at(scene, "submit", number)
        assert len(scene.jobs) <= 1
        scene.must_hold()
    assert killed >= 4


@pytest.mark.parametrize("kind", ["lost_reply", "reset"])
def test_exactly_once_when_a_connection_breaks_at_any_request(set_scene: SetScene, kind: str) -> None:
    struck = 0
    for number in range(requests_of(set_scene(), "submit")):
        scene = set_scene()
        scene.fault(kind, after=number)
        [code] = do(scene, "submit")
        assert code in {0, *TRANSIENT}
        struck += scene.azure.world.faults.standing()[0].hits > number
        scene.must_hold()
    assert struck >= 4


def test_exactly_once_when_two_terminals_submit_at_once(set_scene: SetScene) -> None:
    scene = set_scene()
    assert do(scene, "submit", "home", "home", "other") == [0, 0, 0]
    scene.must_hold()


# -- endpoints


def register(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that can be served, without any training."""
    monkeypatch.setenv("AZUREML_WORKSPACE_NAME", scene.workspace)
    workspace = open_workspace(settings())
    place = CloudPath("azureml://datastores/workspaceblobstore/paths/azureml/card-1/run/model/")
    lineage = Lineage("card-1", "Phi-4-mini-instruct", "chat", "lora")
    ClassicModels(lambda: workspace).register("card-end", Artifact(Path("gone"), {}, place), lineage)


def endpoints(scene: Scene) -> list[dict[str, Any]]:
    return list(scene.azure.world.store.members(f"{scene.path}/serverlessEndpoints"))


def one_endpoint(scene: Scene) -> None:
    """The same command again succeeds, and there is one endpoint, which the ledger knows."""
    assert do(scene, "deploy") == [0], scene.submitter.log.read_text()[-2000:]
    [endpoint] = endpoints(scene)
    assert endpoint["name"] == "card-end"
    assert endpoint["tags"]["maas-model"] == "card-end:1"
    done = Ledger(scene.folder / "home" / "ledger.sqlite3").actions("card-end")[-1]
    assert (done.verb, done.error) == ("deploy", None)


def test_exactly_once_when_the_deployment_is_killed_at_any_request(
    set_scene: SetScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = set_scene()
    register(counted, monkeypatch)
    killed = 0
    for number in range(requests_of(counted, "deploy")):
        scene = set_scene()
        register(scene, monkeypatch)
        killed += kill_at(scene, "deploy", number)
        assert len(endpoints(scene)) <= 1
        one_endpoint(scene)
    assert killed >= 3


def test_exactly_once_when_two_terminals_deploy_at_once(
    set_scene: SetScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = set_scene()
    register(scene, monkeypatch)
    assert do(scene, "deploy", "home", "home", "other") == [0, 0, 0]
    one_endpoint(scene)
