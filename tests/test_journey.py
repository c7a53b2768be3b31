"""The whole way of a job, cut off at every step and begun again: one run, one version, one endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from maas_client.cli.views import journey_view
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import RunCanceledError, RunFailedError, StillRunningError
from maas_client.following import follow
from maas_client.journey import Journey, bill_words, require_success, travel
from maas_client.ledger import RunRecord
from maas_client.project import Project
from maas_client.run import RunState, RunStatus
from maas_client.specfile import load_spec
from tests.conftest import JOB
from tests.fakes import NAME, RESULT, CutOffError, World

WriteJob = Callable[..., Path]
ALL_THE_WAY = JOB + "register: {name: kept}\ndeploy: {name: served}\n"


class Answering(BaseHTTPRequestHandler):
    """Answers every question as a chat endpoint does."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": f"You asked: {asked['messages'][-1]['content']}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head = {"id": "c1", "object": "chat.completion", "created": 1, "model": "kept:1"}
        body = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def look_on(project: Project, record: RunRecord) -> RunStatus:
    """Follow a run without waiting between looks."""
    status = [sight.status for sight in follow(project.platform(NAME).jobs, record.ref, poll_s=0)][-1]
    project.look(record)
    return status


def go(world: World, home: Path, job: Path, *, again: bool = False) -> Journey:
    """The whole way, as a new process."""
    project = Project(home, platforms={NAME: world.open()})
    return travel(project, project.plan(load_spec(job)), follow=look_on, again=again)


def test_the_whole_way(tmp_path: Path, write_job: WriteJob, url: str) -> None:
    world = World(tmp_path / "world", url=url)
    journey = go(world, tmp_path / "home", write_job(ALL_THE_WAY))
    data = json.loads(json.dumps(journey.to_dict(), default=str))
    assert data["run"]["state"] == "succeeded"
    assert data["result"] == RESULT
    assert data["model"]["ref"] == "kept:1"
    assert data["endpoint"]["state"] == "ready"
    assert data["question"] == "Where is my card?"
    assert data["expected"] == "card_arrival"
    assert data["answer"] == "You asked: Where is my card?"


def test_a_journey_ends_where_the_job_file_ends(tmp_path: Path, write_job: WriteJob) -> None:
    world = World(tmp_path / "world")
    journey = go(world, tmp_path / "home", write_job(JOB))
    assert (journey.model, journey.endpoint, journey.answer) == (None, None, None)
    job = write_job(JOB + "register: {name: kept}\n", folder="second")
    journey = go(world, tmp_path / "home", job)
    assert journey.model is not None
    assert (str(journey.model.ref), journey.endpoint) == ("kept:1", None)
    assert len(world.submissions) == 1


BOUNDARIES = 26


@pytest.mark.parametrize("cut_at", range(BOUNDARIES))
def test_cut_off_anywhere_and_begun_again(tmp_path: Path, write_job: WriteJob, url: str, cut_at: int) -> None:
    world, job = World(tmp_path / "world", url=url, cut_at=cut_at), write_job(ALL_THE_WAY)
    with pytest.raises(CutOffError):
        go(world, tmp_path / "home", job)
    world.cut_at = None
    journey = go(world, tmp_path / "home", job)
    assert journey.answer is not None
    assert len(world.submissions) == 1
    assert [str(model.ref) for model in world.versions] == ["kept:1"]
    assert list(world.endpoints) == ["served"]
    ledger = Project(tmp_path / "home").ledger
    assert [run.state for run in ledger.runs()] == [RunState.SUCCEEDED]
    for verb in ("register", "deploy"):
        done = [one for one in ledger.actions() if one.verb == verb and one.result is not None]
        assert done, verb


def test_every_boundary_of_a_journey_was_cut(tmp_path: Path, write_job: WriteJob, url: str) -> None:
    world = World(tmp_path / "world", url=url)
    go(world, tmp_path / "home", write_job(ALL_THE_WAY))
    assert len(world.boundaries) == BOUNDARIES
    verbs = {boundary.partition(" ")[2] for boundary in world.boundaries}
    assert verbs == {
        "check",
        "submit",
        "status",
        "artifact",
        "register",
        "deploy",
        "endpoint status",
        "access",
    }


def test_again_is_a_second_run_and_version_and_the_endpoint_serves_it(
    tmp_path: Path, write_job: WriteJob, url: str
) -> None:
    world, job = World(tmp_path / "world", url=url), write_job(ALL_THE_WAY)
    go(world, tmp_path / "home", job)
    journey = go(world, tmp_path / "home", job, again=True)
    assert [str(model.ref) for model in world.versions] == ["kept:1", "kept:2"]
    assert len(world.submissions) == 2
    assert journey.endpoint is not None
    assert journey.endpoint.model == "kept:2"


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (RunState.FAILED, RunFailedError),
        (RunState.CANCELED, RunCanceledError),
        (RunState.RUNNING, StillRunningError),
        (RunState.QUEUED, StillRunningError),
        (RunState.UNKNOWN, StillRunningError),
    ],
)
def test_what_became_of_a_run(
    tmp_path: Path, write_job: WriteJob, state: RunState, error: type[Exception]
) -> None:
    project = Project(tmp_path / "home", platforms={NAME: World(tmp_path).open()})
    record = project.submit(project.plan(load_spec(write_job())))
    with pytest.raises(error, match=record.id) as caught:
        require_success(record, RunStatus(state, "word", seen_at=1.0, message="why"))
    assert record.id in getattr(caught.value, "hint", "")
    require_success(record, RunStatus(RunState.SUCCEEDED, "word", seen_at=1.0))


# -- at a service


def serve(tmp_path: Path, url: str, **more: Any) -> World:
    """A service that measures nothing and bills for its endpoints."""
    known = {"name": "azureml", "target": "T", "named": ("T",), "is_free": False, "has_samples": False}
    cost = "$1.00 an hour until it is deleted."
    return World(tmp_path / "azure", url=url, result={}, endpoint_cost=cost, **{**known, **more})


def test_a_service_that_measures_nothing_is_gone_all_the_way_with(
    tmp_path: Path, write_job: WriteJob, url: str
) -> None:
    world, told = serve(tmp_path, url), list[str]()
    project = Project(tmp_path / "home", platforms={"azureml": world.open()})
    plan = project.plan(load_spec(write_job(ALL_THE_WAY + "backend: azureml\n")))

    def look(project: Project, record: RunRecord) -> RunStatus:
        while not (status := project.look(record)).state.is_final:
            pass
        return status

    journey = travel(project, plan, follow=look, tell=told.append)
    assert journey.result == {}
    assert journey.sample is not None
    assert journey.answer is not None
    assert journey.answer.text == f"You asked: {journey.sample['prompt']}"
    assert told == ["Endpoint served is ready."]
    data = json.loads(json.dumps(journey.to_dict(), default=str))
    assert (data["result"], data["endpoint"]["billing"]) == ({}, "billing")
    view = journey_view(journey).plain()
    assert "METRIC" not in view
    assert f"  expected   {journey.sample['expected']}" in view


def test_what_an_endpoint_costs_and_how_it_ends() -> None:
    ref = EndpointRef("azureml", "card")
    status = EndpointStatus(ref, EndpointState.READY, "ready", 1.0, "m:1", Billing.FREE)
    assert bill_words(status) == "Endpoint card runs on this machine until it is deleted and costs nothing."
    bills = replace(status, billing=Billing.BILLING, cost="$1.70 an hour (page, 2026).")
    assert bill_words(bills) == "Endpoint card bills until it is deleted. $1.70 an hour (page, 2026)."
    ends = bill_words(replace(bills, expires_at=4e9))
    assert " on 2096-10-02, and `maas reap` deletes it then. $1.70" in ends
    told = bill_words(replace(bills, expires_at=4e9, cost="$1 an hour: maas reap ends it."))
    assert told.count("maas reap") == 1
    unknown = bill_words(replace(status, billing=Billing.UNKNOWN))
    assert unknown == "Endpoint card may bill (whether it does is unknown) until it is deleted."
