"""A real server and its wire: answers, streams, keys and every kind of bad request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.jobs.server_stage import NAME, TINY_PHI3, Server, start_server

PATHS = ("/chat/completions?api-version=2024-05-01-preview", "/v1/chat/completions")
HELLO = {"messages": [{"role": "user", "content": "Hello, how are you?"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("server"), TINY_PHI3)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def ask(client: httpx.Client, path: str = PATHS[1], **fields: Any) -> dict[str, Any]:
    reply = client.post(path, json={**HELLO, "max_tokens": 24, **fields})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def events(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    with client.stream("POST", PATHS[0], json={**HELLO, "max_tokens": 24, "stream": True, **fields}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("path", PATHS)
def test_answers_and_counts(client: httpx.Client, path: str) -> None:
    answer = ask(client, path)
    usage = answer["usage"]
    assert answer["object"] == "chat.completion"
    assert answer["model"] == NAME
    assert answer["choices"][0]["finish_reason"] in {"stop", "length"}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens"] <= 24


def test_the_same_question_gets_the_same_answer(client: httpx.Client) -> None:
    assert text_of(ask(client)) == text_of(ask(client)) == text_of(ask(client, temperature=0))


def test_a_seed_fixes_what_chance_chooses(client: httpx.Client) -> None:
    def answer(seed: int) -> str:
        return text_of(ask(client, temperature=2, seed=seed))

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_a_stream_says_the_same_as_the_whole_answer(client: httpx.Client) -> None:
    whole = ask(client)
    chunks = events(client, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert text == text_of(whole)
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["usage"] == whole["usage"]


def test_a_stream_counts_only_when_asked(client: httpx.Client) -> None:
    assert not any("usage" in chunk for chunk in events(client))


def test_max_tokens_cuts(client: httpx.Client) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        fields: dict[str, Any] = {"max_tokens": None, field: 1}
        answer = ask(client, **fields)
        assert answer["usage"]["completion_tokens"] == 1
        assert answer["choices"][0]["finish_reason"] == "length"


def test_the_answer_ends_before_a_stop_string(client: httpx.Client) -> None:
    whole = text_of(ask(client))
    stop = whole[3:6]
    answer = ask(client, stop=[stop])
    assert text_of(answer) == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_content_may_come_in_parts(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "how are you?"}]
    assert text_of(ask(client, messages=[{"role": "user", "content": parts}])) == text_of(ask(client))


def test_tools_reach_the_prompt(client: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "block_card", "parameters": {"type": "object"}}}
    plain, offered = ask(client), ask(client, tools=[tool])
    assert offered["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]
    assert ask(client, tools=[tool], tool_choice="none")["usage"] == plain["usage"]


def test_a_tool_conversation_is_taken_back(client: httpx.Client) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "balance", "arguments": '{"card": 1}'}}
    messages = [
        {"role": "user", "content": "How much is left?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "12"},
    ]
    assert ask(client, messages=messages)["choices"]


def test_waiting_requests_are_all_answered(client: httpx.Client) -> None:
    alone = text_of(ask(client))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: text_of(ask(client)), range(6)))
    assert set(answers) == {alone}


def test_info_and_models(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert info["model_name"] == NAME
    assert set(info) == {"model_name", "model_type", "model_provider_name"}
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [NAME]


def test_health_needs_no_key(server: Server) -> None:
    reply = httpx.get(f"{server.url}/health", trust_env=False)
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"api-key": "wrong"}, {"authorization": "Basic a-key-for-tests"}],
)
def test_without_the_key_nothing_is_told(server: Server, headers: dict[str, str]) -> None:
    for path in ("/info", "/v1/models", "/nowhere"):
        reply = httpx.get(server.url + path, headers=headers, trust_env=False)
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"


def test_the_key_may_come_as_api_key(server: Server) -> None:
    headers = {"api-key": "a-key-for-tests"}
    assert httpx.get(f"{server.url}/info", headers=headers, trust_env=False).status_code == 200


BAD_REQUESTS: dict[str, tuple[Any, int, str]] = {
    "torn": (b'{"messages"', 400, "not valid JSON"),
    "not utf-8": (b'{"messages": "\xff"}', 400, "not valid JSON"),
    "deep": (b"[" * 100_000, 400, "not valid JSON"),
    "list": (b"[]", 400, "JSON object"),
    "empty object": ({}, 400, "messages"),
    "no messages": ({"messages": []}, 400, "messages"),
    "unknown role": ({"messages": [{"role": "robot", "content": "a"}]}, 400, "messages.0.role"),
    "picture": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "content"),
    "half a surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, "content"),
    "torn arguments": (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        400,
        "arguments",
    ),
    "temperature": ({**HELLO, "temperature": 3}, 400, "temperature"),
    "not a number": (b'{"messages": [{"role": "user", "content": "a"}], "top_p": NaN}', 400, "top_p"),
    "text for a number": ({**HELLO, "max_tokens": "many"}, 400, "max_tokens"),
    "zero tokens": ({**HELLO, "max_tokens": 0}, 400, "max_tokens"),
    "empty stop": ({**HELLO, "stop": ""}, 400, "stop"),
    "huge seed": ({**HELLO, "seed": 2**70}, 400, "seed"),
    "two answers": ({**HELLO, "n": 2}, 400, "n"),
    "json mode": ({**HELLO, "response_format": {"type": "json_object"}}, 400, "response_format"),
    "misspelled": ({**HELLO, "max_token": 5}, 400, "did you mean 'max_tokens'"),
    "other model": ({**HELLO, "model": "gpt"}, 404, f"serves '{NAME}'"),
    "too long": ({"messages": [{"role": "user", "content": "word " * 3000}]}, 400, "context"),
    "too large": ({"messages": [{"role": "user", "content": "x" * 5_000_000}]}, 413, "MiB"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_told_what_is_wrong(client: httpx.Client, name: str) -> None:
    body, status, words = BAD_REQUESTS[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = client.post(PATHS[1], content=content)
    error = reply.json()["error"]
    assert reply.status_code == status
    assert words in error["message"]
    assert set(error) == {"message", "type", "code", "param"}


def test_the_codes_that_clients_look_at(client: httpx.Client) -> None:
    long = client.post(PATHS[0], json={"messages": [{"role": "user", "content": "word " * 3000}]})
    assert long.json()["error"]["code"] == "context_length_exceeded"
    missing, wrong_method = client.get("/nowhere"), client.get(PATHS[1])
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong_method.status_code, wrong_method.json()["error"]["code"]) == (405, "method_not_allowed")


def test_unknown_fields_are_dropped_on_request(client: httpx.Client) -> None:
    body = {**HELLO, "max_tokens": 2, "safe_mode": True}
    assert client.post(PATHS[0], json=body).status_code == 400
    assert client.post(PATHS[0], json=body, headers={"extra-parameters": "drop"}).status_code == 200


def test_bad_requests_leave_no_traceback_in_the_log(client: httpx.Client, server: Server) -> None:
    client.post(PATHS[1], content=b"{")
    assert "Traceback" not in server.log.read_text()
    assert "a-key-for-tests" not in server.log.read_text()
