"""The classic route keeps the contract, on jobs that really train in a simulator.

Where the service offers less, a test of the same name says what is offered instead. A run that has succeeded
is trained once and serves every test that only needs one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from maas_client.endpoint import EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError
from maas_client.run import Event, RunRef, RunState
from maas_client.simulator import Simulator
from maas_client.simulator.world import Timing
from maas_client.spec import DeploySpec
from tests.backends.foundry.classic.stage import ClassicStage
from tests.contract import (
    BackendContract,
    RegistryContract,
    ServingContract,
    Stage,
    all_lines,
    ended,
    started,
    trained,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    """A whole simulator with a fast clock, and this process pointed at it."""
    timing = Timing(provisioning_s=60, queue_s=30, finalizing_s=5, parallel_jobs=4)
    with Simulator(speed=600, timing=timing) as running, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def shared(azure: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClassicStage]:
    """One project for the tests that only need a run that has succeeded: it is trained once."""
    with pytest.MonkeyPatch.context() as patch:
        stage = ClassicStage(azure, tmp_path_factory.mktemp("shared"), patch)
        yield stage
        stage.end_all()


def all_events(stage: Stage, ref: RunRef) -> list[Event]:
    """Every event to the end, by cursor."""
    events: list[Event] = []
    cursor: str | None = None
    while True:
        page = stage.platform.jobs.metrics(ref, after=cursor)
        events += page.events
        if page.next is None:
            return events
        cursor = page.next
        time.sleep(0.2)


class TestClassicJobs(BackendContract):
    """Runs."""

    @pytest.fixture
    def stage(self, shared: ClassicStage) -> Iterator[ClassicStage]:
        yield shared
        shared.end_all()

    def test_a_run_succeeds(self, stage: Stage) -> None:
        """The service measures the loss while it trains, and registers a whole model, not an adapter."""
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("succeed"))
        lines, events = all_lines(stage, ref), all_events(stage, ref)
        status = ended(stage, ref)
        assert (status.state, status.native_state) == (RunState.SUCCEEDED, "Completed"), status
        assert status.started_at is not None
        assert status.ended_at is not None
        assert status.started_at <= status.ended_at <= status.seen_at + 1
        artifact = jobs.artifact(ref)
        assert set(artifact.result) == {"after", "train_loss", "steps"}
        assert artifact.result["steps"] == 2
        assert not artifact.is_adapter
        assert str(artifact.model).endswith("/models/card/versions/1")
        assert (lines, events) == (all_lines(stage, ref), all_events(stage, ref))

    def test_the_same_plan_is_the_same_run(self, stage: Stage) -> None:
        plan = stage.plan("succeed")
        ref = stage.platform.jobs.submit(plan)
        assert stage.platform.jobs.submit(plan) == ref
        first = ended(stage, ref)
        assert stage.platform.jobs.submit(plan) == ref
        assert isinstance(stage, ClassicStage)
        assert stage.jobs().count(ref.id) == 1
        again = stage.platform.jobs.status(ref)
        assert (again.state, again.ended_at) == (RunState.SUCCEEDED, first.ended_at)

    def test_each_log_line_comes_once_in_order(self, stage: Stage) -> None:
        """The log is the service's own."""
        ref = stage.platform.jobs.submit(stage.plan("succeed"))
        lines = all_lines(stage, ref)
        assert len([line for line in lines if line.startswith("steps total")]) == 1

    def test_each_event_comes_once_in_order(self, stage: Stage) -> None:
        """Losses of steps and of held-out rows are events; the service tells no others."""
        events = all_events(stage, stage.platform.jobs.submit(stage.plan("succeed")))
        assert {event["event"] for event in events} == {"step", "validation"}
        for kind in ("step", "validation"):
            steps = [event["step"] for event in events if event["event"] == kind]
            assert steps == sorted(set(steps))

    def test_a_failed_run_is_a_status_with_its_last_words(self, stage: Stage) -> None:
        """The service's word, and no exit code: the command is not ours."""
        ref = stage.platform.jobs.submit(stage.plan("fail"))
        status = ended(stage, ref)
        assert (status.state, status.exit_code) == (RunState.FAILED, None)
        assert "The data is bad" in status.message
        with pytest.raises(ConflictError):
            stage.platform.jobs.artifact(ref)

    def test_cancel_ends_a_run_and_may_be_repeated(self, stage: Stage) -> None:
        """The service keeps no checkpoint."""
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("endless"))
        started(stage, ref)
        jobs.cancel(ref)
        jobs.cancel(ref)
        assert jobs.status(ref).state in {RunState.CANCELING, RunState.CANCELED}
        assert ended(stage, ref).state is RunState.CANCELED
        jobs.cancel(ref)
        assert jobs.status(ref).state is RunState.CANCELED

    def test_resume_goes_on_from_the_checkpoint(self, stage: Stage) -> None:
        """It does not: a canceled job is trained anew, which `--again` asks for."""
        self._cannot_go_on(stage, "endless")

    def test_a_failed_run_can_be_resumed_and_fails_again(self, stage: Stage) -> None:
        """It cannot be resumed."""
        self._cannot_go_on(stage, "fail")

    def _cannot_go_on(self, stage: Stage, behavior: str) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan(behavior))
        if behavior == "endless":
            jobs.cancel(ref)
        before = ended(stage, ref)
        with pytest.raises(ConflictError, match="cannot go on") as caught:
            jobs.resume(ref)
        assert "--again" in caught.value.hint
        assert jobs.status(ref).ended_at == before.ended_at


class TestClassicModels(RegistryContract):
    """Models."""

    @pytest.fixture
    def stage(self, shared: ClassicStage) -> Iterator[ClassicStage]:
        shared.forget()
        self._not_ours_yet(shared)
        yield shared
        shared.forget()
        self._not_ours_yet(shared)

    @staticmethod
    def _not_ours_yet(stage: ClassicStage) -> None:
        """What the service registered, as it was before any run was written on it."""
        path = f"{stage.names.workspace_id}/models/card/versions/1"
        found = stage.azure.world.store.get(path)
        if found is not None:
            for key in ("tags", "properties"):
                kept = found["properties"][key]
                found["properties"][key] = {name: kept[name] for name in kept if not name.startswith("maas")}

    def test_a_version_keeps_what_it_was_made_from(self, stage: Stage) -> None:
        """The service measures nothing before the training."""
        artifact, lineage = trained(stage)
        assert stage.platform.models is not None
        model = stage.platform.models.register("card", artifact, lineage)
        assert model.lineage == lineage
        assert model.metrics["before"] == {}
        assert model.metrics["after"] == artifact.result["after"]
        assert not model.adapter
        assert model.size_bytes > 0


class TestClassicEndpoints(ServingContract):
    """Endpoints."""

    @pytest.fixture
    def stage(self, shared: ClassicStage) -> Iterator[ClassicStage]:
        shared.forget()
        yield shared
        shared.azure.world.faults.clear()
        shared.forget()

    def _deploy(self, stage: Stage, name: str = "card-end") -> EndpointStatus:
        assert isinstance(stage, ClassicStage)
        if name.startswith("slow"):
            stage.azure.fault("lro_slow", match=f"PUT .*{name}", seconds=1e6)
        return super()._deploy(stage, name)

    def test_a_newer_version_takes_the_place_of_the_older(self, stage: Stage) -> None:
        """One custom model has one endpoint, so the older goes first: the same deploy again goes on."""
        status = self._deploy(stage)
        self._ready(stage, status.ref)
        artifact, lineage = trained(stage)
        assert stage.platform.models is not None
        assert stage.platform.endpoints is not None
        other = type(lineage)(**{**vars(lineage), "run": "another-run"})
        newer = stage.platform.models.register("card", artifact, other)
        serving, spec = stage.platform.endpoints, DeploySpec(name="card-end")
        replaced = wait_for(
            lambda: serving.deploy(newer.ref, spec), lambda one: one.state is EndpointState.READY
        )
        assert replaced.model == "card:2"
        assert len(serving.list()) == 1
        serving.delete(status.ref)

    def test_online_is_not_ready_before_it_answers(self, stage: Stage) -> None:
        """The trap of this service: Online, and the data plane says that the deployment is not ready."""
        assert isinstance(stage, ClassicStage)
        assert stage.platform.endpoints is not None
        stage.azure.fault("not_ready", match="/serverless/card-end", status=404, times=2)
        status = self._deploy(stage)
        seen = []

        def look() -> EndpointStatus:
            assert stage.platform.endpoints is not None
            seen.append(stage.platform.endpoints.status(status.ref))
            return seen[-1]

        wait_for(look, lambda one: one.state is EndpointState.READY)
        online = [one for one in seen if one.native_state == "Online"]
        assert [one.state for one in online[:2]] == [EndpointState.STARTING] * 2
        assert all("not ready yet" in one.message for one in online[:2])
        stage.platform.endpoints.delete(status.ref)


def test_the_reference_is_enough_for_a_new_process(shared: ClassicStage) -> None:
    """Another home, as on another machine, finds run, model and endpoint by looking."""
    artifact, lineage = trained(shared)
    assert shared.platform.models is not None
    assert shared.platform.endpoints is not None
    model = shared.platform.models.register("card", artifact, lineage)
    status = shared.platform.endpoints.deploy(model.ref, DeploySpec(name="card-far"))
    other = shared.open("another-home")
    assert other.models is not None
    assert other.endpoints is not None
    ref = RunRef.parse(lineage.run)
    assert other.jobs.status(ref).state is RunState.SUCCEEDED
    assert other.jobs.artifact(ref).result == artifact.result
    assert other.models.get("card", model.ref.version) == model
    assert [one.ref for one in other.endpoints.list()] == [status.ref]
    far = EndpointRef("foundry", "card-far")
    wait_for(lambda: other.endpoints.status(far), lambda one: one.state is EndpointState.READY)  # type: ignore[union-attr]
    other.endpoints.delete(far)
    shared.forget()
