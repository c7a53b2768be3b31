"""The openai package on our wire: signed, repeated and refused like every other service."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from loopback import Call, Reply, Sleeper, in_turn, loopback
from openai import OpenAIError

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    QuotaError,
    RejectedError,
    ServiceError,
    UnavailableError,
)
from maas_client.transport.credential import KeyCredential
from maas_client.transport.openai_client import OpenAIService

JOB = {"id": "ftjob-1", "status": "thawing", "trained_tokens": -3, "result_files": None, "finished_at": 1}


class Tokens:
    """A credential whose first token has been voided."""

    renewable = True

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def headers(self, scope: str, *, fresh: bool = False, claims: str = "") -> dict[str, str]:
        self.asked.append(fresh)
        return {"Authorization": f"Bearer {'new' if fresh else 'old'}-{scope}"}


def service(answer: Any, **more: Any) -> OpenAIService:
    sleeper = Sleeper()
    return OpenAIService(
        "https://card.openai.azure.com",
        KeyCredential("k3y"),
        "s",
        clock=sleeper.clock,
        sleep=sleeper.sleep,
        transport=httpx.MockTransport(answer),
        **more,
    )


def retrieve(api: Any) -> Any:
    return api.fine_tuning.jobs.with_raw_response.retrieve("ftjob-1")


def create(api: Any) -> Any:
    return api.fine_tuning.jobs.with_raw_response.create(model="m", training_file="file-1")


def test_a_request_is_formed_by_the_package_and_signed_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "https://elsewhere.example/of-another-service")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: mine")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=JOB)

    assert service(answer).ask("look", retrieve).mapping == JOB
    [request] = seen
    assert str(request.url) == "https://card.openai.azure.com/openai/v1/fine_tuning/jobs/ftjob-1"
    assert request.headers["api-key"] == "k3y"
    assert "authorization" not in request.headers
    assert not [name for name in request.headers if name.startswith(("openai", "x-secret", "x-stainless"))]
    assert "of-another-service" not in str(request.headers)


def test_bodies_outside_the_packages_types_come_as_they_are() -> None:
    odd = {"id": 7, "status": None, "data": "no list", "has_more": "perhaps"}
    assert service(lambda _: httpx.Response(200, json=odd)).ask("look", retrieve).mapping == odd


def test_a_get_is_repeated_and_a_post_is_not() -> None:
    count = {"GET": 0, "POST": 0}

    def answer(request: httpx.Request) -> httpx.Response:
        count[request.method] += 1
        return httpx.Response(503, headers={"retry-after": "1"})

    openai = service(answer)
    for send in (retrieve, create):
        with pytest.raises(UnavailableError):
            openai.ask("look", send)
    assert count == {"GET": 5, "POST": 1}


def test_a_post_is_repeated_where_twice_is_once() -> None:
    replies = iter([httpx.Response(502), httpx.Response(200, json=JOB)])
    found = service(lambda _: next(replies)).ask(
        "cancel", lambda api: api.fine_tuning.jobs.with_raw_response.cancel("ftjob-1"), repeat=True
    )
    assert found.mapping["id"] == "ftjob-1"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalidPayload", RejectedError),
        (400, "quotaExceeded", QuotaError),
        (401, "401", AccessDeniedError),
        (403, "forbidden", AccessDeniedError),
        (404, "notFound", NotFoundError),
        (409, "conflict", ConflictError),
        (422, "invalidPayload", RejectedError),
        (429, "429", UnavailableError),
        (500, "internalFailure", UnavailableError),
    ],
)
def test_every_refusal_is_one_of_ours_with_its_request_id(
    status: int, code: str, kind: type[ServiceError]
) -> None:
    body = {"error": {"code": code, "message": "The words of the service."}}
    answer = httpx.Response(status, json=body, headers={"apim-request-id": "id-1"})
    with pytest.raises(ServiceError) as caught:
        service(lambda _: answer).ask("start tuning card-1", create)
    error = caught.value
    assert type(error) is kind
    assert (error.operation, error.status, error.code) == ("start tuning card-1", status, code)
    assert error.request_id == "id-1"
    assert error.message.startswith("Cannot start tuning card-1: The words of the service")


def test_a_refused_token_is_renewed_once_and_the_upload_sent_whole_again() -> None:
    bodies: list[bytes] = []

    def answer(call: Call) -> Reply:
        bodies.append(call.content)
        good = call.headers["authorization"] == "Bearer new-scope"
        return Reply(201, {"id": "file-1"}) if good else Reply(401, {"error": {"code": "401"}})

    tokens = Tokens()
    with loopback(answer) as server:
        openai = OpenAIService(server.url, tokens, "scope")
        rows = io.BytesIO(b'{"a": 1}\n' * 100_000)
        answered = openai.ask(
            "send rows.jsonl",
            lambda api: api.files.with_raw_response.create(file=("rows.jsonl", rows), purpose="fine-tune"),
        )
        openai.rest.close()
    assert answered.mapping == {"id": "file-1"}
    assert tokens.asked == [False, True]
    assert len(bodies) == 2
    assert bodies[0].count(b'{"a": 1}\n') == bodies[1].count(b'{"a": 1}\n') == 100_000


def test_an_upload_goes_out_in_pieces_with_its_length(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x" * 3_000_000)

    def answer(call: Call) -> Reply:
        return Reply(
            201, {"length": call.headers.get("content-length"), "in": call.headers.get("transfer-encoding")}
        )

    with loopback(answer) as server, path.open("rb") as file:
        openai = OpenAIService(server.url, KeyCredential("k"), "")
        said = openai.ask(
            "send",
            lambda api: api.files.with_raw_response.create(file=("rows.jsonl", file), purpose="fine-tune"),
        ).mapping
        openai.rest.close()
    assert int(said["length"]) > 3_000_000
    assert said["in"] is None


@pytest.mark.parametrize("trouble", ["reset", "cut"])
def test_a_post_whose_answer_is_lost_is_sent_once(trouble: str) -> None:
    with loopback(in_turn(Reply(200, JOB, trouble=trouble))) as server:
        openai = OpenAIService(server.url, KeyCredential("k"), "")
        with pytest.raises(UnavailableError) as caught:
            openai.ask("start tuning", create)
        openai.rest.close()
    assert len(server.calls) == 1
    assert caught.value.operation == "start tuning"


def test_lists_go_on_after_the_last_id_and_stop_where_they_go_in_a_circle() -> None:
    rows = [{"id": f"ftjob-{n}"} for n in range(7)]

    def answer(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("after")
        start = 0 if after is None else [row["id"] for row in rows].index(after) + 1
        page = rows[start : start + 3]
        return httpx.Response(
            200, json={"data": [*page, "odd"][: len(page)], "has_more": start + 3 < len(rows)}
        )

    def send(api: Any, place: dict[str, Any]) -> Any:
        return api.fine_tuning.jobs.with_raw_response.list(limit=3, **place)

    assert list(service(answer).items("list jobs", send)) == rows
    circle = httpx.Response(200, json={"data": [{"id": "a"}], "has_more": True})
    with pytest.raises(ServiceError, match="circle"):
        list(service(lambda _: circle).items("list jobs", send))


def test_content_that_looks_like_json_but_is_lines_comes_whole() -> None:
    lines = b'{"messages": []}\n{"messages": []}\n'
    reply = httpx.Response(200, content=lines, headers={"content-type": "application/octet-stream"})
    found = service(lambda _: reply).ask("read", lambda api: api.files.with_raw_response.content("file-1"))
    assert found.content == lines


def test_what_the_package_itself_refuses_is_one_sentence() -> None:
    def send(api: Any) -> Any:
        raise OpenAIError("Both of them\nwere given.")

    with pytest.raises(ServiceError, match=r"^Cannot look: Both of them were given\.$"):
        service(lambda _: httpx.Response(200, json=JOB)).ask("look", send)
