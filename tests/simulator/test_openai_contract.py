"""The simulated Foundry resource differs from the published contracts only where the live one does."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from maas_client.simulator.world import World
from tests.simulator.conftest import Ask
from tests.simulator.inprocess import InProcess
from tests.simulator.openapi import (
    COGNITIVE,
    FOLDER,
    OPENAI,
    answer_schema,
    differences,
    operation,
    request_schema,
)
from tests.simulator.test_openai_deployments import QUERY, body, place
from tests.simulator.test_openai_files import CHAT, lines, open_service, send
from tests.simulator.test_openai_tuning import act, create, ended, listed, listed_jobs, quick, uploaded, wait

pytestmark = pytest.mark.skipif(not OPENAI.is_file(), reason="the published contracts are not here")
__all__ = ["quick"]

RECORDINGS = FOLDER / "azure-sdk-assets/azure-ai-projects/finetuning"
LIVE_LEAVES_OUT = {
    "error",
    "fine_tuned_model",
    "finished_at",
    "metadata",
    "organization_id",
    "result_files",
    "trained_tokens",
    "validation_file",
}
"""What the contract requires of every job, and the live service leaves out while there is nothing to say."""
LIVE_WORDS = {"pending", "paused", "pausing", "resuming", "cancelling"}
"""Status words of the live service that the contract does not have (`cancelling` is our guess)."""


def unexpected(found: set[str]) -> set[str]:
    """Differences other than those of the live service."""
    left = set()
    for each in found:
        at, _, words = each.partition(": ")
        missing = words.split("'")[1] if words.endswith("is missing") else ""
        word = words.split("'")[1] if at.endswith("status") and "is not one of" in words else ""
        if missing not in LIVE_LEAVES_OUT and word not in LIVE_WORDS:
            left.add(each)
    return left


class Watched(httpx.BaseTransport):
    """Passes requests on, and notes where they or their answers differ from the contract."""

    def __init__(self, world: World) -> None:
        self._inner = InProcess(world)
        self.found: dict[str, set[str]] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        path = urlsplit(str(request.url)).path.removeprefix("/openai/v1")
        at = f"{request.method} {path.replace('ftjob-', '').replace('file-', '')[:24]}"
        described = operation(OPENAI, request.method, path)
        if request.content.startswith(b"{"):
            asked = json.loads(request.content)
            self.found.setdefault(f"request {at}", set()).update(
                differences(OPENAI, request_schema(described), asked)
            )
        schema = answer_schema(described, answer.status_code)
        if schema is not None:
            self.found.setdefault(at, set()).update(differences(OPENAI, schema, answer.json()))
        return answer


def live_differences() -> set[str]:
    found: set[str] = set()
    for file in RECORDINGS.glob("*.json"):
        for entry in json.loads(file.read_text(encoding="utf-8"))["Entries"]:
            path = urlsplit(entry["RequestUri"]).path
            if "/openai/" not in path or path.endswith("/responses"):
                continue
            described = operation(OPENAI, entry["RequestMethod"], path.partition("/openai")[2])
            schema = answer_schema(described, entry["StatusCode"])
            if schema is not None and isinstance(entry["ResponseBody"], dict):
                found |= differences(OPENAI, schema, entry["ResponseBody"])
    return found


def test_the_live_service_differs_as_we_say() -> None:
    found = live_differences()
    assert unexpected(found) == set()
    missing = {each.split("'")[1] for each in found if each.endswith("is missing")}
    assert missing == LIVE_LEAVES_OUT
    words = {each.split("'")[1] for each in found if each.startswith("status: ")}
    assert words == {"pending", "paused", "pausing", "resuming"}


def test_every_answer_of_the_openai_api_differs_only_as_the_live_one(quick: World) -> None:
    quick.timing.finalizing_s = 1e9
    watched = Watched(quick)
    service = open_service(quick, transport=watched)
    job = create(service, uploaded(quick, service), suffix="card-1", metadata={"maas-run": "card-1"})["id"]
    wait(service, job, lambda word: word == "running")
    act(service, "pause", job)
    wait(service, job, lambda word: word == "paused")
    quick.timing.finalizing_s = 0
    act(service, "resume", job)
    ended(service, job)
    act(service, "cancel", create(service, uploaded(quick, service))["id"])
    ended(service, create(service, uploaded(quick, service, CHAT))["id"])
    listed_jobs(service)
    listed(service, "events", job)
    listed(service, "checkpoints", job)
    file = send(service, lines(CHAT))["id"]
    service.ask("look", lambda api: api.files.with_raw_response.retrieve(file))
    service.ask("list", lambda api: api.files.with_raw_response.list())
    service.ask("delete", lambda api: api.files.with_raw_response.delete(file))
    for bad in ("ftjob-0", "ftjob-1"):
        with pytest.raises(Exception, match="not found"):
            act(service, "retrieve", bad)
    assert len(watched.found) >= 12
    assert {at: unexpected(found) for at, found in watched.found.items() if unexpected(found)} == {}


def test_every_answer_of_resource_manager_holds_against_its_contract(world: World, ask: Ask) -> None:
    account = world.names.foundry_id
    region = (
        f"/subscriptions/{world.names.subscription}/providers/Microsoft.CognitiveServices/locations/eastus2"
    )
    requests: list[tuple[str, str, Any]] = [
        ("GET", account, None),
        ("GET", account.rpartition("/")[0], None),
        ("POST", f"{account}/listKeys", None),
        ("POST", f"{account}/regenerateKey", {"keyName": "Key1"}),
        ("GET", f"{account}/models", None),
        ("PUT", place(world, "card"), body()),
        ("GET", place(world, "card"), None),
        ("PUT", place(world, "card"), body(capacity=20)),
        ("GET", place(world), None),
        ("GET", f"{region}/usages", None),
        ("DELETE", place(world, "card"), None),
        ("DELETE", place(world, "card"), None),
        ("GET", place(world, "card"), None),
    ]
    for method, path, asked in requests:
        described = operation(COGNITIVE, method, path)
        if asked is not None and method == "PUT":
            assert differences(COGNITIVE, request_schema(described), asked) == set(), path
        answer = ask(method, path, asked, **QUERY)
        assert str(answer.status_code) in described["responses"] or answer.status_code == 404
        schema = answer_schema(described, answer.status_code)
        if schema is not None and answer.content:
            assert differences(COGNITIVE, schema, answer.json()) == set(), f"{method} {path}"
        world.clock.move_on(100)


def test_the_recorded_deployment_is_what_the_simulator_answers(world: World, ask: Ask) -> None:
    file = RECORDINGS / "test_finetuning_deploy_and_infer_oai_model_sft_job.excerpt.json"
    entries = json.loads(file.read_text(encoding="utf-8"))["Entries"]
    put = next(each for each in entries if each["RequestMethod"] == "PUT")
    mine = ask("PUT", place(world, "card"), body(), **QUERY)
    assert mine.status_code == put["StatusCode"]
    assert set(put["ResponseBody"]) <= set(mine.json())
    assert set(put["ResponseBody"]["properties"]) <= set(mine.json()["properties"])
    look = next(each for each in entries if "operationResults" in each["RequestUri"])
    path = httpx.URL(mine.headers["azure-asyncoperation"])
    seen = ask("GET", path.path, query=dict(path.params)).json()
    assert set(look["ResponseBody"]) == set(seen)
    assert seen["status"] == look["ResponseBody"]["status"] == "Running"
