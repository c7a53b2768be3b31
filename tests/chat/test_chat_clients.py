"""Both client libraries against a real server: the same answers, and the same errors for bad luck."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from azure.ai.inference import ChatCompletionsClient
from azure.core.credentials import AzureKeyCredential

from maas_client.chat import CLIENTS, Chat, Conversation, open_chat
from maas_client.errors import (
    AccessDeniedError,
    MaasError,
    NotFoundError,
    RejectedError,
    ServiceError,
    UnavailableError,
    UsageError,
)
from tests.jobs.server_stage import KEY, NAME, TINY_PHI3, Server, make_model, start_server

HELLO = [{"role": "user", "content": "Hello, how are you?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("server"), TINY_PHI3)
    yield server
    server.stop()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def chat(server: Server, client: str) -> Chat:
    return open_chat(server.url, KEY, NAME, client)


def test_both_clients_get_the_same_answer(server: Server) -> None:
    inference, openai = (open_chat(server.url, KEY, NAME, client) for client in CLIENTS)
    answer = inference.complete(HELLO, max_tokens=16)
    assert answer == openai.complete(HELLO, max_tokens=16)
    assert answer.finish_reason in {"stop", "length"}
    assert answer.prompt_tokens > 0
    assert 0 < answer.completion_tokens <= 16


def test_a_stream_says_the_same(chat: Chat) -> None:
    parts = list(chat.stream(HELLO, max_tokens=16))
    assert "".join(parts) == chat.complete(HELLO, max_tokens=16).text
    assert len(parts) >= 1


def test_settings_reach_the_endpoint(chat: Chat) -> None:
    cut = chat.complete(HELLO, max_tokens=1)
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 1)
    chance = [chat.complete(HELLO, max_tokens=12, temperature=2.0, seed=seed).text for seed in (1, 1, 2, 3)]
    assert chance[0] == chance[1]
    assert len(set(chance)) > 1
    whole = chat.complete(HELLO, max_tokens=16).text
    stopped = chat.complete(HELLO, max_tokens=16, stop=[whole[2:5]]).text
    assert stopped == whole[: whole.index(whole[2:5])]


def test_the_model_info_of_azure(server: Server) -> None:
    with ChatCompletionsClient(server.url, AzureKeyCredential(KEY)) as client:
        info = client.get_model_info()
    assert (info.model_name, info.model_type) == (NAME, "chat-completion")


def test_a_conversation_remembers(chat: Chat) -> None:
    conversation = Conversation(chat, system="Be brief.")
    first = conversation.ask("Hello", max_tokens=8)
    assert [message["role"] for message in conversation.messages] == ["system", "user", "assistant"]
    said = "".join(conversation.stream("And you?", max_tokens=8))
    assert conversation.messages[2]["content"] == first.text
    assert conversation.messages[4] == {"role": "assistant", "content": said}
    assert conversation.ask("Again", max_tokens=1).prompt_tokens > first.prompt_tokens
    conversation.reset()
    assert conversation.messages == ({"role": "system", "content": "Be brief."},)


def test_a_turn_that_failed_or_was_left_is_forgotten(chat: Chat) -> None:
    conversation = Conversation(chat)
    with pytest.raises(RejectedError):
        conversation.ask("word " * 3000)
    left = conversation.stream("Hello", max_tokens=50)
    next(left)
    left.close()
    assert conversation.messages == ()
    assert conversation.ask("Hello", max_tokens=2).text


def error_of(chat: Chat, *, stream: bool = False, text: str = "Hello") -> MaasError:
    messages = [{"role": "user", "content": text}]
    with pytest.raises(MaasError) as caught:
        list(chat.stream(messages, max_tokens=8)) if stream else chat.complete(messages, max_tokens=8)
    assert KEY not in str(caught.value.to_dict())
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
def test_refusals(server: Server, client: str, stream: bool) -> None:
    wrong_key = error_of(open_chat(server.url, "wrong", NAME, client), stream=stream)
    assert (type(wrong_key), getattr(wrong_key, "status", 0)) == (AccessDeniedError, 401)
    other_model = error_of(open_chat(server.url, KEY, "gpt", client), stream=stream)
    assert type(other_model) is NotFoundError
    assert f"serves '{NAME}'" in other_model.message
    too_long = error_of(open_chat(server.url, KEY, NAME, client), stream=stream, text="word " * 3000)
    assert type(too_long) is RejectedError
    assert "context" in too_long.message
    assert too_long.hint


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_is_there(client: str, stream: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    error = error_of(open_chat(url, KEY, NAME, client), stream=stream)
    assert type(error) is UnavailableError
    assert url in error.message


def test_a_proxy_has_no_part_in_loopback(
    monkeypatch: pytest.MonkeyPatch, server: Server, client: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert open_chat(server.url, KEY, NAME, client).complete(HELLO, max_tokens=2).completion_tokens > 0


def test_an_unknown_client() -> None:
    with pytest.raises(UsageError, match="no chat client 'curl'"):
        open_chat("http://127.0.0.1:1", KEY, NAME, "curl")


class Stranger(BaseHTTPRequestHandler):
    """Answers each path with what its first part names."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, content_type, body = REPLIES[self.path.split("/")[1]]
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body) + (1 if "torn" in self.path else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


CHUNK = b'data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]}\n\n'
ERROR = (
    b'data: {"error": {"message": "The model failed", "type": "server_error", "code": "internal_error"}}\n\n'
)
FILTERED = b'data: {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]}\n\n'
REPLIES: dict[str, tuple[int, str, bytes]] = {
    "page": (200, "text/html", b"<html>Hello</html>"),
    "object": (200, "application/json", b'{"hello": "you"}'),
    "list": (200, "application/json", b"[]"),
    "busy": (429, "application/json", b'{"error": {"message": "Later", "code": "too_many_requests"}}'),
    "down": (503, "text/html", b"<html>down</html>"),
    "broken": (500, "application/json", b'{"error": {"message": "It failed", "code": "internal_error"}}'),
    "torn": (200, "text/event-stream", CHUNK),
    "ended": (200, "text/event-stream", CHUNK),
    "failed": (200, "text/event-stream", CHUNK + ERROR),
    "filtered": (200, "text/event-stream", CHUNK + FILTERED + b"data: [DONE]\n\n"),
}


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "stream", "kind"),
    [
        ("page", False, ServiceError),
        ("page", True, UnavailableError),
        ("object", False, ServiceError),
        ("list", False, ServiceError),
        ("busy", False, UnavailableError),
        ("busy", True, UnavailableError),
        ("down", False, UnavailableError),
        ("broken", False, ServiceError),
        ("broken", True, ServiceError),
        ("torn", True, UnavailableError),
        ("ended", True, UnavailableError),
        ("failed", True, UnavailableError),
        ("filtered", True, RejectedError),
    ],
)
def test_strange_answers_become_our_errors(
    stranger: str, client: str, path: str, stream: bool, kind: type[MaasError]
) -> None:
    error = error_of(open_chat(f"{stranger}/{path}", KEY, NAME, client), stream=stream)
    assert type(error) is kind
    assert "<html>" not in error.message


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle(tmp_path: Path, client: str) -> None:
    model = make_model(tmp_path / "model", max_position_embeddings=100_000)
    server = start_server(tmp_path, model)
    try:
        parts = open_chat(server.url, KEY, NAME, client).stream(HELLO, max_tokens=90_000)
        next(parts)
        server.process.kill()
        with pytest.raises(UnavailableError, match="broke off"):
            list(parts)
    finally:
        server.stop()
