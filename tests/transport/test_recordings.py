"""What the live service really said goes through our errors, operations and lists, with other ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from loopback import Sleeper
from recorded import FOLDER, Exchange, conversations, scrambled

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    RejectedError,
    ServiceError,
    UnavailableError,
)
from maas_client.transport.answer import Answer, read_answer
from maas_client.transport.credential import KeyCredential
from maas_client.transport.failures import failure_of
from maas_client.transport.operations import OperationState, begun
from maas_client.transport.redaction import redact
from maas_client.transport.rest import Rest

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not here")

SEEDS = range(3)
KINDS = {
    400: RejectedError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: NotFoundError,
    409: ConflictError,
    416: ServiceError,
    500: UnavailableError,
    504: UnavailableError,
}
CODES = {
    "ArgumentInvalid",
    "BlobNotFound",
    "ContainerNotFound",
    "InvalidExpressionInJob",
    "InvalidRange",
    "JobNotFound",
    "ModelNotFound",
    "ModelNotSupportedByMaaS",
    "NoSuchEndpoint",
    "NotFound",
    "NotFoundError",
    "ResourceNotFound",
    "ServiceError",
    "TransientError",
    "UserAssignedIdentityNotFound",
}


def everything(seed: int) -> Iterator[tuple[int, Exchange, list[Exchange]]]:
    """(position, exchange, its conversation) of every recording, scrambled."""
    for exchanges in conversations().values():
        played = scrambled(exchanges, Random(seed))
        yield from ((at, one, played) for at, one in enumerate(played))


def answer_of(one: Exchange) -> Answer:
    return read_answer(one.status, dict(one.response().headers), one.content, one.url)


def words_in(value: Any, name: str) -> Iterator[str]:
    """Every text under a name, anywhere in a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key.lower() == name and isinstance(inner, str):
                yield inner
            yield from words_in(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from words_in(inner, name)


def test_the_recordings_are_all_read() -> None:
    assert len(conversations()) >= 90
    assert sum(len(exchanges) for exchanges in conversations().values()) >= 900


@pytest.mark.parametrize("seed", SEEDS)
def test_every_refusal_is_the_right_error(seed: int) -> None:
    count = 0
    for _, one, _ in everything(seed):
        if one.status < 400:
            continue
        count += 1
        error = failure_of(answer_of(one), operation="do it", client_request_id="ours")
        assert type(error) is KINDS[one.status], one.url
        assert error.status == one.status
        assert error.message.startswith("Cannot do it: ")
        assert error.message.endswith(f"HTTP {one.status}).")
        assert error.code in CODES | {""}, error.code
        assert error.code or one.content == b"", one.body
        if correlation := one.headers.get("x-ms-correlation-request-id"):
            assert correlation in error.request_id
        assert error.request_id
        for said in list(words_in(one.body, "message"))[:1]:
            assert " ".join(said.split())[:30].rstrip(". ") in error.message
    assert count >= 55


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ids_in_azure_mls_bodies_are_found(seed: int) -> None:
    count = 0
    for _, one, _ in everything(seed):
        operations = [text for text in words_in(one.body, "operation") if re.fullmatch("[0-9a-f]{32}", text)]
        if one.status < 400 or not operations:
            continue
        count += 1
        plain = Answer(one.status, {}, one.content, one.body)
        assert operations[0] in failure_of(plain).request_id
    assert count >= 10


class Player(httpx.BaseTransport):
    """Plays the answers of one operation: the first one, its looks, then the resource."""

    def __init__(self, first: Exchange, looks: list[Exchange], final: Exchange | None) -> None:
        self.first, self.looks, self.final = first, list(looks), final
        self.played: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        strange = urlsplit(url).netloc.lower() != urlsplit(self.first.url).netloc.lower()
        assert not (strange and "api-key" in request.headers), "a key went to a strange host"
        self.played.append(f"{request.method} {urlsplit(url).path}")
        if request.method == self.first.method and len(self.played) == 1:
            return self.first.response()
        if self.looks and last_part(url) == last_part(self.looks[0].url):
            return self.looks.pop(0).response()
        if self.final is not None and urlsplit(url).path.lower() == urlsplit(self.final.url).path.lower():
            return self.final.response()
        raise httpx.ConnectError("nothing was recorded")


def last_part(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def operations(seed: int) -> Iterator[tuple[Exchange, list[Exchange], Exchange | None]]:
    """Every recorded long-running operation: its first answer, its looks and the resource at the end."""
    for at, one, played in everything(seed):
        look_url = one.headers.get("azure-asyncoperation") or (
            one.headers.get("location") if one.status == 202 else None
        )
        if one.method == "GET" or not look_url:
            continue
        rest = [other for other in played[at + 1 :] if other.method == "GET"]
        looks = [other for other in rest if last_part(other.url) == last_part(look_url)]
        path = urlsplit(one.url).path.lower()
        final = next((other for other in rest if urlsplit(other.url).path.lower() == path), None)
        yield one, looks, final


def word_of(one: Exchange) -> str:
    return str(one.body.get("status", "")) if isinstance(one.body, dict) else ""


@pytest.mark.parametrize("seed", SEEDS)
def test_every_recorded_operation_ends_as_it_did(seed: int) -> None:
    chance, ended, cut_off = Random(seed), 0, 0
    for first, looks, final in operations(seed):
        if not looks:
            continue
        *before, last = looks
        again = [
            one for one in before for _ in range(chance.randrange(3))
        ]  # more and fewer looks than there were
        player, sleeper = Player(first, [*again, last], final), Sleeper()
        base = "{0.scheme}://{0.netloc}".format(urlsplit(first.url))
        rest = Rest(base, KeyCredential("k"), clock=sleeper.clock, sleep=sleeper.sleep, transport=player)
        began = rest.begin(first.method, first.url, {}, operation="change it")
        assert not began.is_final
        is_done = word_of(last) == "Succeeded" or (not word_of(last) and last.status in {200, 204})
        if is_done and (final is None or final.status == 200 or first.method == "DELETE"):
            ended += 1
            result_is_here = first.method == "DELETE" or final is not None or first.method == "POST"
            if not result_is_here:
                assert rest.look(began).state is OperationState.SUCCEEDED
                continue
            result = rest.finish(began, timeout_s=1e6)
            expected = final.body if final is not None and first.method in {"PUT", "PATCH"} else last.body
            assert (result.body or None) == (expected or None), first.url
        else:
            cut_off += 1
            with pytest.raises(ServiceError) as caught:
                rest.finish(began, timeout_s=1e4)
            assert type(caught.value) is UnavailableError
        assert player.looks == []
    assert ended >= 25
    assert cut_off <= 6


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_done_at_once_is_no_operation(seed: int) -> None:
    count = 0
    for _, one, _ in everything(seed):
        at_once = one.status in {200, 201, 204} and "azure-asyncoperation" not in one.headers
        if one.method == "GET" or not at_once or "management" not in one.url + "Sanitized":
            continue
        count += 1
        operation = begun("x", one.method, one.url, answer_of(one))
        assert operation.state is OperationState.SUCCEEDED, one.url
    assert count >= 90


@pytest.mark.parametrize("seed", SEEDS)
def test_every_recorded_list_comes_whole_in_pages_of_any_size(seed: int) -> None:
    chance, count = Random(seed), 0
    for _, one, _ in everything(seed):
        if one.method != "GET" or not isinstance(one.body, dict):
            continue
        name = next((name for name in ("value", "data") if isinstance(one.body.get(name), list)), "")
        if not name:
            continue
        count += 1
        items, pages = one.body[name], []
        left = list(items)
        while left or not pages:
            size = chance.randrange(0, 8)
            pages.append(left[:size])
            left = left[size:]
        base = "{0.scheme}://{0.netloc}".format(urlsplit(one.url))

        def answer(
            request: httpx.Request, name: str = name, pages: list[Any] = pages, base: str = base
        ) -> httpx.Response:
            at = int(request.url.params.get("$skipToken", "0"))
            link = f"{base if at % 2 else ''}/next?api-version=1&$skipToken={at + 1}"
            more = {"nextLink": link} if at + 1 < len(pages) else {"nextLink": None}
            return httpx.Response(200, json={name: pages[at], **more})

        found = list(Rest(base, transport=httpx.MockTransport(answer)).paging("/list"))
        assert found == items, one.url
    assert count >= 30


def test_a_list_with_a_next_link_is_followed_with_its_token_untouched() -> None:
    linked = [one for _, one, _ in everything(0) if isinstance(one.body, dict) and one.body.get("nextLink")]
    assert linked
    for one in linked:
        asked: list[bytes] = []

        def answer(request: httpx.Request, asked: list[bytes] = asked, one: Exchange = one) -> httpx.Response:
            asked.append(request.url.raw_path)
            return one.response() if len(asked) == 1 else httpx.Response(200, json={"value": [1]})

        base = "{0.scheme}://{0.netloc}".format(urlsplit(one.url))
        found = list(Rest(base, transport=httpx.MockTransport(answer)).paging(one.url))
        assert found == [*one.body["value"], 1]
        link = urlsplit(one.body["nextLink"])
        assert asked[1].decode() == f"{link.path}?{link.query}"


def test_an_overloaded_service_is_asked_again_as_it_was_then() -> None:
    again = [
        (one, later)
        for at, one, played in everything(0)
        if one.status in {500, 504}
        for later in [next(x for x in played[at + 1 :] if (x.method, x.url) == (one.method, one.url))]
    ]
    assert len(again) == 2
    for bad, good in again:
        sleeper, replies = Sleeper(), iter([bad.response(), good.response()])
        transport = httpx.MockTransport(lambda _, replies=replies: next(replies))
        rest = Rest("https://a", clock=sleeper.clock, sleep=sleeper.sleep, transport=transport)
        assert rest.request(bad.method, bad.url, idempotent=True).body == good.body
        assert len(sleeper.naps) == 1


def test_no_signature_of_any_recording_is_shown() -> None:
    text = json.dumps([vars(one) for exchanges in conversations().values() for one in exchanges])
    assert "sig=" in text
    assert re.findall(r"[?&]sig=(?!\*\*\*)[^&\"\\\s]+", redact(text)) == []
    assert re.findall(r"eyJ[A-Za-z0-9_-]{20,}", redact(text)) == []
