"""The openai route keeps the contract; where the service cannot do a thing, what is promised instead."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from maas_client.backend import Platform
from maas_client.backends.foundry.dispatch import FoundryEndpoints, FoundryJobs, FoundryModels
from maas_client.backends.foundry.memory import Memory
from maas_client.endpoint import EndpointRef, EndpointState
from maas_client.errors import ConflictError
from maas_client.plan import Plan
from maas_client.run import Reason, RunRef, RunState
from maas_client.simulator.world import World
from maas_client.spec import DeploySpec, JobSpec
from tests.backends.foundry.openai_v1.stage import Stage
from tests.contract import (
    LOOK_S,
    BackendContract,
    RegistryContract,
    ServingContract,
    all_lines,
    ended,
    started,
    trained,
    wait_for,
)


@dataclass
class OneRoute:
    """Routes of which only the openai one is there."""

    platform: Platform

    def configured(self) -> list[str]:
        return ["openai"]

    def is_configured(self, word: str) -> bool:
        return word == "openai"

    def open(self, word: str) -> Platform:
        assert word == "openai"
        return self.platform

    def choose(self, spec: JobSpec, on: date) -> str:
        return "openai"


class ContractStage(Stage):
    """Plans that behave as the contract asks: by what the simulator is told to do with their jobs.

    The platform is the one of backend foundry, which hands every call to the route.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        routes: Any = OneRoute(self.platform)
        memory = Memory(self.home)
        models = FoundryModels(routes, memory)
        endpoints = FoundryEndpoints(routes, memory, models)
        self.platform = Platform("foundry", FoundryJobs(routes, memory, self.clock), models, endpoints)

    def plan(self, behavior: str = "", /, *, name: str = "card", **more: Any) -> Plan:
        self.world.timing.finalizing_s = 1e9 if behavior == "endless" else 0.0
        if behavior == "fail":
            order = {"kind": "job_fail", "match": name, "message": "the data is bad", "times": 0}
            self.world.faults.order(order)
        return super().plan(name=name, **more)


@pytest.fixture
def stage(world: World, tmp_path: Path) -> ContractStage:
    world.timing.provisioning_s = 0.0
    return ContractStage(world, tmp_path / "home" / "foundry")


class TestOpenAIJobs(BackendContract):
    """Runs."""

    def test_a_run_succeeds(self, stage: Any) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("succeed"))
        status = ended(stage, ref)
        assert status.state is RunState.SUCCEEDED, status
        assert (status.reason, status.exit_code) == (None, None)
        assert status.started_at is not None
        assert status.ended_at is not None
        assert status.started_at <= status.ended_at
        artifact = jobs.artifact(ref)
        assert artifact.result["steps"] == 10
        assert artifact.result["train_loss"] == 0.1
        assert not artifact.is_adapter
        assert str(artifact.model) == f"openai://localhost/{artifact.result['fine_tuned_model']}"
        assert {path.name for path in artifact.folder.iterdir()} == {
            "events.jsonl",
            "result.json",
            "samples.jsonl",
        }

    def test_the_same_plan_is_the_same_run(self, stage: Any) -> None:
        plan = stage.plan("succeed")
        ref = stage.platform.jobs.submit(plan)
        assert stage.platform.jobs.submit(plan) == ref
        first = ended(stage, ref)
        assert stage.platform.jobs.submit(plan) == ref
        again = stage.platform.jobs.status(ref)
        assert (again.state, again.ended_at) == (RunState.SUCCEEDED, first.ended_at)
        assert len(stage.tunings()) == 1

    def test_each_log_line_comes_once_in_order(self, stage: Any) -> None:
        ref = stage.platform.jobs.submit(stage.plan("succeed"))
        lines = [line for line in all_lines(stage, ref) if line.startswith("Step")]
        assert [int(line.split(":")[0].removeprefix("Step ")) for line in lines] == list(range(1, 11))

    def test_each_event_comes_once_in_order(self, stage: Any) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("succeed"))
        events, cursor = [], None
        while True:
            page = jobs.metrics(ref, after=cursor)
            events += page.events
            if page.next is None:
                break
            cursor = page.next
            time.sleep(LOOK_S)
        assert [event["event"] for event in events] == ["started", *["step"] * 10, "finished"]
        assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 11))

    def test_a_failed_run_is_a_status_with_its_last_words(self, stage: Any) -> None:
        ref = stage.platform.jobs.submit(stage.plan("fail"))
        status = ended(stage, ref)
        assert status.state is RunState.FAILED
        assert "the data is bad" in status.message
        assert any("the data is bad" in line for line in status.tail)
        assert "error: Job failed. the data is bad" in all_lines(stage, ref)
        with pytest.raises(ConflictError):
            stage.platform.jobs.artifact(ref)

    def test_cancel_ends_a_run_and_may_be_repeated(self, stage: Any) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("endless"))
        started(stage, ref)
        jobs.cancel(ref)
        jobs.cancel(ref)
        assert jobs.status(ref).state in {RunState.CANCELING, RunState.CANCELED}
        assert ended(stage, ref).state is RunState.CANCELED
        jobs.cancel(ref)
        assert jobs.status(ref).state is RunState.CANCELED
        assert all_lines(stage, ref)[-1] == "Job cancelled."

    def test_resume_goes_on_from_the_checkpoint(self, stage: Any) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("endless"))
        started(stage, ref)
        pause(stage)
        status = ended(stage, ref)
        assert (status.state, status.native_state) == (RunState.CANCELED, "paused")
        assert "maas runs resume" in status.message
        stage.world.timing.finalizing_s = 0.0
        jobs.resume(ref)
        assert wait_for(lambda: jobs.status(ref), lambda seen: seen.state is RunState.SUCCEEDED)
        assert len(stage.tunings()) == 1
        assert [e["step"] for e in jobs.metrics(ref, after=None).events if e["event"] == "step"] == list(
            range(1, 11)
        )

    def test_a_failed_run_can_be_resumed_and_fails_again(self, stage: Any) -> None:
        """The service takes up only what was paused."""
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("fail"))
        ended(stage, ref)
        with pytest.raises(ConflictError, match="has failed") as caught:
            jobs.resume(ref)
        assert "--again" in caught.value.hint

    def test_a_paused_run_is_canceled_for_good(self, stage: Any) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("endless"))
        started(stage, ref)
        pause(stage)
        wait_for(lambda: jobs.status(ref), lambda seen: seen.native_state == "paused")
        jobs.cancel(ref)
        assert jobs.status(ref).native_state == "cancelled"
        with pytest.raises(ConflictError):
            jobs.resume(ref)

    def test_bad_rows_are_told_as_such(self, stage: Any) -> None:
        stage.world.faults.order(
            {"kind": "job_fail", "message": "Line 3 of the training file is no example."}
        )
        status = ended(stage, stage.platform.jobs.submit(stage.plan("succeed")))
        assert status.reason is Reason.DATA

    def test_many_runs_are_seen_in_one_request_for_each_hundred_jobs(self, stage: Any) -> None:
        jobs = stage.platform.jobs
        plan = stage.plan("succeed")
        refs = [jobs.submit(replace(plan, number=number)) for number in range(1, 6)]
        stage.transport.asked.clear()
        unknown = RunRef("foundry", "no-such-run-1")
        found = jobs.statuses([*refs, unknown])
        assert set(found) == set(refs)
        assert stage.transport.asked == ["GET /openai/v1/fine_tuning/jobs"]

    def test_a_download_brings_what_the_service_keeps(self, stage: Any, tmp_path: Path) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("succeed"))
        ended(stage, ref)
        folder, told = tmp_path / "all", list[tuple[int, int]]()
        folder.mkdir()
        jobs.download(ref, folder, watch=lambda done, total: told.append((done, total)))
        names = {path.name for path in folder.iterdir()}
        assert names == {"events.jsonl", "result.json", "results.csv", "samples.jsonl"}
        assert told == [((folder / "results.csv").stat().st_size,) * 2]
        jobs.download(ref, folder)


def pause(stage: ContractStage) -> None:
    """Somebody pauses the job in the portal."""
    [job] = stage.tunings()
    stage.account.service.ask("pause", lambda api: api.fine_tuning.jobs.with_raw_response.pause(job["id"]))


class TestOpenAIModels(RegistryContract):
    """Models."""

    def test_a_version_keeps_what_it_was_made_from(self, stage: Any) -> None:
        artifact, lineage = trained(stage)
        model = stage.platform.models.register("card", artifact, lineage)
        assert model.lineage == lineage
        assert model.place == artifact.model
        assert not model.adapter


class TestOpenAIEndpoints(ServingContract):
    """Deployments."""

    def test_no_access_before_it_is_ready(self, stage: Any) -> None:
        stage.world.timing.provisioning_s = 1e9
        status = self._deploy(stage, "slow-end")
        assert status.state is EndpointState.STARTING
        with pytest.raises(ConflictError):
            stage.platform.endpoints.access(status.ref)

    def test_a_name_serves_one_model(self, stage: Any) -> None:
        status = self._deploy(stage)
        artifact, lineage = trained(stage)
        other = stage.platform.models.register("other", artifact, lineage)
        with pytest.raises(ConflictError, match="card:1"):
            stage.platform.endpoints.deploy(other.ref, DeploySpec(name="card-end"))
        stage.platform.endpoints.delete(status.ref)

    def test_traffic_goes_to_the_one_there_is(self, stage: Any) -> None:
        status = self._deploy(stage)
        serving = stage.platform.endpoints
        assert serving.traffic(status.ref) == serving.traffic(status.ref, {"card:1": 100}) == {"card:1": 100}
        with pytest.raises(ConflictError):
            serving.traffic(status.ref, {"card:1": 50, "card:2": 50})
        assert serving.access(EndpointRef("foundry", "card-end")).speaks == "openai"
