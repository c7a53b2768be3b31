"""Fine-tuning jobs of the simulated Foundry resource, through the real openai package; jobs only pretend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from maas_client.errors import ConflictError, NotFoundError, QuotaError, RejectedError, ServiceError
from maas_client.simulator.openai_tuning import MOST_QUEUED
from maas_client.simulator.world import World
from maas_client.transport.openai_client import OpenAIService
from tests.simulator.test_openai_files import CHAT, PREFERENCE, lines, open_service, send

OPEN = {"model": "gpt-oss-20b", "extra_body": {"trainingType": "GlobalStandard"}}


@pytest.fixture
def quick(world: World) -> Iterator[World]:
    """A world in which jobs pretend, and a queue and each step take no time that one notices."""
    world.timing.tuning_steps = 0
    world.timing.queue_s = 0.0
    world.timing.reading_s = 0.0
    world.clock.change_speed(1000)
    yield world
    world.tuner.stop()


def uploaded(world: World, service: OpenAIService, *rows: Any) -> str:
    return str(send(service, lines(*(rows or [CHAT] * 10)))["id"])


def create(service: OpenAIService, training_file: str, **more: Any) -> dict[str, Any]:
    wanted = {"training_file": training_file, **OPEN, **more}
    return service.ask("start", lambda api: api.fine_tuning.jobs.with_raw_response.create(**wanted)).mapping


def act(service: OpenAIService, verb: str, job: str) -> dict[str, Any]:
    return service.ask(verb, lambda api: getattr(api.fine_tuning.jobs.with_raw_response, verb)(job)).mapping


def wait(service: OpenAIService, job: str, accept: Callable[[str], bool]) -> dict[str, Any]:
    until = time.monotonic() + 30
    while not accept((seen := act(service, "retrieve", job))["status"]):
        assert time.monotonic() < until, seen
        time.sleep(0.01)
    return seen


def ended(service: OpenAIService, job: str) -> dict[str, Any]:
    return wait(service, job, lambda word: word in {"succeeded", "failed", "cancelled"})


def listed(service: OpenAIService, what: str, job: str, limit: int = 3) -> list[dict[str, Any]]:
    def page(api: Any, place: dict[str, Any]) -> Any:
        if what == "events":
            return api.fine_tuning.jobs.with_raw_response.list_events(job, limit=limit, **place)
        return api.fine_tuning.jobs.checkpoints.with_raw_response.list(job, limit=limit, **place)

    return list(service.items("list", page))


def test_a_job_goes_its_way_and_leaves_model_results_events_and_checkpoints(quick: World) -> None:
    service = open_service(quick)
    words = {"suffix": "card-1", "seed": 7, "metadata": {"maas-run": "card-1"}}
    job = create(service, uploaded(quick, service), **words)
    assert (job["status"], job["trainingType"], job["seed"]) == ("pending", "globalStandard", 7)
    assert (job["user_provided_suffix"], job["metadata"]) == ("card-1", {"maas-run": "card-1"})
    end = ended(service, job["id"])
    assert end["status"] == "succeeded"
    assert end["fine_tuned_model"] == f"gpt-oss-20b.ft-{job['id'][6:]}-card-1"
    assert end["trained_tokens"] == 1000
    csv = service.ask("read", lambda api: api.files.with_raw_response.content(end["result_files"][0])).text
    assert csv.splitlines()[0].startswith("step,train_loss,")
    assert csv.splitlines()[-1].startswith("10,0.1,")
    events = listed(service, "events", job["id"])
    assert events[0]["message"] == "Job enqueued. Waiting for jobs ahead to complete."
    assert events[-1]["message"] == "Job succeeded."
    steps = [each["data"]["step"] for each in events if each["type"] == "metrics"]
    assert steps == list(range(1, 11))
    [kept] = listed(service, "checkpoints", job["id"])
    assert kept["fine_tuned_model_checkpoint"] == f"{end['fine_tuned_model']}:ckpt-step-10"
    assert [line["what"] for line in quick.bill.to_dict()["lines"]] == [
        f"tuning job {job['id']} of gpt-oss-20b (globalStandard)"
    ]


def test_the_same_request_again_is_another_job(quick: World) -> None:
    service = open_service(quick)
    file = uploaded(quick, service)
    made = [create(service, file)["id"] for _ in range(3)]
    assert len(set(made)) == 3

    def page(api: Any, place: dict[str, Any]) -> Any:
        return api.fine_tuning.jobs.with_raw_response.list(limit=2, **place)

    assert [job["id"] for job in service.items("list", page)] == made[::-1]


def test_preference_rows_are_tuned_by_dpo(quick: World) -> None:
    service = open_service(quick)
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.1}}}
    wanted = {"model": "gpt-4.1-mini-2025-04-14", "method": method}
    job = create(service, uploaded(quick, service, *[PREFERENCE] * 10), **wanted)
    assert job["method"] == method
    assert job["hyperparameters"]["n_epochs"] == 1
    assert ended(service, job["id"])["status"] == "succeeded"


def test_few_examples_fail_after_a_while(quick: World) -> None:
    service = open_service(quick)
    end = ended(service, create(service, uploaded(quick, service, *[CHAT] * 9))["id"])
    assert end["status"] == "failed"
    assert end["error"]["param"] == "training_file"
    assert "9 example(s), but must have at least 10" in end["error"]["message"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra_body": {}}, "does not support fine-tuning"),  # open models are only trained globally
        ({"model": "Phi-4"}, "does not support fine-tuning"),
        ({"model": "gpt-4.1-mini", "extra_body": {"trainingType": "standard"}}, "does not support"),  # region
        ({"model": "nothing"}, "does not support fine-tuning"),
        ({"extra_body": {"trainingType": "sometimes"}}, "training type"),
        ({"method": {"type": "reinforcement"}}, "reinforcement"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "3"}}}},
            "n_epochs",
        ),
        ({"suffix": "x" * 41}, "suffix"),
        ({"suffix": "not this"}, "suffix"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
        ({"training_file": "file-0"}, "was not found"),
    ],
)
def test_what_cannot_be_tuned_is_refused(quick: World, change: dict[str, Any], said: str) -> None:
    service = open_service(quick)
    with pytest.raises(RejectedError, match=said):
        create(service, **{"training_file": uploaded(quick, service), **change})
    assert listed_jobs(service) == []


def listed_jobs(service: OpenAIService) -> list[dict[str, Any]]:
    def page(api: Any, place: dict[str, Any]) -> Any:
        return api.fine_tuning.jobs.with_raw_response.list(**place)

    return list(service.items("list", page))


def test_a_file_must_have_been_read(quick: World) -> None:
    quick.timing.reading_s = 1e6
    service = open_service(quick)
    with pytest.raises(RejectedError, match="is not ready"):
        create(service, uploaded(quick, service))
    quick.clock.move_on(2e6)
    broken = send(service, b"{oops\n")
    quick.clock.move_on(2e6)
    with pytest.raises(RejectedError) as caught:
        create(service, broken["id"])
    assert caught.value.code == "jsonlValidationFailed"


def test_three_run_and_twenty_wait(quick: World) -> None:
    quick.clock.change_speed(0.001)
    quick.timing.finalizing_s = 1e6
    service = open_service(quick)
    file = uploaded(quick, service)
    for _ in range(3):
        wait(service, create(service, file)["id"], lambda word: word == "running")
    waiting = [create(service, file)["id"] for _ in range(MOST_QUEUED)]
    with pytest.raises(QuotaError):
        create(service, file)
    act(service, "cancel", waiting[0])
    assert create(service, file)["status"] == "pending"
    words = [job["status"] for job in listed_jobs(service)]
    assert (words.count("running"), words.count("pending")) == (3, MOST_QUEUED)


def test_what_waits_is_canceled_at_once_and_what_runs_soon(quick: World) -> None:
    quick.timing.finalizing_s = 1e9
    service = open_service(quick)
    file = uploaded(quick, service)
    running = create(service, file)["id"]
    wait(service, running, lambda word: word == "running")
    assert act(service, "cancel", running)["status"] == "cancelling"
    assert ended(service, running)["status"] == "cancelled"
    quick.timing.queue_s = 1e9
    waiting = act(service, "cancel", create(service, file)["id"])
    assert waiting["status"] == "cancelled"
    assert waiting["finished_at"] >= waiting["created_at"]
    with pytest.raises(ConflictError):
        act(service, "cancel", waiting["id"])


def test_a_job_is_paused_keeps_a_checkpoint_and_goes_on(quick: World) -> None:
    quick.timing.finalizing_s = 1e9
    service = open_service(quick)
    job = create(service, uploaded(quick, service))["id"]
    with pytest.raises(ConflictError):
        act(service, "resume", job)
    wait(service, job, lambda word: word == "running")
    time.sleep(0.1)
    assert act(service, "pause", job)["status"] == "pausing"
    paused = wait(service, job, lambda word: word == "paused")
    assert paused["result_files"]
    assert len(listed(service, "checkpoints", job)) == 1
    quick.timing.finalizing_s = 0
    assert act(service, "resume", job)["status"] == "resuming"
    assert ended(service, job)["status"] == "succeeded"
    events = listed(service, "events", job, limit=20)
    assert [e["data"]["step"] for e in events if e["type"] == "metrics"] == list(range(1, 11))


def test_a_paused_job_can_be_canceled(quick: World) -> None:
    quick.timing.finalizing_s = 1e9
    service = open_service(quick)
    job = create(service, uploaded(quick, service))["id"]
    wait(service, job, lambda word: word == "running")
    act(service, "pause", job)
    wait(service, job, lambda word: word == "paused")
    assert act(service, "cancel", job)["status"] == "cancelled"


def test_jobs_misbehave_on_demand(quick: World) -> None:
    service = open_service(quick)
    file = uploaded(quick, service)
    quick.faults.order({"kind": "job_fail", "match": "bad-luck", "message": "The node died."})
    end = ended(service, create(service, file, suffix="bad-luck")["id"])
    assert (end["status"], end["error"]["message"]) == ("failed", "The node died.")
    quick.faults.order({"kind": "job_status", "match": "odd-word", "word": "thawing", "seconds": 1e6})
    odd = create(service, file, suffix="odd-word")
    assert odd["status"] == "thawing"
    quick.faults.order({"kind": "quota"})
    with pytest.raises(QuotaError):
        create(service, file)


def test_unknown_jobs_are_not_found(quick: World) -> None:
    service = open_service(quick)
    for verb in ("retrieve", "cancel", "pause", "resume"):
        with pytest.raises(NotFoundError):
            act(service, verb, "ftjob-0")
    for what in ("events", "checkpoints"):
        with pytest.raises(ServiceError):
            listed(service, what, "ftjob-0")


def test_what_ran_when_the_simulator_ended_has_failed(quick: World) -> None:
    quick.timing.queue_s = 1e9
    service = open_service(quick)
    job = create(service, uploaded(quick, service))["id"]
    quick.tuner.mark_lost()
    assert act(service, "retrieve", job)["status"] == "failed"
