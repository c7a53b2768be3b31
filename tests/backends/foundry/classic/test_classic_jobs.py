"""FineTuning jobs: made once, adopted, watched, canceled, and what they leave; the wire is in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.backends.foundry.classic.results import find_tuned_model, result_of
from maas_client.errors import ConflictError, NotFoundError, PlanError, RejectedError, ServiceError
from maas_client.run import RunRef, RunState
from maas_client.workspace.jobs import STATES
from tests.backends.foundry.classic.room import Room
from tests.simulator.boundaries import KilledError


def test_a_submission_sends_rows_and_one_job(room: Room) -> None:
    platform, wire = room.open()
    plan = room.plan()
    ref = platform.jobs.submit(plan)
    assert ref == RunRef("foundry", plan.run_id)
    [job] = room.jobs().values()
    details = job["properties"]["fineTuningDetails"]
    assert details["model"]["uri"] == "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"
    assert details["hyperParameters"]["learning_rate"] == "0.0002"
    assert job["properties"]["tags"] == {
        "maas-run": plan.run_id,
        "maas-job": "card",
        "maas-fingerprint": plan.fingerprint,
    }
    assert sorted(path.rpartition("/")[2] for path in room.shelf.sent) == ["train.jsonl", "validation.jsonl"]
    assert details["trainingData"]["uri"].endswith(room.shelf.sent[0])
    assert len(room.shelf.blobs[room.shelf.sent[0]].splitlines()) == 9
    assert [text for text in wire.sent if text.startswith("PUT")] == [
        f"PUT {room.target.path}/jobs/{plan.run_id}"
    ]


def test_the_same_plan_is_the_same_job_and_sends_nothing_again(room: Room) -> None:
    platform, wire = room.open()
    platform.jobs.submit(room.plan())
    before, sent = list(wire.sent), list(room.shelf.sent)
    platform.jobs.submit(room.plan())
    assert [text.split(" ")[0] for text in wire.sent[len(before) :]] == ["GET"]
    assert room.shelf.sent == sent
    assert len(room.jobs()) == 1


def test_another_number_is_another_job_on_the_same_rows(room: Room) -> None:
    platform, _ = room.open()
    platform.jobs.submit(room.plan())
    platform.jobs.submit(replace(room.plan(), number=2))
    assert len(room.jobs()) == 2
    assert len(room.shelf.sent) == 2


def test_a_pinned_version_is_not_looked_up(room: Room) -> None:
    platform, wire = room.open()
    pinned = "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/7"
    platform.jobs.submit(room.plan(model=pinned))
    [job] = room.jobs().values()
    assert job["properties"]["fineTuningDetails"]["model"]["uri"] == pinned
    assert not [text for text in wire.sent if "registries" in text]


def test_a_job_of_that_name_that_is_not_ours_is_left_alone(room: Room) -> None:
    platform, _ = room.open()
    plan = room.plan()
    platform.jobs.submit(plan)
    room.jobs()[plan.run_id]["properties"]["tags"] = {"owner": "somebody"}
    with pytest.raises(ConflictError, match="it is not this plan's"):
        platform.jobs.submit(plan)
    with pytest.raises(NotFoundError):
        platform.jobs.status(RunRef("foundry", plan.run_id))


def test_a_plan_for_another_workspace_is_refused_before_anything_is_sent(room: Room) -> None:
    platform, wire = room.open()
    with pytest.raises(PlanError, match="The plan is for"):
        platform.jobs.submit(replace(room.plan(), target="workspace other in rg, subscription s"))
    assert wire.sent == []


def test_rows_that_changed_since_the_plan_are_refused(room: Room) -> None:
    platform, _ = room.open()
    plan = room.plan()
    with plan.spec.data.train.open("a") as file:
        file.write(file.name and '{"messages": [{"role": "user", "content": "x"}]}\n')
    with pytest.raises(PlanError, match="changed since the plan"):
        platform.jobs.submit(plan)
    assert room.jobs() == {}


def test_a_region_that_the_service_refuses_is_its_own_word(room: Room) -> None:
    room.world.names = replace(room.world.names, location="westeurope")
    platform, _ = room.open()
    with pytest.raises(RejectedError, match="not supported in westeurope"):
        platform.jobs.submit(room.plan())


def test_a_model_that_the_registry_lost_is_not_found(room: Room) -> None:
    platform, _ = room.open()
    with pytest.raises(NotFoundError, match="nothing-such"):
        platform.jobs.submit(room.plan(model="azureml://registries/azureml/models/nothing-such"))
    assert room.jobs() == {}


# -- exactly once


def requests_of_a_submission(room: Room) -> int:
    platform, wire = room.open()
    platform.jobs.submit(replace(room.plan(), number=99))
    room.world.store.delete(f"{room.target.path}/jobs/{replace(room.plan(), number=99).run_id}")
    return len(wire.sent)


def must_hold(room: Room) -> None:
    """The same submission again finds or makes the one job, of our plan."""
    platform, _ = room.open()
    plan = room.plan()
    platform.jobs.submit(plan)
    assert list(room.jobs()) == [plan.run_id]
    assert platform.jobs.status(RunRef("foundry", plan.run_id)).state is RunState.QUEUED
    room.world.store.delete(f"{room.target.path}/jobs/{plan.run_id}")


def test_exactly_once_when_the_process_dies_at_any_request(room: Room) -> None:
    count = requests_of_a_submission(room)
    assert count >= 4
    for boundary in range(count):
        platform, wire = room.open()

        def die(number: int, _: str, at: int = boundary) -> None:
            if number == at:
                raise KilledError

        wire.at = die
        with pytest.raises(KilledError):
            platform.jobs.submit(room.plan())
        must_hold(room)


def test_exactly_once_when_the_process_dies_after_any_request(room: Room) -> None:
    for boundary in range(requests_of_a_submission(room)):
        platform, wire = room.open()
        wire.lost = {boundary}

        def die(number: int, _: str, at: int = boundary) -> None:
            if number > at:
                raise KilledError

        wire.at = die
        with pytest.raises(KilledError):
            platform.jobs.submit(room.plan())
        must_hold(room)


def test_exactly_once_when_any_reply_is_lost(room: Room) -> None:
    for boundary in range(requests_of_a_submission(room)):
        platform, wire = room.open()
        wire.lost = {boundary}
        assert platform.jobs.submit(room.plan()).id == room.plan().run_id
        assert len(room.jobs()) == 1
        must_hold(room)


def test_exactly_once_when_every_reply_to_the_job_is_lost(room: Room) -> None:
    platform, wire = room.open()
    plan = room.plan()

    def lose(number: int, text: str) -> None:
        if text.startswith("PUT"):
            wire.lost.add(number)

    wire.at = lose
    assert platform.jobs.submit(plan).id == plan.run_id
    must_hold(room)


def test_exactly_once_when_another_terminal_submits_at_any_request(room: Room) -> None:
    for boundary in range(requests_of_a_submission(room)):
        platform, wire = room.open()

        def meanwhile(number: int, _: str, at: int = boundary) -> None:
            if number == at:
                room.open()[0].jobs.submit(room.plan())

        wire.at = meanwhile
        platform.jobs.submit(room.plan())
        assert len(room.jobs()) == 1
        must_hold(room)


def test_exactly_once_when_a_newer_model_version_comes_between_two_tries(room: Room) -> None:
    platform, _ = room.open()
    plan = room.plan()
    platform.jobs.submit(plan)
    [job] = room.jobs().values()
    job["properties"]["fineTuningDetails"]["model"]["uri"] += "0"
    room.open()[0].jobs.submit(plan)
    assert len(room.jobs()) == 1


# -- sight and end


@pytest.mark.parametrize("word", [*STATES, "Thawing"])
def test_every_word_of_the_service_has_a_state(room: Room, word: str) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, word)
    status = platform.jobs.status(ref)
    assert status.native_state == word
    assert status.state is STATES.get(word, RunState.UNKNOWN)
    assert platform.jobs.statuses([ref])[ref].state is status.state


def test_many_runs_are_seen_in_few_requests(room: Room) -> None:
    platform, wire = room.open()
    refs = [platform.jobs.submit(replace(room.plan(), number=number)) for number in range(1, 7)]
    wire.sent.clear()
    found = platform.jobs.statuses([*refs, RunRef("foundry", "no-such-run-1")])
    assert set(found) == set(refs)
    assert len(wire.sent) <= 5  # pages of three, and one that is missing


def test_cancel_asks_and_may_be_repeated(room: Room) -> None:
    platform, wire = room.open()
    ref = platform.jobs.submit(room.plan())
    platform.jobs.cancel(ref)
    platform.jobs.cancel(ref)
    assert platform.jobs.status(ref).state in {RunState.CANCELING, RunState.CANCELED}
    room.end(ref.id, "Completed")
    asked = len([text for text in wire.sent if text.endswith("/cancel")])
    platform.jobs.cancel(ref)
    assert len([text for text in wire.sent if text.endswith("/cancel")]) == asked


@pytest.mark.parametrize("word", ["Failed", "Canceled"])
def test_what_ended_cannot_go_on_and_is_told_what_to_do(room: Room, word: str) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, word)
    with pytest.raises(ConflictError, match="cannot go on") as caught:
        platform.jobs.resume(ref)
    assert "--again" in caught.value.hint


@pytest.mark.parametrize("word", ["Running", "Completed"])
def test_what_has_not_failed_is_not_resumed(room: Room, word: str) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, word)
    with pytest.raises(ConflictError, match=ref.id):
        platform.jobs.resume(ref)


def test_unknown_runs_are_not_found(room: Room) -> None:
    jobs = room.open()[0].jobs
    ref = RunRef("foundry", "no-such-run-1")
    for call in (jobs.status, jobs.cancel, jobs.resume, jobs.artifact):
        with pytest.raises(NotFoundError, match="no-such-run-1"):
            call(ref)
    for read in (jobs.logs, jobs.metrics):
        with pytest.raises(NotFoundError):
            read(ref, after=None)


def test_no_artifact_before_success(room: Room) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    for word in ("Running", "Failed"):
        room.end(ref.id, word)
        with pytest.raises(ConflictError, match=ref.id):
            platform.jobs.artifact(ref)
        with pytest.raises(ConflictError):
            platform.jobs.download(ref, room.folder)


# -- what a run left


def test_the_artifact_has_losses_samples_and_the_registered_model(room: Room) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, "Completed")
    room.tuned(version=3, job=ref.id)
    room.tuned(version=4, job="somebody-else")
    metrics = [
        {"name": "train_loss", "step": 1, "value": 2.5, "time": 1.8e9},
        {"name": "eval_loss", "step": 1, "value": 2.25, "time": 1.8e9 + 1},
    ]
    room.world.runner.record(f"{room.target.path}/jobs/{ref.id}")["metrics"] = metrics
    artifact = platform.jobs.artifact(ref)
    assert artifact.result == {"after": {"loss": 2.25}, "train_loss": 2.5, "steps": 1}
    assert not artifact.is_adapter
    guid = room.world.workspace_guid(room.target.path)
    assert str(artifact.model) == f"azureml://locations/eastus2/workspaces/{guid}/models/card/versions/3"
    [sample] = [json.loads(line) for line in (artifact.folder / "samples.jsonl").read_text().splitlines()]
    assert sample["prompt"].startswith("hi ")
    assert sample["expected"] == "ok"
    assert len((artifact.folder / "events.jsonl").read_text().splitlines()) == 2


def test_a_service_that_tells_no_losses_leaves_an_empty_result(room: Room) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, "Completed")
    room.tuned(job=ref.id)
    room.shelf.blobs.clear()
    artifact = platform.jobs.artifact(ref)
    assert artifact.result == {}
    assert (artifact.folder / "samples.jsonl").read_text() == ""


def test_a_model_that_is_not_registered_yet_is_said(room: Room) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, "Completed")
    with pytest.raises(ConflictError, match="not registered") as caught:
        platform.jobs.artifact(ref)
    assert "give the same command again" in caught.value.hint


def test_the_version_that_the_job_names_is_taken(room: Room) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    job = room.end(ref.id, "Completed")
    room.tuned(version=8, job="unknown-to-the-model")
    job["properties"]["outputs"]["registered_model"]["assetVersion"] = "8"
    assert str(platform.jobs.artifact(ref).model).endswith("/models/card/versions/8")


@pytest.mark.parametrize(("younger", "found"), [(0, None), (1, "2"), (2, None)])
def test_where_versions_name_no_job_the_only_younger_one_is_taken(
    room: Room, younger: int, found: str | None
) -> None:
    platform, _ = room.open()
    room.tuned(version=1, job="")
    room.world.clock.move_on(60)
    ref = platform.jobs.submit(room.plan())
    job = room.end(ref.id, "Completed")
    room.world.clock.move_on(60)
    for number in range(younger):
        room.tuned(version=2 + number, job="")
    workspace: Any = platform.jobs._workspace  # type: ignore[attr-defined]
    model = find_tuned_model(workspace, job)
    assert (model and model.version) == found


def test_a_download_brings_the_model_where_the_service_left_it(room: Room, tmp_path: Path) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, "Completed")
    room.tuned(job=ref.id)
    room.shelf.blobs[f"azureml/{ref.id}/model/weights.bin"] = b"w"
    target = tmp_path / "here"
    target.mkdir()
    platform.jobs.download(ref, target)
    assert (target / "model" / "weights.bin").read_bytes() == b"w"
    assert json.loads((target / "result.json").read_text()) == {}


def test_weights_that_the_service_keeps_are_said(room: Room, tmp_path: Path) -> None:
    platform, _ = room.open()
    ref = platform.jobs.submit(room.plan())
    room.end(ref.id, "Completed")
    room.tuned(job=ref.id)
    path = f"{room.target.path}/models/card/versions/1"
    found: Any = room.world.store.get(path)
    found["properties"]["modelUri"] = "azureml://registries/maas/models/hidden/versions/1"
    target = tmp_path / "here"
    target.mkdir()
    with pytest.raises(ConflictError, match="keeps the weights") as caught:
        platform.jobs.download(ref, target)
    assert "Deploy it instead" in caught.value.hint


def test_losses_become_a_result() -> None:
    events = [
        {"event": "step", "step": 1, "time": 1.0, "loss": 3.0},
        {"event": "step", "step": 2, "time": 2.0, "loss": 2.0, "learning_rate": 0.1},
        {"event": "validation", "step": 2, "time": 2.0, "loss": 2.5},
        {"event": "step", "step": 3, "time": 3.0, "gpu_hours": 1.0},
    ]
    assert result_of(events) == {"after": {"loss": 2.5}, "train_loss": 2.0, "steps": 2}
    assert result_of([]) == {}


def test_a_job_without_an_output_has_no_model(room: Room) -> None:
    workspace: Any = room.open()[0].jobs._workspace  # type: ignore[attr-defined]
    assert find_tuned_model(workspace, {"properties": {"outputs": None}}) is None
    assert (
        find_tuned_model(workspace, {"properties": {"outputs": {"registered_model": {"assetName": "no"}}}})
        is None
    )


def test_secrets_of_answers_do_not_reach_errors(room: Room) -> None:
    platform, wire = room.open()

    def refuse(number: int, text: str) -> None:
        if text.startswith("PUT"):
            raise httpx.ConnectError("sig=SECRET refused")

    wire.at = refuse
    with pytest.raises(ServiceError) as caught:
        platform.jobs.submit(room.plan())
    assert "SECRET" not in caught.value.message
