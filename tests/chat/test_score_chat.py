"""Chat with a scoring URI: a real scoring script in a process, and whatever else may answer there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from maas_client.chat import Chat, Conversation, open_chat
from maas_client.errors import (
    AccessDeniedError,
    MaasError,
    NotFoundError,
    RejectedError,
    ServiceError,
    UnavailableError,
    UsageError,
)
from tests.jobs.server_stage import KEY, NAME, ROOT, environment, make_model
from tests.transport.loopback import Call, Reply, loopback

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def scoring_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """jobs/score.py in the host that stands for Azure ML's inference server."""
    folder = tmp_path_factory.mktemp("deployment")
    make_model(folder / "model" / "tuned")
    state = folder / "state.json"
    words = [
        sys.executable,
        "-m",
        "maas_client.simulator.scoring_host",
        str(ROOT / "jobs/score.py"),
        str(state),
    ]
    variables = {"AZUREML_MODEL_DIR": str(folder / "model"), "MAAS_MODEL_NAME": NAME, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, env=environment(MAAS_ENDPOINT_KEY=KEY, **variables))
    end = time.monotonic() + 120
    while not state.is_file():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    yield json.loads(state.read_text())["url"] + "/score"
    process.kill()
    process.wait(60)


@pytest.fixture
def chat(scoring_uri: str) -> Chat:
    return open_chat(scoring_uri, KEY, NAME, speaks="score")


def test_an_answer_and_a_stream_of_one_part(chat: Chat) -> None:
    answer = chat.complete(HELLO, max_tokens=12)
    assert answer.text
    assert answer.finish_reason in {"stop", "length"}
    assert 0 < answer.completion_tokens <= 12
    assert list(chat.stream(HELLO, max_tokens=12)) == [answer.text]
    assert chat.complete(HELLO, max_tokens=1).finish_reason == "length"


def test_a_conversation_remembers(chat: Chat) -> None:
    conversation = Conversation(chat)
    first = conversation.ask("Hello", max_tokens=4)
    "".join(conversation.stream("And you?", max_tokens=4))
    assert conversation.ask("Again", max_tokens=1).prompt_tokens > first.prompt_tokens


def error_of(chat: Chat, text: str = "Hello") -> MaasError:
    with pytest.raises(MaasError) as caught:
        chat.complete([{"role": "user", "content": text}], max_tokens=4)
    assert KEY not in str(caught.value.to_dict())
    assert "\n" not in caught.value.message
    return caught.value


def test_refusals(scoring_uri: str, chat: Chat) -> None:
    assert type(error_of(open_chat(scoring_uri, "wrong", NAME, speaks="score"))) is AccessDeniedError
    other = error_of(open_chat(scoring_uri, KEY, "gpt", speaks="score"))
    assert type(other) is NotFoundError
    assert f"serves '{NAME}'" in other.message
    too_long = error_of(chat, "word " * 200)
    assert (type(too_long), getattr(too_long, "code", "")) == (RejectedError, "context_length_exceeded")
    assert too_long.hint


def test_a_library_that_cannot_ask_so_is_refused(scoring_uri: str) -> None:
    with pytest.raises(UsageError, match="through 'openai'"):
        open_chat(scoring_uri, KEY, NAME, "openai", speaks="score")
    with pytest.raises(UsageError, match="through 'inference'"):
        open_chat(scoring_uri, KEY, NAME, "inference", speaks="openai")
    with pytest.raises(UsageError, match="no chat client 'curl'"):
        open_chat(scoring_uri, KEY, NAME, "curl", speaks="score")


def said(code: str) -> dict[str, Any]:
    return {"error": {"message": "Words", "type": "t", "code": code, "param": None}}


def of_the_model(status: int) -> dict[str, str]:
    return {"ms-azureml-model-error-statuscode": str(status)}


CASES: dict[str, tuple[Reply, type[MaasError]]] = {
    "page": (Reply(200, b"<html>Hello</html>", {"Content-Type": "text/html"}), ServiceError),
    "object": (Reply(200, {"hello": "you"}), ServiceError),
    "list": (Reply(200, []), ServiceError),
    "text": (Reply(200, b""), ServiceError),
    "unreadable": (Reply(200, b'{"choices": [{"mess'), UnavailableError),
    "cut": (Reply(200, {"choices": []}, trouble="cut"), UnavailableError),
    "reset": (Reply(trouble="reset"), UnavailableError),
    "busy": (Reply(429, said("too_many_requests")), UnavailableError),
    "down": (Reply(503, b"<html>down</html>", {"Content-Type": "text/html"}), UnavailableError),
    "broken": (Reply(500, said("internal_error")), ServiceError),
    "model 400": (Reply(424, said("context_length_exceeded"), of_the_model(400)), RejectedError),
    "model 404": (Reply(424, None, of_the_model(404)), NotFoundError),
    "model 503": (Reply(424, None, of_the_model(503)), UnavailableError),
    "dependency": (Reply(424, said("FailedDependency")), RejectedError),
    "status in the body": (Reply(200, {**said("x"), "status": 404}), NotFoundError),
    "no status": (Reply(200, said("x")), ServiceError),
    "no deployment": (Reply(404, said("NotFound")), NotFoundError),
}


@pytest.mark.parametrize("case", CASES)
def test_strange_answers_become_our_errors(case: str) -> None:
    reply, kind = CASES[case]
    with loopback(lambda _: reply) as server:
        error = error_of(open_chat(server.url, KEY, NAME, speaks="score"))
    assert type(error) is kind
    assert "<html>" not in error.message
    assert len(server.calls) == 1


def test_nobody_is_there() -> None:
    error = error_of(open_chat("http://127.0.0.1:9/score", KEY, NAME, speaks="score"))
    assert type(error) is UnavailableError
    assert "http://127.0.0.1:9/score" in error.message


def test_each_request_carries_only_its_own_key() -> None:
    with loopback(lambda _: Reply(429, said("later"))) as server:
        chats = [open_chat(server.url, key, NAME, speaks="score") for key in ("first", "second")]
        for chat in (chats[0], chats[1], chats[0]):
            error_of(chat)
    keys = [call.headers["authorization"] for call in server.calls]
    assert keys == ["Bearer first", "Bearer second", "Bearer first"]
    assert not any("azureml-model-deployment" in call.headers for call in server.calls)
    assert server.calls[0].body == {"messages": HELLO, "model": NAME, "max_tokens": 4}


def completion(call: Call) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return Reply(200, {**head, "choices": [choice], "usage": usage})


def test_the_openai_way_takes_the_url_of_a_foundry_resource_as_it_is() -> None:
    with loopback(completion) as server:
        chat = open_chat(f"{server.url}/openai/v1", KEY, NAME, speaks="openai")
        assert chat.complete(HELLO).text == "Hi"
        plain = open_chat(server.url, KEY, NAME, "openai")
        assert plain.complete(HELLO).text == "Hi"
    assert [call.path for call in server.calls] == ["/openai/v1/chat/completions", "/v1/chat/completions"]
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}"}


def test_a_filtered_answer_is_empty_and_says_why() -> None:
    """The service leaves the message out of such a choice."""
    body = completion(Call("", "", {}, b"")).body
    body["choices"] = [{"index": 0, "finish_reason": "content_filter", "logprobs": None}]
    with loopback(lambda _: Reply(200, body)) as server:
        answer = open_chat(f"{server.url}/openai/v1", KEY, NAME, speaks="openai").complete(HELLO)
    assert (answer.text, answer.finish_reason) == ("", "content_filter")


def test_without_a_key_a_foundry_resource_gets_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token comes from a managed identity, as on a machine of Azure."""

    def answer(call: Call) -> Reply:
        if call.path == "/msi/token":
            return Reply(200, {"access_token": "a-token", "expires_on": "4102444800", "token_type": "Bearer"})
        return completion(call)

    with loopback(answer) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
            monkeypatch.delenv(name, raising=False)
        chat = open_chat(f"{server.url}/openai/v1", "", NAME, speaks="openai")
        assert server.calls == []
        chat.complete(HELLO)
        chat.complete(HELLO)
    asked = [call for call in server.calls if call.path == "/msi/token"]
    assert len(asked) == 1
    assert "resource=https://ai.azure.com" in asked[0].target
    assert server.calls[-1].headers["authorization"] == "Bearer a-token"
