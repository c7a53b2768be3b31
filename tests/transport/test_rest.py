"""Requests over real sockets: what is repeated and what never, tokens, redirects, ids and broken bodies."""

from __future__ import annotations

import base64
import json
import logging
import uuid
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import Call, Loopback, Reply, Sleeper, in_turn, loopback

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    QuotaError,
    RejectedError,
    ServiceError,
    SettingsError,
    UnavailableError,
)
from maas_client.transport.credential import KeyCredential
from maas_client.transport.exchange import Timeouts
from maas_client.transport.rest import Rest
from maas_client.transport.retrying import RetryPolicy

SCOPE = "https://management.azure.com/.default"


class Tokens:
    """A credential whose tokens are numbered; `asked` holds what was asked for."""

    renewable = True

    def __init__(self) -> None:
        self.asked: list[tuple[bool, str]] = []
        self.number = 1

    def headers(self, scope: str, *, fresh: bool = False, claims: str = "") -> Mapping[str, str]:
        assert scope == SCOPE
        self.asked.append((fresh, claims))
        self.number += fresh
        return {"Authorization": f"Bearer token-{self.number}"}


def client(server: Loopback, sleeper: Sleeper | None = None, **options: Any) -> Rest:
    sleeper = sleeper or Sleeper()
    options.setdefault("credential", Tokens())
    return Rest(
        server.url, scope=SCOPE, clock=sleeper.clock, sleep=sleeper.sleep, chance=lambda: 0.5, **options
    )


def test_an_answer_is_parsed_and_signed() -> None:
    with (
        loopback(in_turn(Reply(200, {"a": [1, "ü"]}, {"x-ms-request-id": "r1"}))) as server,
        client(server) as rest,
    ):
        answer = rest.put("/jobs/j1", {"x": 1}, params={"api-version": "2024-10-01", "skip": None, "$top": 5})
    assert (answer.status, answer.body, answer.request_ids) == (200, {"a": [1, "ü"]}, ("r1",))
    (call,) = server.calls
    assert (call.method, call.target) == ("PUT", "/jobs/j1?api-version=2024-10-01&$top=5")
    assert call.body == {"x": 1}
    assert call.headers["authorization"] == "Bearer token-1"
    assert uuid.UUID(call.headers["x-ms-client-request-id"])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("trouble", [408, 429, 500, 502, 503, 504, "reset", "cut"])
def test_what_may_be_repeated_is_repeated(method: str, trouble: int | str) -> None:
    if (method, trouble) == ("HEAD", "cut"):
        pytest.skip("HEAD has no body to cut off")
    bad = Reply(200, {"a": "b" * 50}, trouble=trouble) if isinstance(trouble, str) else Reply(trouble)
    sleeper = Sleeper()
    with loopback(in_turn(bad, bad, Reply(200, {"ok": 1}))) as server, client(server, sleeper) as rest:
        answer = rest.request(method, "/x")
    assert answer.status == 200
    assert [call.method for call in server.calls] == [method] * 3
    assert sleeper.naps == [0.25, 0.5]
    assert len({call.headers["x-ms-client-request-id"] for call in server.calls}) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("trouble", [408, 429, 500, 503, "reset", "cut"])
def test_what_may_not_be_repeated_is_sent_once(method: str, trouble: int | str) -> None:
    bad = Reply(200, {"a": "b" * 50}, trouble=trouble) if isinstance(trouble, str) else Reply(trouble)
    sleeper = Sleeper()
    with (
        loopback(in_turn(bad, Reply(200, {}))) as server,
        client(server, sleeper) as rest,
        pytest.raises(UnavailableError) as caught,
    ):
        rest.request(method, "/x", {}, operation="start job j1")
    assert len(server.calls) == 1
    assert sleeper.naps == []
    assert caught.value.operation == "start job j1"
    assert caught.value.request_id


def test_a_post_is_repeated_when_its_caller_says_so() -> None:
    with loopback(in_turn(Reply(503), Reply(200, {"keys": 1}))) as server, client(server) as rest:
        assert rest.post("/listKeys", idempotent=True).body == {"keys": 1}
    assert len(server.calls) == 2


def test_a_put_is_not_repeated_when_its_caller_says_so() -> None:
    with (
        loopback(in_turn(Reply(503), Reply(200))) as server,
        client(server) as rest,
        pytest.raises(UnavailableError),
    ):
        rest.put("/x", {}, idempotent=False)
    assert len(server.calls) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 412, 422, 501])
def test_a_clear_no_is_not_repeated(status: int) -> None:
    credential = KeyCredential("k")
    with (
        loopback(in_turn(Reply(status))) as server,
        client(server, credential=credential) as rest,
        pytest.raises(ServiceError) as caught,
    ):
        rest.get("/x")
    assert len(server.calls) == 1
    assert caught.value.status == status


def test_retry_after_in_seconds_is_honored() -> None:
    sleeper = Sleeper()
    with (
        loopback(in_turn(Reply(429, headers={"Retry-After": "7"}), Reply(200))) as server,
        client(server, sleeper) as rest,
    ):
        rest.get("/x")
    assert sleeper.naps == [7.25]


def test_retry_after_as_a_date_is_honored() -> None:
    sleeper = Sleeper(1_000.0)  # this machine's clock is decades behind
    dates = {"Date": formatdate(2e9, usegmt=True), "Retry-After": formatdate(2e9 + 11, usegmt=True)}
    transport = httpx.MockTransport(lambda _: next(replies))
    replies = iter([httpx.Response(503, headers=dates), httpx.Response(200)])
    rest = Rest(
        "https://a", clock=sleeper.clock, sleep=sleeper.sleep, chance=lambda: 0.0, transport=transport
    )
    rest.get("/x")
    assert sleeper.naps == [11.0]


def test_a_wait_beyond_the_total_time_is_an_error_that_says_when() -> None:
    sleeper = Sleeper()
    with (
        loopback(in_turn(Reply(429, headers={"Retry-After": "900"}))) as server,
        client(server, sleeper) as rest,
        pytest.raises(UnavailableError) as caught,
    ):
        rest.get("/x")
    assert (caught.value.retry_after_s, caught.value.hint) == (900, "Try again in 900 s.")
    assert sleeper.naps == []
    assert len(server.calls) == 1


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempts=st.integers(1, 9), total_s=st.floats(0, 60), chance=st.floats(0, 0.999))
def test_tries_and_time_are_bounded(attempts: int, total_s: float, chance: float) -> None:
    sleeper, sent = Sleeper(), []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        raise httpx.ConnectError("refused")

    policy = RetryPolicy(attempts=attempts, total_s=total_s)
    rest = Rest(
        "https://a",
        clock=sleeper.clock,
        sleep=sleeper.sleep,
        policy=policy,
        chance=lambda: chance,
        transport=httpx.MockTransport(answer),
    )
    with pytest.raises(UnavailableError):
        rest.get("/x")
    assert 1 <= len(sent) <= attempts
    assert sum(sleeper.naps) <= total_s + 1e-3  # what a clock in unix seconds can tell apart


def test_a_refused_token_is_renewed_once() -> None:
    credential = Tokens()
    with (
        loopback(
            lambda call: Reply(200 if call.headers["authorization"] == "Bearer token-2" else 401)
        ) as server,
        client(server, credential=credential) as rest,
    ):
        rest.post("/x", {"a": 1})
    assert credential.asked == [(False, ""), (True, "")]
    assert [call.body for call in server.calls] == [{"a": 1}, {"a": 1}]


def test_a_token_that_stays_refused_is_an_error() -> None:
    body = {"error": {"code": "InvalidAuthenticationToken", "message": "The access token is invalid."}}
    with (
        loopback(in_turn(Reply(401, body))) as server,
        client(server) as rest,
        pytest.raises(AccessDeniedError) as caught,
    ):
        rest.get("/x", operation="list jobs")
    assert len(server.calls) == 2
    assert caught.value.code == "InvalidAuthenticationToken"
    assert "az login" in caught.value.hint


def test_a_challenge_is_answered_with_its_claims() -> None:
    claims = '{"access_token":{"nbf":{"value":"1604106651"}}}'
    coded = base64.b64encode(claims.encode()).decode()
    challenge = {"WWW-Authenticate": f'Bearer realm="", error="insufficient_claims", claims="{coded}"'}
    credential = Tokens()
    with (
        loopback(in_turn(Reply(401, headers=challenge), Reply(200))) as server,
        client(server, credential=credential) as rest,
    ):
        rest.get("/x")
    assert credential.asked[-1] == (True, claims)


def test_a_wrong_key_is_not_tried_twice() -> None:
    with (
        loopback(in_turn(Reply(401))) as server,
        client(server, credential=KeyCredential("k1")) as rest,
        pytest.raises(AccessDeniedError) as caught,
    ):
        rest.get("/x")
    assert caught.value.hint.startswith("Check the key")
    assert [call.headers["api-key"] for call in server.calls] == ["k1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_takes_no_secret_along(status: int) -> None:
    with loopback(in_turn(Reply(200, {"there": 1}))) as other:
        place = {"Location": f"{other.url}/blob?sig=a%2Bb"}
        with loopback(in_turn(Reply(status, headers=place))) as server, client(server) as rest:
            headers = {"Range": "bytes=5-", "x-azureml-token": "t", "api-key": "k", "Cookie": "c"}
            assert rest.get("/x", headers=headers).body == {"there": 1}
    (call,) = other.calls
    assert call.target == "/blob?sig=a%2Bb"
    assert call.headers["range"] == "bytes=5-"
    assert not {"authorization", "x-azureml-token", "api-key", "cookie"} & set(call.headers)


def test_a_redirect_on_the_same_host_stays_signed() -> None:
    def answer(call: Call) -> Reply:
        return Reply(200, {"ok": 1}) if call.path == "/new" else Reply(307, headers={"Location": "/new"})

    with loopback(answer) as server, client(server) as rest:
        rest.put("/old", {"a": 1})
    assert [(call.path, call.body) for call in server.calls] == [("/old", {"a": 1}), ("/new", {"a": 1})]
    assert all("authorization" in call.headers for call in server.calls)


def test_a_change_is_not_redirected_to_a_stranger() -> None:
    with loopback(in_turn(Reply(200))) as other:
        place = {"Location": f"{other.url}/x"}
        with (
            loopback(in_turn(Reply(307, headers=place))) as server,
            client(server) as rest,
            pytest.raises(ServiceError) as caught,
        ):
            rest.post("/x", {"secret": 1})
    assert other.calls == []
    assert caught.value.status == 307


def test_redirects_in_a_circle_end() -> None:
    with (
        loopback(in_turn(Reply(302, headers={"Location": "/x"}))) as server,
        client(server) as rest,
        pytest.raises(ServiceError) as caught,
    ):
        rest.get("/x")
    assert caught.value.code == "TooManyRedirects"
    assert len(server.calls) == 6


@settings(max_examples=40, deadline=None)
@given(query=st.text("abcXYZ019-_.~%+=&/:,;!*'()@$", min_size=1, max_size=3000))
def test_a_signed_url_goes_out_as_it_came(query: str) -> None:
    query = query.replace("%", "%2B")
    seen: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200)

    Rest("https://a", transport=httpx.MockTransport(answer)).get(f"https://a/op?api-version=1&s={query}")
    assert seen == [f"/op?api-version=1&s={query}".encode()]


def test_a_long_signed_url_arrives_whole_and_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    signature = "aB3-_%2F" * 400
    with (
        loopback(in_turn(Reply(503), Reply(200, {}))) as server,
        client(server) as rest,
        caplog.at_level(logging.DEBUG),
    ):
        rest.get(f"{server.url}/op?t=1&c=MIIH&s={signature}")
    assert server.calls[-1].target.endswith(f"&s={signature}")
    assert "/op" in caplog.text
    assert signature[:40] not in caplog.text
    assert "token-1" not in caplog.text


def test_a_slow_body_ends() -> None:
    limits = Timeouts(connect_s=1, read_s=1, whole_s=0.3)
    policy = RetryPolicy(attempts=1)
    with (
        loopback(in_turn(Reply(200, {"a": "b" * 200}, trouble="slow"))) as server,
        client(server, timeouts=limits, policy=policy) as rest,
        pytest.raises(UnavailableError) as caught,
    ):
        rest.get("/x", operation="get job j1")
    assert caught.value.message == "Cannot reach 127.0.0.1: the answer took too long."


def test_nobody_there_is_one_sentence_with_an_id() -> None:
    with loopback(in_turn(Reply())) as server:
        pass
    with client(server, policy=RetryPolicy(attempts=2)) as rest, pytest.raises(UnavailableError) as caught:
        rest.get("/x", operation="list jobs")
    assert caught.value.message == "Cannot reach 127.0.0.1: it takes no connection."
    assert uuid.UUID(caught.value.request_id)
    assert caught.value.operation == "list jobs"


def test_success_that_is_no_json_is_said_where_json_is_needed() -> None:
    page = Reply(200, b"<html><title>Sign in</title></html>", {"Content-Type": "text/html"})
    with loopback(in_turn(page)) as server, client(server) as rest:
        answer = rest.get("/x")
        assert answer.body is None
        with pytest.raises(ServiceError, match="not a JSON object"):
            _ = answer.mapping


def test_a_byte_order_mark_is_no_harm() -> None:
    content = b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode()
    with loopback(in_turn(Reply(200, content))) as server, client(server) as rest:
        assert rest.get("/x").body == {"a": 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedError),
        (401, AccessDeniedError),
        (403, AccessDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (412, ConflictError),
        (422, RejectedError),
        (429, UnavailableError),
        (503, UnavailableError),
        (418, ServiceError),
    ],
)
def test_the_status_decides_the_error(status: int, kind: type[ServiceError]) -> None:
    ids = {"x-ms-request-id": "r", "x-ms-correlation-request-id": "c", "apim-request-id": "a"}
    body = {"error": {"code": "SomeCode", "message": "Something."}}
    policy = RetryPolicy(attempts=1)
    with (
        loopback(in_turn(Reply(status, body, ids))) as server,
        client(server, policy=policy) as rest,
        pytest.raises(ServiceError) as caught,
    ):
        rest.get("/x", operation="get job j1")
    error = caught.value
    assert type(error) is kind
    assert error.message == f"Cannot get job j1: Something (SomeCode, HTTP {status})."
    assert (error.status, error.code, error.request_id) == (status, "SomeCode", "r, c, a")


def test_no_quota_is_not_taken_for_overload() -> None:
    body = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}
    with loopback(in_turn(Reply(429, body))) as server, client(server) as rest, pytest.raises(QuotaError):
        rest.get("/x")
    assert len(server.calls) == 1


def test_a_token_never_goes_to_a_strange_host() -> None:
    with loopback(in_turn(Reply())) as server, loopback(in_turn(Reply())) as other, client(server) as rest:
        rest.get(f"{other.url}/x")
    assert "authorization" not in other.calls[0].headers


def test_a_bad_ca_file_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match="REQUESTS_CA_BUNDLE names"):
        Rest("https://127.0.0.1:1").get("/x")


def test_a_bad_proxy_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy:1")
    with pytest.raises(SettingsError, match="no proxy address"):
        Rest("https://127.0.0.1:1").get("/x")


def test_paths_are_below_the_base_whatever_their_query_holds() -> None:
    rest = Rest("https://r.services.ai.azure.com/api/projects/p/")
    assert rest.url("/jobs?uri=azureml://x") == f"{rest.base_url}/jobs?uri=azureml://x"
    assert rest.url("jobs", {"a b": "c&d"}) == f"{rest.base_url}/jobs?a%20b=c%26d"
    assert rest.url("https://other/x?s=%2b") == "https://other/x?s=%2b"
