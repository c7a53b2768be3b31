"""What the live service said goes through the route's parsers and calls, with other ids, orders and pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from maas_client.backends.foundry.openai_v1.account import Account, Resource
from maas_client.backends.foundry.openai_v1.book import Sent
from maas_client.backends.foundry.openai_v1.deployments import deployment_body, read_deployment
from maas_client.backends.foundry.openai_v1.endpoints import OpenAIEndpoints
from maas_client.backends.foundry.openai_v1.jobs import OpenAIJobs
from maas_client.backends.foundry.openai_v1.models import OpenAIModels
from maas_client.backends.foundry.openai_v1.wire import Job, read_event, read_file, read_job, to_status
from maas_client.cloudpath import CloudPath
from maas_client.endpoint import Billing, EndpointRef, EndpointState
from maas_client.errors import ConflictError, NotFoundError
from maas_client.model import Lineage
from maas_client.run import Artifact, RunRef, RunState
from maas_client.settings import Settings
from maas_client.spec import DeploySpec
from maas_client.transport.cloud import PUBLIC
from maas_client.transport.credential import AzureCredential
from tests.simulator.openapi import COGNITIVE, FOLDER, differences, operation, request_schema

RECORDED = FOLDER / "azure-sdk-assets/azure-ai-projects/finetuning"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings are not here")
SEEDS = range(5)
DEPLOYED = "test_finetuning_deploy_and_infer_oai_model_sft_job.excerpt.json"
RESOURCE = Resource("sanitized", "https://sanitized.services.ai.azure.com", "scope")


def entries(file: str = "") -> Iterator[dict[str, Any]]:
    """Recorded exchanges (of one file)."""
    for path in sorted(RECORDED.glob(file or "*.json")):
        yield from json.loads(path.read_text(encoding="utf-8"))["Entries"]


def scrambled(value: Any, chance: Random) -> Any:
    """The same JSON with other ids and times, and the members of its objects in another order."""
    text = json.dumps(value)
    for old, new in (
        ("sanitized-ftjob-id", f"ftjob-{chance.getrandbits(128):032x}"),
        ("sanitized-file-id", f"file-{chance.getrandbits(128):032x}"),
        ("b525297af36e4cfda898d13c3f91d3dc", f"{chance.getrandbits(128):032x}"),
    ):
        text = text.replace(old, new)
    return shuffled(json.loads(text), chance)


def shuffled(value: Any, chance: Random) -> Any:
    if isinstance(value, dict):
        members = [(name, shuffled(inner, chance)) for name, inner in value.items()]
        chance.shuffle(members)
        return dict(members)
    return [shuffled(each, chance) for each in value] if isinstance(value, list) else value


def answers(part: str, chance: Random) -> list[tuple[str, dict[str, Any]]]:
    """(method, scrambled body) of recorded answers below a path."""
    found = []
    for entry in entries():
        path = urlsplit(entry["RequestUri"]).path
        if part in path and isinstance(entry["ResponseBody"], dict):
            found.append(
                (
                    f"{entry['RequestMethod']} {path.rpartition('/')[2]}",
                    scrambled(entry["ResponseBody"], chance),
                )
            )
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_every_recorded_job_is_read(seed: int) -> None:
    states = {}
    for _, body in answers("/fine_tuning/jobs", Random(seed)):
        if body["object"] != "fine_tuning.job":
            continue
        job = read_job(body)
        status = to_status(job, seen_at=2e9)
        assert status.state is not RunState.UNKNOWN
        assert (job.id, job.training_file) == (body["id"], body["training_file"])
        states[job.native] = status.state
        if job.native == "succeeded":
            assert job.fine_tuned_model == body["fine_tuned_model"]
            assert (job.trained_tokens, status.ended_at) == (6720, 1764129933)
            assert job.result_files == tuple(body["result_files"])
    assert states == {
        "pending": RunState.QUEUED,
        "running": RunState.RUNNING,
        "pausing": RunState.RUNNING,
        "paused": RunState.CANCELED,
        "resuming": RunState.QUEUED,
        "cancelled": RunState.CANCELED,
        "succeeded": RunState.SUCCEEDED,
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_every_recorded_file_and_event_is_read(seed: int) -> None:
    chance = Random(seed)
    files = [read_file(body) for _, body in answers("/files", chance) if "filename" in body]
    assert {(file.name, file.size_bytes, file.is_ready, file.is_broken) for file in files} == {
        ("sft_training_set.jsonl", 2697, False, False),
        ("sft_training_set.jsonl", 2697, True, False),
    }
    [(_, body)] = [each for each in answers("/events", chance) if "data" in each[1]]
    event = read_event(body["data"][0])
    assert event.message == "Job enqueued. Waiting for jobs ahead to complete."


class Listed:
    """A resource whose recorded jobs are listed in any order, in pages of any size, among jobs of others."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        bodies = [
            body for _, body in answers("/fine_tuning/jobs", chance) if body["object"] == "fine_tuning.job"
        ]
        self.jobs = [
            {**body, "id": f"ftjob-{number}-{chance.getrandbits(32):x}"} for number, body in enumerate(bodies)
        ]
        chance.shuffle(self.jobs)
        self.size = chance.randrange(1, 6)
        self.posted: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST":
            self.posted.append(path)
            return httpx.Response(200, json=self.jobs[0])
        if path.endswith("/fine_tuning/jobs"):
            after = request.url.params.get("after")
            start = 0 if after is None else 1 + [job["id"] for job in self.jobs].index(after)
            page = self.jobs[start : start + self.size]
            more = start + self.size < len(self.jobs)
            return httpx.Response(
                200, json=shuffled({"object": "list", "data": page, "has_more": more}, self.chance)
            )
        if path.endswith("/events"):
            [body] = [each for _, each in answers("/events", self.chance)]
            return httpx.Response(200, json=body)
        return httpx.Response(404, json={"error": {"code": "notFound", "message": "There is no such thing."}})


def route(answer: Callable[[httpx.Request], httpx.Response], home: Path) -> tuple[Account, OpenAIJobs]:
    account = Account(
        RESOURCE,
        AzureCredential(open_source=lambda: None),
        lambda: PUBLIC,
        key="k",
        sleep=lambda _: None,
        transport=httpx.MockTransport(answer),
    )
    settings = Settings(_env_file=None, azure_openai_endpoint=RESOURCE.endpoint)
    return account, OpenAIJobs(settings, lambda: account, home, clock=lambda: 2e9)


@pytest.mark.parametrize("seed", SEEDS)
def test_recorded_jobs_are_found_as_runs_by_metadata_or_by_suffix(seed: int, tmp_path: Path) -> None:
    chance = Random(seed)
    listed = Listed(chance)
    runs = {}
    for number, job in enumerate(listed.jobs):
        name = f"card-{number:08x}-1"
        runs[name] = job
        if chance.random() < 0.5:
            job["metadata"] = {"maas-run": name, "other": "1"}
        else:
            job["user_provided_suffix"] = name
    _, jobs = route(listed, tmp_path)
    refs = [RunRef("foundry", name) for name in [*runs, "card-99999999-1"]]
    found = jobs.statuses(refs)
    assert {ref.id for ref in found} == set(runs)
    for ref, status in found.items():
        assert status.native_state == runs[ref.id]["status"]
    with pytest.raises(NotFoundError):
        jobs.status(refs[-1])
    assert listed.posted == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_that_shows_neither_is_followed_by_what_was_sent(seed: int, tmp_path: Path) -> None:
    listed = Listed(Random(seed))
    _, jobs = route(listed, tmp_path)
    ref, wanted = RunRef("foundry", "card-00000000-1"), listed.jobs[0]
    with pytest.raises(NotFoundError):
        jobs.status(ref)
    (tmp_path / "runs" / ref.id).mkdir(parents=True)
    Sent(0.0, "file-x", wanted["id"]).write(tmp_path / "runs" / ref.id / "sent.json")
    assert jobs.status(ref).native_state == wanted["status"]
    wanted["training_file"] = "file-of-this-run"
    Sent(wanted["created_at"] + 100.0, "file-of-this-run").write(tmp_path / "runs" / ref.id / "sent.json")
    assert jobs.status(ref).native_state == wanted["status"]
    Sent(wanted["created_at"] + 1000.0, "file-of-this-run").write(tmp_path / "runs" / ref.id / "sent.json")
    with pytest.raises(NotFoundError):
        jobs.status(ref)


@pytest.mark.parametrize("seed", SEEDS)
def test_recorded_ends_are_ends(seed: int, tmp_path: Path) -> None:
    listed = Listed(Random(seed))
    for number, job in enumerate(listed.jobs):
        job["metadata"] = {"maas-run": f"card-{number:08x}-1"}
    _, jobs = route(listed, tmp_path)
    for number, body in enumerate(listed.jobs):
        ref, job = RunRef("foundry", f"card-{number:08x}-1"), read_job(body)
        page = jobs.logs(ref, after=None)
        assert page.lines == ("Job enqueued. Waiting for jobs ahead to complete.",)
        assert (page.next is None) == job.state.is_final
        metrics = jobs.metrics(ref, after=None)
        assert (metrics.next is None) == job.state.is_final
        if job.is_paused:
            jobs.resume(ref)
        else:
            with pytest.raises(ConflictError):
                jobs.resume(ref)
        listed.posted.clear()
        jobs.cancel(ref)
        assert bool(listed.posted) == job.is_live
        if job.state is not RunState.SUCCEEDED:
            with pytest.raises(ConflictError):
                jobs.artifact(ref)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_recorded_deployment_is_what_we_send_and_read(seed: int, tmp_path: Path) -> None:
    chance = Random(seed)
    played = [entry for entry in entries(DEPLOYED) if "/deployments/" in entry["RequestUri"]]
    put = next(entry for entry in played if entry["RequestMethod"] == "PUT")
    got = next(entry for entry in played if entry["RequestMethod"] == "GET")
    wanted = put["RequestBody"]
    tuned = wanted["properties"]["model"]["name"]
    account, _ = route(lambda _: httpx.Response(500), tmp_path)
    models = OpenAIModels(tmp_path, clock=lambda: 1.0)
    lineage = Lineage("card-1", "gpt-4.1-mini", "chat", "lora")
    place = CloudPath(f"openai://{account.resource.name}/{tuned}")
    model = models.register("card", Artifact(tmp_path, {}, place), lineage)
    lease = read_deployment(got["ResponseBody"], None).lease
    assert lease is None
    endpoints = OpenAIEndpoints(lambda: account, models, tmp_path, clock=lambda: 1.0)
    spec = DeploySpec(name="test-ftjob-id", ttl="4h")
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/accounts"):
            properties = {"endpoint": f"{RESOURCE.endpoint}/"}
            return httpx.Response(
                200, json={"value": [{"id": "/subscriptions/s/x", "name": "a", "properties": properties}]}
            )
        if request.method == "PUT":
            sent.append(json.loads(request.content))
            return httpx.Response(
                201,
                json=shuffled(put["ResponseBody"], chance),
                headers={
                    "azure-asyncoperation": "https://management.azure.com/subscriptions/s/operationResults/1?s=signed"
                },
            )
        if "operationResults" in path:
            return httpx.Response(200, json={"status": "Running"})
        if request.method == "GET" and sent:
            return httpx.Response(200, json=shuffled(got["ResponseBody"], chance))
        if path.endswith("/chat/completions"):
            return httpx.Response(
                400, json={"error": {"code": "x", "message": "[] is too short - 'messages'"}}
            )
        return httpx.Response(404, json={"error": {"code": "ResourceNotFound", "message": "no"}})

    account = Account(
        RESOURCE,
        AzureCredential(open_source=Token),
        lambda: PUBLIC,
        key="k",
        subscription="s",
        group="g",
        sleep=lambda _: None,
        transport=httpx.MockTransport(answer),
    )
    endpoints = OpenAIEndpoints(lambda: account, models, tmp_path, clock=lambda: 1.0)
    begun = endpoints.deploy(model.ref, spec)
    assert (begun.state, begun.native_state) == (EndpointState.STARTING, "Creating")
    [body] = sent
    assert {key: body[key] for key in wanted} == wanted
    described = operation(
        COGNITIVE,
        "PUT",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments/x",
    )
    assert differences(COGNITIVE, request_schema(described), body) == set()
    ready = endpoints.status(EndpointRef("foundry", spec.name))
    assert (ready.state, ready.billing, ready.model) == (EndpointState.READY, Billing.BILLING, "card:1")
    assert ready.expires_at == 1.0 + 4 * 3600  # the live answer shows no tags: the lease of this home counts
    assert "signed" not in json.dumps(ready.to_dict())
    elsewhere = OpenAIEndpoints(lambda: account, models, tmp_path / "other", clock=lambda: 1.0)
    with pytest.raises(NotFoundError, match="that maas made"):
        elsewhere.status(EndpointRef("foundry", spec.name))
    with pytest.raises(ConflictError, match="maas did not make it"):
        elsewhere.deploy(model.ref, spec)
    assert deployment_body(model, tuned, spec, elsewhere_lease(model))["tags"]["maas-model"] == "card:1"


def elsewhere_lease(model: Any) -> Any:
    from maas_client.backends.foundry.openai_v1.deployments import Lease

    return Lease(str(model.ref), "4h", 1e18)


class Token:
    """A credential that gives a token that nobody checks."""

    def get_token(self, *_: str, **__: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 4_000_000_000)


def test_a_job_reads_itself_from_an_empty_answer() -> None:
    assert read_job({}) == Job("", "", 0.0)
