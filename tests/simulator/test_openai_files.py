"""Files of the simulated Foundry resource, through the real openai package."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest

from maas_client.errors import AccessDeniedError, MaasError, NotFoundError, QuotaError, RejectedError
from maas_client.simulator.foundry import account_keys, account_of
from maas_client.simulator.openai_files import MOST_FILES
from maas_client.simulator.world import World
from maas_client.transport.credential import AzureCredential, KeyCredential
from maas_client.transport.openai_client import OpenAIService
from tests.simulator.inprocess import BASE, InProcess, Source

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
PREFERENCE = {
    "input": {"messages": [{"role": "user", "content": "hi"}]},
    "preferred_output": [{"role": "assistant", "content": "hello"}],
    "non_preferred_output": [{"role": "assistant", "content": "go away"}],
}


def open_service(
    world: World, key: str = "", *, project: str = "", transport: httpx.BaseTransport | None = None
) -> OpenAIService:
    endpoint = f"{BASE}/api/projects/{project}" if project else BASE
    credential = KeyCredential(key or account_keys(world)["key1"])
    transport = transport or InProcess(world)
    return OpenAIService(endpoint, credential, "", transport=transport, sleep=lambda _: None)


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def send(service: OpenAIService, content: bytes, name: str = "rows.jsonl", purpose: Any = "fine-tune") -> Any:
    return service.ask(
        "send",
        lambda api: api.files.with_raw_response.create(file=(name, io.BytesIO(content)), purpose=purpose),
    ).mapping


def get(service: OpenAIService, identity: str) -> Any:
    return service.ask("look", lambda api: api.files.with_raw_response.retrieve(identity)).mapping


def content(service: OpenAIService, identity: str) -> bytes:
    return service.ask("read", lambda api: api.files.with_raw_response.content(identity)).content


def test_a_file_is_pending_then_processed_and_comes_back_byte_for_byte(world: World) -> None:
    service = open_service(world)
    data = b"\xef\xbb\xbf" + lines(*[CHAT] * 3) + b"--boundary-like\r\n".replace(b"-", b" ") + b"\n"
    made = send(service, data)
    assert (made["status"], made["bytes"], made["purpose"]) == ("pending", len(data), "fine-tune")
    assert content(service, made["id"]) == data
    world.clock.move_on(10)
    assert get(service, made["id"])["status"] == "error"  # the line that is no JSON
    good = send(service, lines(CHAT, PREFERENCE))
    world.clock.move_on(10)
    assert get(service, good["id"])["status"] == "processed"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lines(CHAT) + b"{oops\n", "Line 2 is not valid JSON"),
        (lines(CHAT, {"prompt": "a", "completion": "b"}), "Example 2 has no key 'messages'"),
        (lines([1]), "Example 1"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_when_it_was_read(world: World, data: bytes, said: str) -> None:
    service = open_service(world)
    made = send(service, data)
    world.clock.move_on(10)
    found = get(service, made["id"])
    assert found["status"] == "error"
    assert said in found["status_details"]


def test_files_are_listed_by_page_newest_first_and_deleted(world: World) -> None:
    service = open_service(world)
    made = [send(service, lines(CHAT), f"rows-{number}.jsonl")["id"] for number in range(5)]

    def listed(api: Any, place: dict[str, Any]) -> Any:
        return api.files.with_raw_response.list(limit=2, **place)

    assert [each["id"] for each in service.items("list", listed)] == made[::-1]
    gone = service.ask("delete", lambda api: api.files.with_raw_response.delete(made[2])).mapping
    assert gone == {"object": "file", "deleted": True, "id": made[2]}
    assert len(list(service.items("list", listed))) == 4
    with pytest.raises(NotFoundError):
        get(service, made[2])


@pytest.mark.parametrize(
    ("name", "purpose", "kind"),
    [("rows.csv", "fine-tune", RejectedError), ("rows.jsonl", "assistants", RejectedError)],
)
def test_other_files_are_refused(world: World, name: str, purpose: str, kind: type[MaasError]) -> None:
    with pytest.raises(kind):
        send(open_service(world), lines(CHAT), name, purpose)


def test_a_resource_holds_so_many_files(world: World) -> None:
    service = open_service(world)
    for _ in range(MOST_FILES):
        send(service, lines(CHAT))
    with pytest.raises(QuotaError):
        send(service, lines(CHAT))


def test_keys_and_tokens_open_both_addresses(world: World) -> None:
    made = send(open_service(world), lines(CHAT))
    second = open_service(world, account_keys(world)["key2"], project="any")
    assert get(second, made["id"])["id"] == made["id"]
    bearer = KeyCredential(account_keys(world)["key1"], "Authorization", "Bearer ")
    as_bearer = OpenAIService(BASE, bearer, "", transport=InProcess(world))
    assert get(as_bearer, made["id"])["id"] == made["id"]
    token = AzureCredential(open_source=lambda: Source(world))
    with_token = OpenAIService(BASE, token, "https://ai.azure.com/.default", transport=InProcess(world))
    assert get(with_token, made["id"])["id"] == made["id"]


def test_wrong_keys_and_foreign_tokens_are_refused(world: World) -> None:
    with pytest.raises(AccessDeniedError) as caught:
        get(open_service(world, "wrong"), "file-1")
    assert caught.value.status == 401
    foreign = AzureCredential(open_source=lambda: Source(world))
    service = OpenAIService(BASE, foreign, "https://graph.example/.default", transport=InProcess(world))
    with pytest.raises(AccessDeniedError):
        get(service, "file-1")


def test_an_account_without_keys_takes_only_tokens(world: World) -> None:
    account_of(world)["properties"]["disableLocalAuth"] = True
    with pytest.raises(AccessDeniedError) as caught:
        get(open_service(world), "file-1")
    assert (caught.value.status, caught.value.code) == (403, "AuthenticationTypeDisabled")


def test_an_expired_token_is_renewed(world: World) -> None:
    made = send(open_service(world), lines(CHAT))
    token = AzureCredential(open_source=lambda: Source(world))
    service = OpenAIService(BASE, token, "https://ai.azure.com/.default", transport=InProcess(world))
    assert get(service, made["id"])
    world.faults.order({"kind": "expired_token", "match": "/files/"})
    assert get(service, made["id"])["id"] == made["id"]
    assert world.faults.struck["expired_token"] == 1
