"""Deployments of the simulated Foundry resource: made by Resource Manager, asked through openai."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from maas_client.errors import NotFoundError, RejectedError, UnavailableError
from maas_client.simulator.cognitive import DEVELOPER_LIFE_S
from maas_client.simulator.foundry import account_of
from maas_client.simulator.world import World
from maas_client.transport.openai_client import OpenAIService
from tests.simulator.conftest import Ask
from tests.simulator.test_openai_files import CHAT, open_service
from tests.simulator.test_openai_tuning import create, ended, quick, uploaded

__all__ = ["quick"]
QUERY = {"query": {"api-version": "2024-10-01"}}
MODEL = {"format": "Microsoft", "name": "gpt-oss-20b", "version": "1"}


def body(model: dict[str, Any] = MODEL, sku: str = "GlobalStandard", capacity: int = 10) -> dict[str, Any]:
    return {
        "sku": {"name": sku, "capacity": capacity},
        "properties": {"model": model},
        "tags": {"maas-model": "card:1"},
    }


def place(world: World, name: str = "") -> str:
    return f"{world.names.foundry_id}/deployments" + (f"/{name}" if name else "")


def deploy(ask: Ask, world: World, name: str = "card", **more: Any) -> httpx.Response:
    return ask("PUT", place(world, name), body(**more), **QUERY)


def chat(service: OpenAIService, model: str, messages: Any = CHAT["messages"][:1]) -> Any:
    return service.ask(
        "chat",
        lambda api: api.chat.completions.with_raw_response.create(
            model=model, messages=messages, max_tokens=4
        ),
    ).mapping


def test_a_deployment_is_made_by_a_long_operation_and_listed(ask: Ask, world: World) -> None:
    answer = deploy(ask, world)
    assert answer.status_code == 201
    assert answer.json()["properties"]["provisioningState"] == "Creating"
    look = answer.headers["azure-asyncoperation"]
    assert "/providers/Microsoft.CognitiveServices/locations/eastus2/operationResults/" in look
    path = httpx.URL(look)
    query = {"query": dict(path.params)}
    assert ask("GET", path.path, **query).json()["status"] == "Running"
    world.clock.move_on(100)
    assert ask("GET", path.path, **query).json()["status"] == "Succeeded"
    [found] = ask("GET", place(world), **QUERY).json()["value"]
    assert found["properties"]["provisioningState"] == "Succeeded"
    assert found["tags"] == {"maas-model": "card:1"}
    assert found["properties"]["rateLimits"][1] == {"key": "token", "renewalPeriod": 60, "count": 10000}
    assert deploy(ask, world, capacity=20).status_code == 200


def test_a_deployment_is_deleted_and_no_longer_charged(ask: Ask, world: World) -> None:
    deploy(ask, world)
    world.clock.move_on(3600)
    assert ask("DELETE", place(world, "card"), **QUERY).status_code == 202
    world.clock.move_on(5)
    assert ask("DELETE", place(world, "card"), **QUERY).status_code == 204
    assert ask("GET", place(world, "card"), **QUERY).json()["error"]["code"] == "DeploymentNotFound"
    [line] = world.bill.to_dict()["lines"]
    assert line["usd"] == pytest.approx(1.70, rel=0.05)


def test_a_developer_deployment_lives_a_day_and_has_no_hourly_fee(ask: Ask, world: World) -> None:
    deploy(ask, world, sku="DeveloperTier")
    world.clock.move_on(DEVELOPER_LIFE_S - 60)
    assert ask("GET", place(world, "card"), **QUERY).status_code == 200
    world.clock.move_on(120)
    assert ask("GET", place(world, "card"), **QUERY).status_code == 404
    [line] = world.bill.to_dict()["lines"]
    assert line["usd"] == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sku": "Cheap"}, "InvalidResourceProperties"),
        ({"sku": "Standard"}, "InvalidResourceProperties"),  # open models are only served globally
        ({"capacity": 0}, "InvalidCapacity"),
        ({"capacity": 301}, "InsufficientQuota"),
        ({"model": {**MODEL, "format": "OpenAI"}}, "DeploymentModelNotSupported"),
        ({"model": {**MODEL, "name": "gpt-oss-20b.ft-0"}}, "DeploymentModelNotSupported"),
        ({"model": {**MODEL, "name": "nothing"}}, "DeploymentModelNotSupported"),
    ],
)
def test_what_cannot_be_deployed_is_refused(ask: Ask, world: World, change: Any, code: str) -> None:
    answer = deploy(ask, world, **change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert ask("GET", place(world), **QUERY).json()["value"] == []


def test_quota_is_counted_by_offer_and_model(ask: Ask, world: World) -> None:
    world.quota["OpenAI.GlobalStandard.gpt-oss-20b-finetune"] = 25
    deploy(ask, world, "one", capacity=20)
    refused = deploy(ask, world, "two", capacity=10).json()["error"]
    assert "is bigger than the current available capacity 5" in refused["message"]
    place_of = f"/subscriptions/{world.names.subscription}/providers/Microsoft.CognitiveServices"
    rows = ask("GET", f"{place_of}/locations/eastus2/usages", **QUERY).json()["value"]
    [row] = [each for each in rows if each["name"]["value"] == "OpenAI.GlobalStandard.gpt-oss-20b-finetune"]
    assert (row["currentValue"], row["limit"]) == (20, 25)


def test_a_tuned_model_has_one_deployment(quick: World, ask: Ask) -> None:
    service = open_service(quick)
    tuned = ended(service, create(service, uploaded(quick, service))["id"])["fine_tuned_model"]
    model = {**MODEL, "name": tuned}
    assert deploy(ask, quick, "one", model=model).status_code == 201
    assert deploy(ask, quick, "two", model=model).status_code == 409
    kept = {**model, "name": f"{tuned}:ckpt-step-10"}
    assert deploy(ask, quick, "two", model=kept).status_code == 201


def test_the_account_tells_of_itself_its_keys_and_models(ask: Ask, world: World) -> None:
    account = ask("GET", world.names.foundry_id, **QUERY).json()
    assert account["kind"] == "AIServices"
    accounts = world.names.foundry_id.rpartition("/")[0]
    in_all = f"/subscriptions/{world.names.subscription}/providers/Microsoft.CognitiveServices/accounts"
    for path in (accounts, in_all):
        assert [each["name"] for each in ask("GET", path, **QUERY).json()["value"]] == [account["name"]]
    keys = ask("POST", f"{world.names.foundry_id}/listKeys", **QUERY).json()
    assert set(keys) == {"key1", "key2"}
    again = ask("POST", f"{world.names.foundry_id}/regenerateKey", {"keyName": "Key2"}, **QUERY).json()
    assert (again["key1"] == keys["key1"], again["key2"] == keys["key2"]) == (True, False)
    world.timing.page_size = 50
    rows = ask("GET", f"{world.names.foundry_id}/models", **QUERY).json()
    assert "gpt-oss-20b" in [each["name"] for each in rows["value"]]
    account_of(world)["properties"]["disableLocalAuth"] = True
    assert ask("POST", f"{world.names.foundry_id}/listKeys", **QUERY).status_code == 400
    assert ask("GET", f"{accounts}/other", **QUERY).status_code == 404


def test_a_deployment_that_is_not_ready_does_not_answer(ask: Ask, world: World) -> None:
    service = open_service(world)
    with pytest.raises(NotFoundError) as caught:
        chat(service, "card")
    assert caught.value.code == "DeploymentNotFound"
    deploy(ask, world)
    with pytest.raises(NotFoundError):
        chat(service, "card")
    world.clock.move_on(100)
    world.faults.order({"kind": "not_ready"})
    with pytest.raises(UnavailableError) as not_ready:
        chat(service, "card")
    assert not_ready.value.code == "DeploymentNotReady"
    with pytest.raises(RejectedError, match="too short"):
        chat(service, "card", messages=[])


def test_the_content_filter_refuses_a_prompt_or_takes_a_completion_away(ask: Ask, world: World) -> None:
    deploy(ask, world)
    world.clock.move_on(100)
    world.faults.order({"kind": "content_filter"})
    world.faults.order({"kind": "content_filter", "where": "completion"})
    service = open_service(world)
    with pytest.raises(RejectedError) as caught:
        chat(service, "card")
    assert "content filter" in caught.value.hint
    [choice] = chat(service, "card")["choices"]
    assert choice["finish_reason"] == "content_filter"
    assert "message" not in choice


@pytest.mark.slow
def test_a_really_tuned_model_answers_whole_and_in_a_stream(ask: Ask, world: World) -> None:
    world.timing.tuning_steps, world.timing.queue_s, world.timing.reading_s = 2, 0, 0
    world.clock.change_speed(100)
    service = open_service(world)
    job = create(service, uploaded(world, service))["id"]
    until = time.monotonic() + 120
    while time.monotonic() < until:
        seen = service.ask("look", lambda api: api.fine_tuning.jobs.with_raw_response.retrieve(job)).mapping
        if seen["status"] in {"succeeded", "failed"}:
            break
        time.sleep(0.3)
    assert seen["status"] == "succeeded", seen.get("error")
    assert seen["trained_tokens"] > 0
    deploy(ask, world, model={**MODEL, "name": seen["fine_tuned_model"]})
    world.clock.move_on(100)
    try:
        whole = chat(service, "card")
        assert whole["usage"]["completion_tokens"] >= 1
        streamed = service.ask(
            "chat",
            lambda api: api.chat.completions.with_raw_response.create(
                model="card", messages=CHAT["messages"][:1], max_tokens=4, stream=True
            ),
        )
    finally:
        world.servers.stop()
    pieces = [line for line in streamed.text.split("\n\n") if line]
    assert '"choices": []' in pieces[0]
    assert pieces[-1] == "data: [DONE]"
