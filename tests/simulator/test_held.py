"""What backends ask beyond the recorded journeys, and the answers, held against the contracts too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.endpoint import EndpointState
from maas_client.spec import DeploySpec
from maas_client.workspace.jobs import Jobs
from tests.backends.azureml.online_stage import REF, OnlineStage, wanted
from tests.backends.foundry.classic.room import Room
from tests.simulator.armcontracts import ML
from tests.simulator.boundaries import open_with_boundaries
from tests.simulator.held import Listener
from tests.simulator.inprocess import make_world

pytestmark = pytest.mark.skipif(not ML.is_dir(), reason="the published contracts are not here")


@pytest.fixture
def online(tmp_path: Path) -> Iterator[OnlineStage]:
    made = OnlineStage(tmp_path)
    yield made
    made.world.runner.stop()


def test_endpoints_from_the_first_version_to_the_last_look(online: OnlineStage) -> None:
    serving, wire = online.open()
    wire.heard = listener = Listener()
    online.drive(serving, online.v1)
    serving.deploy(online.v2, wanted())
    online.pass_time()
    serving.traffic(REF, {"v1": 90, "v2": 10})
    assert online.drive(serving, online.v2).state is EndpointState.READY
    online.drive(serving, online.v2, wanted(instances=2))
    online.drive(serving, online.v2, wanted(instances=2, ttl="8h"))
    serving.log(REF)
    serving.list()
    serving.access(REF)
    serving.delete(REF)
    online.pass_time()
    serving.delete(REF)
    assert listener.found == []
    assert listener.heard >= {
        "PUT onlineEndpoints NAME",
        "PATCH onlineEndpoints NAME",
        "PUT onlineEndpoints NAME deployments NAME",
        "PATCH onlineEndpoints NAME deployments NAME",
        "DELETE onlineEndpoints NAME deployments NAME",
        "POST onlineEndpoints NAME deployments NAME getLogs",
        "POST onlineEndpoints NAME listKeys",
        "DELETE onlineEndpoints NAME",
        "GET onlineEndpoints",
    }


def test_jobs_that_are_listed_and_stopped(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.runner.scripted.plant({"count": 5, "tags": {"maas-run": "x"}})
    workspace, wire = open_with_boundaries(world)
    wire.heard = listener = Listener()
    jobs = Jobs(workspace)
    assert len(list(jobs.list(tag="maas-run=x"))) == 5
    jobs.cancel("scripted-1")
    jobs.cancel("scripted-1")
    assert jobs.get("scripted-9") is None
    assert listener.found == []
    assert listener.heard == {"GET jobs", "GET jobs NAME", "POST jobs NAME cancel"}


def test_the_classic_route_with_a_model_of_another_publisher(tmp_path: Path) -> None:
    world = make_world(tmp_path, kind="Project")
    room = Room(world, tmp_path)
    model = room.registered("card", base="Ministral-3B")
    platform, wire = room.open()
    wire.heard = listener = Listener()
    ref = platform.jobs.submit(room.plan(compute={"size": "Standard_NC24ads_A100_v4"}))
    platform.jobs.status(ref)
    platform.jobs.cancel(ref)
    assert platform.endpoints is not None
    spec = DeploySpec(name="card-end", location="westus3")
    for _ in range(5):
        status = platform.endpoints.deploy(model.ref, spec)
        world.clock.move_on(200)
        world.operations.settle()
    assert status.model == "card:1"
    platform.endpoints.list()
    platform.endpoints.delete(status.ref)
    world.runner.stop()
    assert listener.found == []
    assert listener.heard >= {
        "PUT jobs NAME",
        "POST jobs NAME cancel",
        "GET marketplaceSubscriptions",
        "PUT marketplaceSubscriptions NAME",
        "PUT serverlessEndpoints NAME",
        "DELETE serverlessEndpoints NAME",
    }
