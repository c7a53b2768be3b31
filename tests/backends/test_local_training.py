"""The bundled scripts on the local backend: training, kill and resume, processes, an answering endpoint."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.local.process import wait_gone
from maas_client.endpoint import EndpointState
from maas_client.model import Lineage
from maas_client.run import Event, Reason, RunRef, RunState
from maas_client.spec import DeploySpec, JobSpec
from tests.backends.local_stage import LocalStage
from tests.contract import all_lines, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
EVENTS = 3
STEPS = 400
"""Far more steps than a fast machine takes between two looks, so that a stop never comes too late."""
TRAINING_S = 250.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[LocalStage]:
    """The local platform; a training gets the time that a checkpoint takes on a busy machine."""
    stage = LocalStage(tmp_path, grace_s=60.0)
    yield stage
    stage.stop_all()


def plan_of(stage: LocalStage, steps: int, **parts: Any) -> Any:
    words = ["red", "green", "blue", "gray"]
    rows = [{"text": f"{words[n % 4]} {n}", "label": words[n % 4]} for n in range(80)]
    data = stage.root / "colors.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"max_steps": steps, "epochs": 500, "batch_size": 2, "max_length": 64}
    wanted = {
        "name": "colors",
        "task": "classification",
        "model": "tiny-phi3",
        "data": {"train": str(data)},
        "training": {**training, "checkpoint_every_steps": 10, "precision": "fp32"},
        "evaluation": {"max_rows": 4, "max_new_tokens": 4},
    }
    return stage.jobs.plan(JobSpec.model_validate({**wanted, **parts}))


def final(stage: LocalStage, ref: RunRef) -> RunState:
    """The state at the end; a training takes longer than the patience for small scripts."""
    ended = wait_for(
        lambda: stage.jobs.status(ref), lambda status: status.state.is_final, patience_s=TRAINING_S
    )
    return ended.state


def steps_seen(stage: LocalStage, ref: RunRef) -> list[int]:
    events = stage.jobs.metrics(ref, after=None).events
    return [event["step"] for event in events if event["event"] == "step"]


def has_checkpoint(events: tuple[Event, ...]) -> bool:
    return any(event["event"] == "checkpoint" for event in events)


def resumed_from(stage: LocalStage, ref: RunRef) -> list[int]:
    events = stage.jobs.metrics(ref, after=None).events
    return [event["resumed_from_step"] for event in events if event["event"] == "started"]


def test_train_register_deploy_ask(stage: LocalStage) -> None:
    from maas_client.backends.local.endpoints import LocalEndpoints

    plan = plan_of(stage, 4)
    ref = stage.jobs.submit(plan)
    assert final(stage, ref) is RunState.SUCCEEDED, stage.jobs.status(ref)
    artifact = stage.jobs.artifact(ref)
    lineage = Lineage(str(ref), "tiny-phi3", "classification", "lora", dict(plan.hashes))
    model = stage.models.register("colors", artifact, lineage)
    endpoints = LocalEndpoints(stage.home, models=stage.models)
    status = endpoints.deploy(model.ref, DeploySpec(name="colors", ttl="5m"))
    status = wait_for(
        lambda: endpoints.status(status.ref), lambda now: now.state is not EndpointState.STARTING
    )
    assert status.state is EndpointState.READY, status
    access = endpoints.access(status.ref)
    body = json.dumps({"messages": [{"role": "user", "content": "red 1"}], "max_tokens": 4}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {access.key}"}
    request = urllib.request.Request(f"{access.url}/v1/chat/completions", body, headers)  # noqa: S310  loopback
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
        assert json.load(reply)["choices"][0]["message"]["role"] == "assistant"
    endpoints.delete(status.ref)
    assert endpoints.list() == ()


def test_kill_9_of_the_trainer_then_resume(stage: LocalStage) -> None:
    ref = stage.jobs.submit(plan_of(stage, STEPS))
    wait_for(lambda: stage.jobs.metrics(ref, after=None).events, has_checkpoint)
    child = stage.processes(ref).child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    assert final(stage, ref) is RunState.FAILED
    assert stage.jobs.status(ref).reason is Reason.KILLED
    stage.jobs.resume(ref)
    assert final(stage, ref) is RunState.SUCCEEDED, stage.jobs.status(ref)
    assert steps_seen(stage, ref)[-1] == STEPS
    assert resumed_from(stage, ref)[0] == 0
    assert resumed_from(stage, ref)[1] > 0


@pytest.mark.parametrize("processes", [1, 2])
def test_cancel_keeps_a_checkpoint_and_resume_finishes(stage: LocalStage, processes: int) -> None:
    parts = {"distributed": {"strategy": "ddp", "processes": 2}} if processes == 2 else {}
    ref = stage.jobs.submit(plan_of(stage, STEPS, **parts))
    wait_for(lambda: steps_seen(stage, ref), lambda steps: len(steps) >= EVENTS)
    stage.jobs.cancel(ref)
    assert final(stage, ref) is RunState.CANCELED, stage.jobs.status(ref)
    events = stage.jobs.metrics(ref, after=None).events
    assert "stopped" in [event["event"] for event in events]
    assert wait_gone(stage.processes(ref).both, 60)
    stage.jobs.resume(ref)
    assert final(stage, ref) is RunState.SUCCEEDED, stage.jobs.status(ref)
    steps = steps_seen(stage, ref)
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    stopped_at = next(event["step"] for event in events if event["event"] == "stopped")
    assert resumed_from(stage, ref) == [0, stopped_at]


def test_rows_that_cannot_be_used_are_the_reason(stage: LocalStage) -> None:
    plan = plan_of(stage, 4)
    data = Path(plan.spec.data.train)
    data.write_text('{"text": "red 1", "label": "red"}\n{"text": "no label"}\n')
    ref = stage.jobs.submit(stage.jobs.plan(plan.spec))
    assert final(stage, ref) is RunState.FAILED
    status = stage.jobs.status(ref)
    assert (status.exit_code, status.reason) == (2, Reason.DATA), status
    assert "Traceback" not in "\n".join(all_lines(stage, ref))
