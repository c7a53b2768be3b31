"""The whole way of a job file on the classic route: trained, registered, served, asked, reaped; again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.backend import Backend
from maas_client.endpoint import Billing, EndpointState
from maas_client.following import follow
from maas_client.journey import Journey, travel
from maas_client.ledger import RunRecord
from maas_client.project import Project
from maas_client.run import Event, RunState, RunStatus
from maas_client.simulator import Simulator
from maas_client.simulator.world import Timing
from maas_client.spec import JobSpec
from tests.backends.foundry.classic.stage import ClassicStage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXTS = [("my card is late", "late"), ("i lost my card", "lost"), ("a fee that i do not know", "fee")]


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    """A whole simulator with a fast clock, and this process pointed at it."""
    with (
        Simulator(speed=600, timing=Timing(tuning_steps=6)) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def stage(azure: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClassicStage]:
    stage = ClassicStage(azure, tmp_path, monkeypatch)
    rows = [{"text": f"{text} {number}", "label": label} for number, (text, label) in enumerate(TEXTS * 5)]
    stage.data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    yield stage
    stage.end_all()
    stage.forget()


def test_the_whole_way_and_the_same_command_again(stage: ClassicStage) -> None:
    project = Project(
        stage.root / ".maas", clock=stage.azure.world.clock.now, platforms={"foundry": stage.platform}
    )
    wanted = stage.spec(name="cards", task="classification", deploy={"name": "cards-end", "ttl": "9d"})
    spec = JobSpec.model_validate_json(wanted.model_dump_json(by_alias=True))
    lines: list[str] = []
    events: list[Event] = []

    def watch(project: Project, record: RunRecord) -> RunStatus:
        jobs: Backend = project.platform(record.backend).jobs
        for sight in follow(jobs, record.ref, poll_s=0.2):
            lines.extend(sight.lines)
            events.extend(sight.events)
        return project.look(record)

    plan = project.plan(spec)
    assert not plan.is_free
    checks = project.preflight(plan)
    assert {check.ok for check in checks} == {True}
    first = travel(project, plan, follow=watch)
    holds(stage, first, lines, events)

    sent = len(stage.requests)
    second = travel(project, project.plan(spec), follow=watch)
    assert second.run.id == first.run.id
    assert (second.model, second.endpoint and second.endpoint.ref) == (
        first.model,
        first.endpoint and first.endpoint.ref,
    )
    made = [each for each in stage.requests[sent:] if each.startswith("PUT")]
    assert made == []
    assert stage.jobs() == [first.run.id]

    [status] = project.endpoints()
    assert (status.state, status.billing) == (EndpointState.READY, Billing.BILLING)
    stage.azure.world.clock.move_on(9 * 86400)
    [over] = project.expired(stage.azure.world.clock.now())
    assert (over.state, over.billing) == (EndpointState.EXPIRED, Billing.BILLING)
    project.delete_endpoint(str(over.ref))
    assert project.endpoints() == []


def holds(stage: ClassicStage, journey: Journey, lines: list[str], events: list[Event]) -> None:
    """Everything that the journey says is what the service did."""
    assert journey.run.state is RunState.SUCCEEDED
    assert any("steps total" in line for line in lines)
    assert [event["step"] for event in events if event["event"] == "validation"]
    assert set(journey.result) == {"after", "train_loss", "steps"}
    assert journey.model is not None
    assert str(journey.model.ref) == "cards:1"
    assert journey.model.lineage.config["hyperparameters"]["num_train_epochs"] == "1000"
    assert journey.endpoint is not None
    assert journey.endpoint.state is EndpointState.READY
    assert journey.sample is not None
    assert journey.sample["expected"] in {"late", "lost", "fee"}
    assert journey.answer is not None
    assert journey.answer.completion_tokens > 0
    job = stage.azure.world.store.get(f"{stage.names.workspace_id}/jobs/{journey.run.id}")
    assert job is not None
    assert job["properties"]["fineTuningDetails"]["taskType"] == "ChatCompletion"
