"""What every backend promises, whatever it runs on: the docstrings of maas_client/backend.py as tests.

A backend's test module subclasses these classes and gives a `stage` fixture: its platform, and plans that
behave as asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

import pytest

from maas_client.backend import Platform, Registry, Serving
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError, NotFoundError, UsageError
from maas_client.model import Lineage
from maas_client.plan import Plan
from maas_client.run import Artifact, RunRef, RunState, RunStatus
from maas_client.spec import DeploySpec

T = TypeVar("T")
PATIENCE_S = 90.0
LOOK_S = 0.02


class Stage(Protocol):
    """A platform, and plans whose command behaves as named.

    `succeed` prints `line 0` ... `line 9`, writes a step event for each and a model; `fail` says "the data is
    bad" on stderr and exits with 1; `endless` prints and writes events until it is told to stop, then leaves
    a checkpoint, and when resumed goes on from it and succeeds.
    """

    platform: Platform

    def plan(self, behavior: str, *, name: str = "card") -> Plan: ...


def wait_for(look: Callable[[], T], accept: Callable[[T], bool], *, patience_s: float = PATIENCE_S) -> T:
    """Look until it is so; fails with the last look after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not accept(seen := look()):
        assert time.monotonic() < deadline, f"waited {patience_s} s; last look: {seen}"
        time.sleep(LOOK_S)
    return seen


def ended(stage: Stage, ref: RunRef) -> RunStatus:
    return wait_for(lambda: stage.platform.jobs.status(ref), lambda status: status.state.is_final)


def started(stage: Stage, ref: RunRef) -> None:
    wait_for(lambda: stage.platform.jobs.metrics(ref, after=None).events, lambda events: len(events) >= 3)


def all_lines(stage: Stage, ref: RunRef) -> list[str]:
    """Every log line to the end, by cursor."""
    lines: list[str] = []
    cursor: str | None = None
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        page = stage.platform.jobs.logs(ref, after=cursor)
        lines += page.lines
        if page.next is None:
            return lines
        cursor = page.next
        time.sleep(LOOK_S)
    raise AssertionError(f"the log has no end: {lines[-3:]}")


class BackendContract:
    """Backend: runs."""

    def test_a_run_succeeds(self, stage: Stage) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("succeed"))
        status = ended(stage, ref)
        assert status.state is RunState.SUCCEEDED, status
        assert (status.reason, status.exit_code) == (None, 0)
        assert status.started_at is not None
        assert status.ended_at is not None
        assert status.started_at <= status.ended_at <= status.seen_at + 1
        artifact = jobs.artifact(ref)
        assert artifact.result["after"] == {"accuracy": 0.75}
        assert artifact.is_adapter

    def test_the_ref_names_backend_and_run(self, stage: Stage) -> None:
        plan = stage.plan("succeed")
        ref = stage.platform.jobs.submit(plan)
        assert ref == RunRef(stage.platform.jobs.name, plan.run_id)
        assert RunRef.parse(str(ref)) == ref
        ended(stage, ref)

    def test_the_same_plan_is_the_same_run(self, stage: Stage) -> None:
        plan = stage.plan("succeed")
        ref = stage.platform.jobs.submit(plan)
        assert stage.platform.jobs.submit(plan) == ref
        first = ended(stage, ref)
        assert stage.platform.jobs.submit(plan) == ref
        again = stage.platform.jobs.status(ref)
        assert (again.state, again.ended_at) == (RunState.SUCCEEDED, first.ended_at)
        assert len([line for line in all_lines(stage, ref) if line == "line 0"]) == 1

    def test_another_number_is_another_run(self, stage: Stage) -> None:
        plan = stage.plan("succeed")
        first = stage.platform.jobs.submit(plan)
        second = stage.platform.jobs.submit(replace(plan, number=2))
        assert first != second
        assert {ended(stage, first).state, ended(stage, second).state} == {RunState.SUCCEEDED}

    def test_each_log_line_comes_once_in_order(self, stage: Stage) -> None:
        ref = stage.platform.jobs.submit(stage.plan("succeed"))
        assert [line for line in all_lines(stage, ref) if line.startswith("line")] == [
            f"line {n}" for n in range(10)
        ]

    def test_each_event_comes_once_in_order(self, stage: Stage) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("succeed"))
        steps: list[int] = []
        cursor: str | None = None
        while True:
            page = jobs.metrics(ref, after=cursor)
            steps += [event["step"] for event in page.events if event["event"] == "step"]
            if page.next is None:
                break
            cursor = page.next
            time.sleep(LOOK_S)
        assert steps == list(range(10))
        assert jobs.status(ref).state is RunState.SUCCEEDED

    def test_a_failed_run_is_a_status_with_its_last_words(self, stage: Stage) -> None:
        ref = stage.platform.jobs.submit(stage.plan("fail"))
        status = ended(stage, ref)
        assert status.state is RunState.FAILED
        assert status.exit_code == 1
        assert status.reason is not None
        assert "the data is bad" in status.message
        assert any("the data is bad" in line for line in status.tail)
        with pytest.raises(ConflictError):
            stage.platform.jobs.artifact(ref)

    def test_a_running_run_says_so_and_has_no_artifact(self, stage: Stage) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("endless"))
        started(stage, ref)
        assert jobs.status(ref).state is RunState.RUNNING
        assert jobs.logs(ref, after=None).next is not None
        with pytest.raises(ConflictError):
            jobs.artifact(ref)
        with pytest.raises(ConflictError):
            jobs.resume(ref)
        jobs.cancel(ref)
        ended(stage, ref)

    def test_cancel_ends_a_run_and_may_be_repeated(self, stage: Stage) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("endless"))
        started(stage, ref)
        jobs.cancel(ref)
        jobs.cancel(ref)
        assert jobs.status(ref).state in {RunState.CANCELING, RunState.CANCELED}
        assert ended(stage, ref).state is RunState.CANCELED
        jobs.cancel(ref)
        assert jobs.status(ref).state is RunState.CANCELED
        assert "checkpoint kept" in all_lines(stage, ref)

    def test_cancel_leaves_a_finished_run_alone(self, stage: Stage) -> None:
        ref = stage.platform.jobs.submit(stage.plan("succeed"))
        before = ended(stage, ref)
        stage.platform.jobs.cancel(ref)
        assert replace(stage.platform.jobs.status(ref), seen_at=0) == replace(before, seen_at=0)

    def test_resume_goes_on_from_the_checkpoint(self, stage: Stage) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("endless"))
        started(stage, ref)
        jobs.cancel(ref)
        ended(stage, ref)
        jobs.resume(ref)
        assert ended(stage, ref).state is RunState.SUCCEEDED
        assert "goes on from the checkpoint" in all_lines(stage, ref)

    def test_a_failed_run_can_be_resumed_and_fails_again(self, stage: Stage) -> None:
        jobs = stage.platform.jobs
        ref = jobs.submit(stage.plan("fail"))
        first = ended(stage, ref)
        jobs.resume(ref)
        second = ended(stage, ref)
        assert second.state is RunState.FAILED
        assert first.ended_at is not None
        assert second.ended_at is not None
        assert second.ended_at > first.ended_at

    def test_a_succeeded_run_cannot_be_resumed(self, stage: Stage) -> None:
        ref = stage.platform.jobs.submit(stage.plan("succeed"))
        ended(stage, ref)
        with pytest.raises(ConflictError):
            stage.platform.jobs.resume(ref)

    def test_unknown_runs_are_not_found(self, stage: Stage) -> None:
        jobs = stage.platform.jobs
        ref = RunRef(jobs.name, "no-such-run-1")
        for call in (jobs.status, jobs.cancel, jobs.resume, jobs.artifact):
            with pytest.raises(NotFoundError):
                call(ref)
        for read in (jobs.logs, jobs.metrics):
            with pytest.raises(NotFoundError):
                read(ref, after=None)

    def test_a_foreign_cursor_is_an_error(self, stage: Stage) -> None:
        ref = stage.platform.jobs.submit(stage.plan("succeed"))
        with pytest.raises(UsageError):
            stage.platform.jobs.logs(ref, after="yesterday")
        ended(stage, ref)


def trained(stage: Stage) -> tuple[Artifact, Lineage]:
    """A succeeded run's artifact and lineage."""
    plan = stage.plan("succeed")
    ref = stage.platform.jobs.submit(plan)
    assert ended(stage, ref).state is RunState.SUCCEEDED
    lineage = Lineage(str(ref), plan.spec.model, plan.spec.task, plan.spec.method.name, dict(plan.hashes))
    return stage.platform.jobs.artifact(ref), lineage


class RegistryContract:
    """Registry: versions of models."""

    def test_versions_count_from_one(self, stage: Stage) -> None:
        models = _models(stage)
        artifact, lineage = trained(stage)
        first = models.register("card", artifact, lineage)
        second = models.register("card", artifact, replace(lineage, run="local://other-1"))
        assert (str(first.ref), str(second.ref)) == ("card:1", "card:2")
        assert [model.ref.version for model in models.list("card")] == [2, 1]
        assert models.get("card").ref == second.ref
        assert models.get("card", 1) == first

    def test_a_version_keeps_what_it_was_made_from(self, stage: Stage) -> None:
        artifact, lineage = trained(stage)
        model = _models(stage).register("card", artifact, lineage)
        assert model.lineage == lineage
        assert model.metrics == {"before": {"accuracy": 0.25}, "after": {"accuracy": 0.75}}
        assert model.adapter
        assert model.size_bytes > 0

    def test_the_same_run_is_the_same_version(self, stage: Stage) -> None:
        artifact, lineage = trained(stage)
        models = _models(stage)
        assert models.register("card", artifact, lineage) == models.register("card", artifact, lineage)
        assert len(models.list()) == 1

    def test_unknown_models_are_not_found(self, stage: Stage) -> None:
        models = _models(stage)
        assert models.list() == models.list("nothing") == ()
        with pytest.raises(NotFoundError):
            models.get("nothing")
        artifact, lineage = trained(stage)
        models.register("card", artifact, lineage)
        with pytest.raises(NotFoundError, match="card:7"):
            models.get("card", 7)


class ServingContract:
    """Serving: endpoints of registered models. A subclass says what it takes to deploy one."""

    def wanted(self, name: str = "card-end") -> DeploySpec:
        """What a job file says about an endpoint here."""
        return DeploySpec(name=name)

    def test_an_endpoint_gets_ready_and_is_deleted(self, stage: Stage) -> None:
        serving = _serving(stage)
        status = self._deploy(stage)
        assert status.state in {EndpointState.STARTING, EndpointState.READY}
        ready = self._ready(stage, status.ref)
        assert ready.billing is not Billing.UNKNOWN
        assert ready.expires_at is not None
        access = serving.access(status.ref)
        assert access.url == ready.url
        assert access.key
        assert access.key not in repr(access)
        assert access.key not in str(ready.to_dict())
        assert [each.ref for each in serving.list()] == [status.ref]
        serving.delete(status.ref)
        serving.delete(status.ref)
        assert serving.list() == ()
        with pytest.raises(NotFoundError):
            serving.status(status.ref)

    def test_the_same_deployment_is_the_same_endpoint(self, stage: Stage) -> None:
        status = self._deploy(stage)
        key = _serving(stage).access(self._ready(stage, status.ref).ref).key
        again = _serving(stage).deploy(_models(stage).get("card").ref, self.wanted())
        assert again.state is EndpointState.READY
        assert again.expires_at == status.expires_at
        assert _serving(stage).access(status.ref).key == key
        _serving(stage).delete(status.ref)

    def test_a_name_serves_one_model(self, stage: Stage) -> None:
        status = self._deploy(stage)
        artifact, lineage = trained(stage)
        other = _models(stage).register("other", artifact, lineage)
        with pytest.raises(ConflictError, match="card:1"):
            _serving(stage).deploy(other.ref, self.wanted())
        _serving(stage).delete(status.ref)

    def test_a_newer_version_takes_the_place_of_the_older(self, stage: Stage) -> None:
        status = self._deploy(stage)
        self._ready(stage, status.ref)
        artifact, lineage = trained(stage)
        newer = _models(stage).register("card", artifact, replace(lineage, run="another-run"))
        replaced = _serving(stage).deploy(newer.ref, self.wanted())
        assert replaced.model == str(newer.ref)
        assert self._ready(stage, replaced.ref).model == "card:2"
        assert len(_serving(stage).list()) == 1
        _serving(stage).delete(status.ref)

    def test_no_access_before_it_is_ready(self, stage: Stage) -> None:
        status = self._deploy(stage, "slow-end")
        with pytest.raises(ConflictError):
            _serving(stage).access(status.ref)
        _serving(stage).delete(status.ref)

    def test_unknown_endpoints_are_not_found(self, stage: Stage) -> None:
        ref = EndpointRef(stage.platform.name, "no-such-end")
        for call in (_serving(stage).status, _serving(stage).access, _serving(stage).delete):
            with pytest.raises(NotFoundError):
                call(ref)

    def _deploy(self, stage: Stage, name: str = "card-end") -> EndpointStatus:
        artifact, lineage = trained(stage)
        model = _models(stage).register("card", artifact, lineage)
        return _serving(stage).deploy(model.ref, self.wanted(name))

    def _ready(self, stage: Stage, ref: EndpointRef) -> EndpointStatus:
        """Look until it is ready; in between comes the same deployment again, which goes on."""
        model = _models(stage).get("card").ref

        def look() -> EndpointStatus:
            status = _serving(stage).status(ref)
            if status.state is not EndpointState.READY:
                _serving(stage).deploy(model, self.wanted(ref.name))
            return status

        return wait_for(look, lambda status: status.state is EndpointState.READY)


def _models(stage: Stage) -> Registry:
    assert stage.platform.models is not None
    return stage.platform.models


def _serving(stage: Stage) -> Serving:
    assert stage.platform.endpoints is not None
    return stage.platform.endpoints
