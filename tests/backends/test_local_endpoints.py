"""Local endpoints: keys, time limits, kills, races."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maas_client.backends.local.process import is_alive, wait_gone
from maas_client.backends.local.wire import Processes, ProcessId
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError, MaasError, NotFoundError
from maas_client.model import Lineage, ModelRef
from maas_client.run import Artifact
from maas_client.spec import DeploySpec
from tests.backends.local_stage import LocalStage
from tests.contract import wait_for

ENDED = {EndpointState.FAILED, EndpointState.STOPPED, EndpointState.EXPIRED}


@pytest.fixture
def model(stage: LocalStage) -> ModelRef:
    folder = stage.root / "run/model"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    lineage = Lineage("local://card-1", "tiny-phi3", "chat", "lora")
    return stage.models.register("card", Artifact(folder.parent, {"adapter": True}), lineage).ref


def ready(stage: LocalStage, status: EndpointStatus) -> EndpointStatus:
    return wait_for(lambda: stage.endpoints.status(status.ref), lambda now: now.state is EndpointState.READY)


def over(stage: LocalStage, ref: EndpointRef) -> EndpointStatus:
    return wait_for(lambda: stage.endpoints.status(ref), lambda now: now.state in ENDED)


def folder(stage: LocalStage, name: str = "card-end") -> Path:
    return stage.home / "endpoints" / name


def processes(stage: LocalStage, name: str = "card-end") -> Processes:
    found = Processes.read(folder(stage, name) / "process.json")
    assert found is not None
    assert found.child is not None
    return found


def kill(process: ProcessId | None) -> None:
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


def test_the_key_is_in_one_private_file_only(stage: LocalStage, model: ModelRef) -> None:
    status = ready(stage, stage.endpoints.deploy(model, DeploySpec(name="card-end")))
    key = stage.endpoints.access(status.ref).key
    assert len(key) >= 40
    assert stat.S_IMODE((folder(stage) / "key").stat().st_mode) == 0o600
    with_key = [path.name for path in folder(stage).rglob("*") if path.is_file() and key in path.read_text()]
    assert with_key == ["key"]
    commands = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(folder(stage)) in commands
    assert key not in commands
    stage.endpoints.delete(status.ref)
    assert not folder(stage).exists()


def test_an_adapter_is_served_on_its_base(stage: LocalStage, model: ModelRef) -> None:
    status = stage.endpoints.deploy(model, DeploySpec(name="card-end"))
    words = (folder(stage) / "launch.json").read_text()
    assert '"--base"' in words
    assert "models/tiny-phi3" in words
    stage.endpoints.delete(status.ref)


def test_delete_leaves_no_process(stage: LocalStage, model: ModelRef) -> None:
    status = ready(stage, stage.endpoints.deploy(model, DeploySpec(name="card-end")))
    both = processes(stage).both
    stage.endpoints.delete(status.ref)
    assert not any(map(is_alive, both))


@pytest.mark.parametrize("who", ["supervisor", "child"])
def test_kill_9_of_the_server_is_seen_and_deployed_over(stage: LocalStage, model: ModelRef, who: str) -> None:
    spec = DeploySpec(name="card-end")
    status = ready(stage, stage.endpoints.deploy(model, spec))
    before = processes(stage)
    kill(getattr(before, who))
    seen = over(stage, status.ref)
    assert seen.state is EndpointState.FAILED
    assert seen.message in {
        "The server was killed; deploy it again.",
        "The server was ended by signal 9; deploy it again.",
        "The server was ended by signal 15; deploy it again.",
    }
    assert wait_gone(before.both, 60)
    with pytest.raises(ConflictError):
        stage.endpoints.access(status.ref)
    again = ready(stage, stage.endpoints.deploy(model, spec))
    assert again.ref == status.ref
    stage.endpoints.delete(again.ref)


def test_an_endpoint_ends_with_its_time(stage: LocalStage, model: ModelRef) -> None:
    spec = DeploySpec(name="card-end", ttl="1h")
    status = ready(stage, stage.endpoints.deploy(model, spec))
    assert status.billing is Billing.FREE
    assert status.expires_at == pytest.approx(stage.clock() + 3600, abs=30)
    both = processes(stage).both
    stage.now_offset_s = 3601
    seen = stage.endpoints.status(status.ref)
    assert seen.state is EndpointState.EXPIRED
    assert "1h" in seen.message
    assert wait_gone(both, 60)
    assert ready(stage, stage.endpoints.deploy(model, spec)).state is EndpointState.READY
    stage.endpoints.delete(status.ref)


def test_a_server_that_cannot_start_says_why(stage: LocalStage, model: ModelRef) -> None:
    status = over(stage, stage.endpoints.deploy(model, DeploySpec(name="bad-end")).ref)
    assert (status.state, status.message) == (EndpointState.FAILED, "Port is in use.")
    stage.endpoints.delete(status.ref)


def test_another_port_or_time_replaces_the_endpoint(stage: LocalStage, model: ModelRef) -> None:
    ready(stage, stage.endpoints.deploy(model, DeploySpec(name="card-end")))
    first = processes(stage)
    changed = stage.endpoints.deploy(model, DeploySpec(name="card-end", ttl="1h"))
    assert changed.expires_at == pytest.approx(stage.clock() + 3600, abs=30)
    assert not any(map(is_alive, first.both))
    stage.endpoints.delete(changed.ref)


def test_two_deployments_at_once_are_one_endpoint(stage: LocalStage, model: ModelRef) -> None:
    spec = DeploySpec(name="card-end")
    with ThreadPoolExecutor(2) as pool:
        both = [
            future.result() for future in [pool.submit(stage.endpoints.deploy, model, spec) for _ in range(2)]
        ]
    assert both[0].expires_at == both[1].expires_at
    assert len(stage.endpoints.list()) == 1
    stage.endpoints.delete(both[0].ref)


def test_a_deployment_cut_off_before_its_start_is_made_anew(stage: LocalStage, model: ModelRef) -> None:
    status = stage.endpoints.deploy(model, DeploySpec(name="card-end"))
    kill(processes(stage).supervisor)
    assert wait_gone(processes(stage).both, 60)
    (folder(stage) / "process.json").unlink()
    seen = stage.endpoints.status(status.ref)
    assert (seen.state, seen.native_state) == (EndpointState.FAILED, "prepared, not started")
    ready(stage, stage.endpoints.deploy(model, DeploySpec(name="card-end")))
    stage.endpoints.delete(status.ref)


def test_a_stopped_server_is_stopped(stage: LocalStage, model: ModelRef) -> None:
    status = ready(stage, stage.endpoints.deploy(model, DeploySpec(name="card-end")))
    child = processes(stage).child
    assert child is not None
    (folder(stage) / "state.json").unlink()
    assert stage.endpoints.status(status.ref).state is EndpointState.STARTING
    os.kill(processes(stage).supervisor.pid, signal.SIGTERM)
    assert over(stage, status.ref).state is EndpointState.STOPPED
    stage.endpoints.delete(status.ref)


def test_torn_records_are_named_and_can_be_deleted(stage: LocalStage, model: ModelRef) -> None:
    status = stage.endpoints.deploy(model, DeploySpec(name="card-end"))
    both = processes(stage).both
    (folder(stage) / "state.json").write_text("{")
    assert stage.endpoints.status(status.ref).state is EndpointState.UNKNOWN
    (folder(stage) / "endpoint.json").write_text("{")
    with pytest.raises(MaasError, match=r"endpoint\.json"):
        stage.endpoints.status(status.ref)
    assert [each.state for each in stage.endpoints.list()] == [EndpointState.UNKNOWN]
    stage.endpoints.delete(status.ref)
    assert not any(map(is_alive, both))


def test_an_unknown_model_is_not_deployed(stage: LocalStage) -> None:
    with pytest.raises(NotFoundError):
        stage.endpoints.deploy(ModelRef("none", 1), DeploySpec(name="card-end"))
    assert not folder(stage).exists()
