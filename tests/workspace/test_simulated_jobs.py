"""Jobs, history and metrics of the simulator's scripted jobs, without sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.backend import Backend
from maas_client.following import follow
from maas_client.run import LogPage, MetricPage, RunRef, RunState, RunStatus
from maas_client.simulator.world import World
from maas_client.transport.rest import Rest
from maas_client.workspace.history import History
from maas_client.workspace.jobs import Jobs, state_of
from maas_client.workspace.looks import look, look_at_many
from maas_client.workspace.metrics import read_metrics
from maas_client.workspace.session import Workspace
from tests.simulator.inprocess import BASE, InProcess, make_world, open_inprocess


class Place:
    """A workspace in a world, with the looks that a backend is made of."""

    name = "azureml"

    def __init__(self, world: World) -> None:
        self.world = world
        self.workspace: Workspace = open_inprocess(world)
        self.jobs = Jobs(self.workspace)
        self.history = History(
            self.workspace, storage=Rest(BASE, transport=InProcess(world), sleep=lambda _: None)
        )

    def plant(self, prefix: str, **order: Any) -> list[str]:
        return self.world.runner.scripted.plant({"prefix": prefix, **order})

    def pass_time(self, seconds: float) -> None:
        self.world.clock.move_on(seconds)

    def status(self, ref: RunRef) -> RunStatus:
        status = look(self.jobs, self.history, ref.id, seen_at=self.world.clock.now())
        assert status is not None
        return status

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        return self.history.log(ref.id, after, ended=self.has_ended(ref))

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        return read_metrics(self.workspace, ref.id, after, ended=self.has_ended(ref))

    def has_ended(self, ref: RunRef) -> bool:
        body = self.jobs.get(ref.id)
        return body is not None and state_of(body["properties"]["status"]).is_final


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    world = make_world(tmp_path)
    yield Place(world)
    world.runner.stop()


def test_a_run_is_followed_from_the_queue_to_its_end(place: Place) -> None:
    (name,) = place.plant("card", queue_s=100, seconds=600, log_every_s=30)
    for step in range(3):
        row = {"name": "train_loss", "step": step, "value": 1.0, "time": 1_800_000_000.0 + step}
        place.world.runner.record(f"{place.world.names.workspace_id}/jobs/{name}")["metrics"].append(row)
    jobs: Backend = place  # type: ignore[assignment]
    sights = list(follow(jobs, RunRef("azureml", name), sleep=place.pass_time))
    lines = [line.split(" ", 1)[1] for sight in sights for line in sight.lines]
    assert lines == [f"line {number}" for number in range(20)]
    assert [event["step"] for sight in sights for event in sight.events] == [0, 1, 2]
    states = [sight.status.state for sight in sights]
    assert (states[0], states[-1]) == (RunState.QUEUED, RunState.SUCCEEDED)
    last = sights[-1].status
    assert last.ended_at is not None
    assert last.started_at is not None
    assert last.ended_at - last.started_at == pytest.approx(600, abs=1e-3)


def test_many_runs_are_looked_at_in_pages(place: Place) -> None:
    names = [place.plant(f"run{n}", tags={"maas-run": f"run{n}-0"}, queue_s=0)[0] for n in range(20)]
    place.plant("other", count=30)
    place.world.requests.clear()
    seen = look_at_many(place.jobs, place.history, names, seen_at=0.0)
    assert set(seen) == set(names)
    assert {status.state for status in seen.values()} == {RunState.RUNNING}
    assert len([one for one in place.world.requests if "/jobs" in one]) <= 10  # three a page, then one by one


def test_a_canceled_run_is_canceled_once(place: Place) -> None:
    (name,) = place.plant("card", queue_s=0, seconds=1000)
    place.pass_time(10)
    place.jobs.cancel(name)
    place.jobs.cancel(name)
    assert place.status(RunRef("azureml", name)).state is RunState.CANCELED


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 403, "match": "/scripted/", "times": 2},
        {"kind": "status", "status": 503, "times": 4},
        {"kind": "status", "status": 429, "retry_after": 1, "match": "details"},
        {"kind": "expired_token", "match": "GET .*/jobs/"},
        {"kind": "job_status", "word": "Thawing", "match": "card", "seconds": 1},
    ],
)
def test_a_look_goes_well_through_trouble(place: Place, fault: dict[str, Any]) -> None:
    (name,) = place.plant("card", queue_s=0, seconds=300, log_every_s=30)
    place.pass_time(1000)
    place.world.faults.order(fault)
    jobs: Backend = place  # type: ignore[assignment]
    sights = list(follow(jobs, RunRef("azureml", name), sleep=place.pass_time))
    assert sights[-1].status.state is RunState.SUCCEEDED
    assert sum(len(sight.lines) for sight in sights) == 10
    assert place.world.faults.struck


def test_a_strange_host_in_a_log_url_sees_no_token(place: Place) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(206, content=b"x\n", headers={"content-range": "bytes 0-1/2"})

    (name,) = place.plant("card", queue_s=0, seconds=300)
    place.pass_time(1)
    history = History(
        place.workspace, storage=Rest("https://localhost", transport=httpx.MockTransport(answer))
    )
    assert history.log(name, None, ended=False).lines == ("x",)
    assert "authorization" not in asked[0].headers
