"""A whole journey on a simulated cluster: real training whose machine is taken away, stopped and resumed."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from maas_client.artifacts import fetch_artifact
from maas_client.backend import Backend
from maas_client.project import Project
from maas_client.run import Event, RunRef, RunState, RunStatus
from maas_client.simulator import Simulator
from tests.backends.azureml.stage import AzuremlStage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 240.0
STEPS = 120
"""Several seconds of them: what is to be stopped is seen to have a checkpoint long before it ends."""
ROWS = [("my card is late", "late"), ("i lost my card", "lost"), ("a fee that i do not know", "fee")]


@dataclass
class Follower:
    """Follows logs and events by cursor, and keeps every line and event that it was given."""

    jobs: Backend
    ref: RunRef
    lines: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    cursors: list[str | None] = field(default_factory=lambda: [None, None])
    ended: list[bool] = field(default_factory=lambda: [False, False])

    def look(self) -> None:
        if not self.ended[0]:
            page = self.jobs.logs(self.ref, after=self.cursors[0])
            self.lines += page.lines
            self.cursors[0], self.ended[0] = page.next, page.next is None
        if not self.ended[1]:
            told = self.jobs.metrics(self.ref, after=self.cursors[1])
            self.events += told.events
            self.cursors[1], self.ended[1] = told.next, told.next is None

    def until(self, accept: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not accept():
            assert time.monotonic() < deadline, (self.jobs.status(self.ref), self.lines[-20:])
            self.look()
            time.sleep(0.3)

    def to_the_end(self) -> RunStatus:
        self.until(lambda: all(self.ended))
        return self.jobs.status(self.ref)

    def named(self, event: str) -> list[Event]:
        return [each for each in self.events if each["event"] == event]


@pytest.fixture
def stage(azure: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzuremlStage]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stage = AzuremlStage(azure, tmp_path, monkeypatch)
    rows = [
        json.dumps({"text": f"{text} {number}", "label": label})
        for number, (text, label) in enumerate(itertools.islice(itertools.cycle(ROWS), 400))
    ]
    stage.data.write_text("\n".join(rows) + "\n")
    yield stage
    for job in azure.world.store.members(f"{stage.target.path}/jobs"):
        azure.world.runner.cancel(job)


def submit(stage: AzuremlStage, **parts: Any) -> tuple[Project, Follower]:
    training = {"max_steps": STEPS, "epochs": 1000, "max_length": 64, "batch_size": 2}
    training |= {"checkpoint_every_steps": 10, "precision": "fp32"}
    spec = stage.spec(training=training, evaluation={"max_rows": 3, "max_new_tokens": 4}, **parts)
    project = Project(
        stage.root / ".maas", clock=stage.azure.world.clock.now, platforms={"azureml": stage.platform}
    )
    record = project.submit(project.plan(spec))
    return project, Follower(stage.platform.jobs, record.ref)


def must_have_come_once(follower: Follower, folder: Path) -> None:
    """Every event that the script wrote into its file came once, in order.

    A machine that is taken away between two writes leaves one more on stdout than in the file.
    """
    written = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [each for each in follower.events if each in written] == written
    assert len(follower.events) - len(written) in {0, 1}


def test_a_run_whose_machine_is_taken_away_goes_on_and_leaves_a_model(stage: AzuremlStage) -> None:
    project, follower = submit(stage)
    follower.until(lambda: bool(follower.named("checkpoint")))
    job = stage.azure.world.store.get(f"{stage.target.path}/jobs/{follower.ref.id}")
    assert job is not None
    assert stage.azure.world.runner.preempt(job)
    assert follower.to_the_end().state is RunState.SUCCEEDED
    assert stage.jobs() == [follower.ref.id]

    first, second = follower.named("started")
    assert first["resumed_from_step"] == 0
    assert second["resumed_from_step"] >= 10
    assert len(follower.named("finished")) == 1
    assert not any("@maas" in line for line in follower.lines)
    assert any("steps total" in line for line in follower.lines)

    artifact = project.artifact(project.find("last"))
    assert artifact.result["steps"] == STEPS
    assert (artifact.folder / "samples.jsonl").is_file()
    must_have_come_once(follower, artifact.folder)

    target = stage.root / "here"
    fetch_artifact(stage.platform.jobs, follower.ref, target)
    assert {path.name for path in target.iterdir()} == {
        *("before.json", "capsule.json", "config.json", "events.jsonl", "model", "result.json"),
        "samples.jsonl",
    }
    hashes = artifact.result["hashes"]["model"]
    assert set(hashes) == {path.name for path in (target / "model").iterdir()}
    for name, digest in hashes.items():
        assert digest.endswith(hashlib.sha256((target / "model" / name).read_bytes()).hexdigest())

    few = stage.root / "few.jsonl"
    few.write_text("".join(stage.data.read_text().splitlines(keepends=True)[:5]))
    scoring = project.submit(project.plan_evaluation(project.find("last"), few))
    scored = Follower(stage.platform.jobs, scoring.ref)
    assert scored.to_the_end().state is RunState.SUCCEEDED
    assert set(project.artifact(scoring).result["metrics"]) == set(artifact.result["after"])

    before = len(stage.requests)
    assert project.artifact(project.find("last")).result == artifact.result
    assert not [each for each in stage.requests[before:] if "listSecrets" in each]


def test_two_processes_are_stopped_and_resumed_from_their_checkpoint(stage: AzuremlStage) -> None:
    project, follower = submit(stage, distributed={"strategy": "zero2", "processes": 2})
    follower.until(lambda: bool(follower.named("checkpoint")))
    record = project.find("last")
    project.cancel(record)
    follower.until(lambda: stage.platform.jobs.status(follower.ref).state is RunState.CANCELED)

    assert project.submit(project.plan(stage_spec(project))).id == record.id
    assert stage.jobs() == [record.id, f"{record.id}-r2"]
    follower.ended = [False, False]
    follower.cursors = [None, None]
    follower.lines.clear()
    follower.events.clear()
    assert follower.to_the_end().state is RunState.SUCCEEDED

    first, second = follower.named("started")
    assert (first["processes"], second["processes"]) == (2, 2)
    assert second["resumed_from_step"] >= 10
    assert follower.lines.count("--- attempt 2 ---") == 1
    bodies = [stage.azure.world.store.get(f"{stage.target.path}/jobs/{name}") for name in stage.jobs()]
    spreads = [body["properties"]["distribution"] for body in bodies if body is not None]
    assert spreads == [{"distributionType": "PyTorch", "processCountPerInstance": 2}] * 2
    artifact = project.artifact(record)
    assert artifact.result["steps"] == STEPS
    must_have_come_once(follower, artifact.folder)


def stage_spec(project: Project) -> Any:
    """The spec of the newest run, as its record keeps it."""
    from maas_client.spec import JobSpec

    return JobSpec.model_validate_json(json.dumps(project.find("last").spec))
