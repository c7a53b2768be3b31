"""Every request of the route holds against Microsoft's published contracts, and so does what it uploads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from maas_client.model import Lineage
from maas_client.simulator.world import World
from maas_client.spec import DeploySpec
from tests.backends.foundry.openai_v1.stage import Stage, preference_rows
from tests.simulator.openapi import COGNITIVE, OPENAI, contract, differences, operation, request_schema

pytestmark = pytest.mark.skipif(not OPENAI.is_file(), reason="the published contracts are not here")


ELSEWHERE = ("Microsoft.Authorization", "/operationResults/")
"""Paths that another contract, or none, describes."""


class Held(httpx.BaseTransport):
    """Passes requests on, and notes where one differs from its contract."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self.inner = inner
        self.found: dict[str, set[str]] = {}
        self.parts: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = urlsplit(str(request.url)).path
        if path.startswith("/openai/v1"):
            self._hold(OPENAI, request, path.removeprefix("/openai/v1"))
        elif "/Microsoft.CognitiveServices/" in path and not any(each in path for each in ELSEWHERE):
            assert request.url.params["api-version"] == "2024-10-01"
            self._hold(COGNITIVE, request, path)
        return self.inner.handle_request(request)

    def _hold(self, file: Path, request: httpx.Request, path: str) -> None:
        described = operation(file, request.method, path)
        known = {resolved(file, each)["name"] for each in described.get("parameters", [])}
        asked = set(request.url.params) - known
        content = request.read()
        found = {f"query {name} is not known" for name in asked}
        if content.startswith(b"{"):
            found |= differences(file, request_schema(described), json.loads(content))
        elif content:
            self.parts.append(content)
        self.found.setdefault(f"{request.method} {path.rpartition('/')[2]}", set()).update(found)


def resolved(file: Path, parameter: Any) -> Any:
    """A parameter of a contract; those of other files are the subscription, the group and the api-version."""
    if not parameter:
        return {"name": "api-version"}
    for part in str(parameter.get("$ref", "")).removeprefix("#/").split("/"):
        parameter = contract(file)[part] if part in contract(file) else parameter.get(part, parameter)
    return parameter


@pytest.fixture
def held(stage: Stage) -> Held:
    stage.transport.inner = held = Held(stage.transport.inner)
    return held


def test_every_request_of_a_run_and_its_deployment_holds(world: World, stage: Stage, held: Held) -> None:
    world.timing.provisioning_s = 0.0
    deploy = DeploySpec(name="card-end")
    plan = stage.plan(register={"name": "card"}, deploy={"name": "card-end"})
    stage.jobs.check(plan)
    ref = stage.jobs.submit(plan)
    stage.ended(ref)
    stage.jobs.logs(ref, after=None)
    artifact = stage.jobs.artifact(ref)
    assert stage.platform.models is not None
    assert stage.platform.endpoints is not None
    model = stage.platform.models.register("card", artifact, Lineage(ref.id, "gpt-oss-20b", "chat", "lora"))
    status = stage.platform.endpoints.deploy(model.ref, deploy)
    while status.state == "starting":
        status = stage.platform.endpoints.status(status.ref)
    stage.platform.endpoints.access(status.ref)
    stage.platform.endpoints.delete(status.ref)
    other = stage.jobs.submit(stage.plan(training={"epochs": 2}))
    stage.jobs.cancel(other)
    chat = {
        each
        for each in held.found.pop("POST completions")
        if "should be non-empty" in each or "too short" in each
    }
    assert chat, "the contract wants messages; we know"
    odd = {at: found for at, found in held.found.items() if found}
    # The package pages files with `after`, which the contract does not describe and answers with has_more.
    assert {at: found for at, found in odd.items() if found != {"query after is not known"}} == {}
    assert len(held.found) >= 14


def test_a_preference_job_holds(stage: Stage, held: Held) -> None:
    stage.jobs.submit(
        stage.plan(
            preference_rows(),
            model="gpt-4.1-mini",
            foundry={"training_type": "globalStandard"},
            training={"objective": "dpo"},
        )
    )
    assert held.found["POST jobs"] == set()


def test_rows_are_sent_as_the_recorded_client_sends_them(stage: Stage, held: Held) -> None:
    """The contract asks for `expires_after`; the live service takes a file without, and keeps it."""
    stage.jobs.submit(stage.plan())
    train, validation = held.parts
    for part, name in ((train, b"train-"), (validation, b"validation-")):
        assert b'name="purpose"\r\n\r\nfine-tune\r\n' in part
        assert b'name="file"; filename="' + name in part
        assert b"expires_after" not in part


def test_preference_rows_arrive_byte_for_byte(world: World, stage: Stage, tmp_path: Path) -> None:
    train, held_out = tmp_path / "p.jsonl", tmp_path / "h.jsonl"
    train.write_bytes(b"\xef\xbb\xbf" + preference_rows(12).replace('"input": ', '"input":   ').encode())
    held_out.write_bytes(preference_rows(3).encode().rstrip())
    data = {"train": str(train), "validation": {"file": str(held_out)}}
    more = {"foundry": {"training_type": "globalStandard"}, "training": {"objective": "dpo"}}
    stage.jobs.submit(stage.plan(model="gpt-4.1-mini", data=data, **more))
    [job] = stage.tunings()
    folder = world.folder / "foundry" / "files"
    assert (folder / job["training_file"]).read_bytes() == train.read_bytes()
    assert (folder / job["validation_file"]).read_bytes() == held_out.read_bytes()


def test_pairs_in_trl_s_form_arrive_as_foundry_takes_them(world: World, stage: Stage) -> None:
    pairs = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "Go away."} for n in range(20)]
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    more = {"foundry": {"training_type": "globalStandard"}, "training": {"objective": "dpo"}}
    stage.jobs.submit(stage.plan(text, model="gpt-4.1-mini", **more))
    [job] = stage.tunings()
    folder = world.folder / "foundry" / "files"
    sent = (folder / job["training_file"]).read_text() + (folder / job["validation_file"]).read_text()
    assert sorted(sent.splitlines()) == sorted(
        json.dumps(json.loads(line), separators=(",", ":")) for line in preference_rows().splitlines()
    )


def test_held_out_rows_are_those_that_the_bundled_script_holds_out(world: World, stage: Stage) -> None:
    from maas_client.data.convert import held_out_places

    stage.jobs.submit(stage.plan(training={"epochs": 1, "seed": 11}))
    [job] = stage.tunings()
    folder = world.folder / "foundry" / "files"
    held = [json.loads(line)["messages"][0]["content"] for line in (folder / job["validation_file"]).open()]
    assert held == [f"What is {place}?" for place in sorted(held_out_places(20, 0.1, 11))]
    assert len((folder / job["training_file"]).read_text().splitlines()) == 18
