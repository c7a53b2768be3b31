"""The OpenAI v1 API of a Foundry resource: the openai package forms the requests, rest.py sends them.

What the package would do by itself (sign, wait, repeat, raise its own errors, read variables)
is done here as for every other service.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, cast

import httpx
from openai import OpenAI, OpenAIError

from maas_client.errors import ServiceError
from maas_client.transport.answer import Answer, read_answer
from maas_client.transport.credential import Credential
from maas_client.transport.errorwords import one_line
from maas_client.transport.paging import items_of, last_item
from maas_client.transport.rest import Options, Rest
from maas_client.transport.retrying import RetryPolicy

PATH = "/openai/v1"
Send = Callable[[OpenAI], Any]
"""Forms one request: a call of the package through `.with_raw_response`."""


class SendPage(Protocol):
    """Forms the request for one page of a list; `place` holds the arguments that choose it."""

    def __call__(self, api: OpenAI, /, place: dict[str, Any]) -> Any: ...


_PASSED_ON = ("accept", "content-type", "content-length", "user-agent")
_MOST_PAGES = 10_000


@dataclass(frozen=True)
class _Asked:
    """What is being tried, and whether it may be tried twice (None: as its method says)."""

    operation: str = ""
    repeat: bool | None = None


_asked: ContextVar[_Asked] = ContextVar("asked")


class OpenAIService:
    """Files, fine-tuning jobs and models of one resource. `endpoint` is https://HOST or a project below it.

    GET and DELETE are repeated as Rest does, POST only where `repeat` says that twice is once. Failures are
    those of errors.py. `transport` replaces the network.
    """

    def __init__(
        self,
        endpoint: str,
        credential: Credential,
        scope: str,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.rest = Rest(
            f"{endpoint.rstrip('/')}{PATH}",
            credential,
            scope,
            clock=clock,
            sleep=sleep,
            transport=transport,
            policy=policy,
        )

    @cached_property
    def client(self) -> OpenAI:
        """The package's client. Its requests go out through `rest`, which signs them; it has no key."""
        wire = httpx.Client(transport=_Wire(self.rest))
        return OpenAI(
            base_url=f"{self.rest.base_url}/",
            api_key="signed-by-rest",
            max_retries=0,
            http_client=cast(Any, wire),  # the package takes clients of httpx and of its successor alike
        )

    def ask(self, operation: str, send: Send, *, repeat: bool | None = None) -> Answer:
        """Send one request and return the answer as it came; its body need not fit the package's types.

        `operation` is a verb phrase ("start tuning card-1").
        """
        with _trying(operation, repeat):
            try:
                raw = send(self.client)
            except OpenAIError as error:
                words = one_line(error).rstrip(". ") or type(error).__name__
                raise ServiceError(f"Cannot {operation}: {words}.", operation=operation) from None
        http = raw.http_response
        return read_answer(http.status_code, dict(http.headers), http.content, str(http.request.url))

    def pages(self, operation: str, send: SendPage, *, after: str = "") -> Iterator[Answer]:
        """The pages of a list, one request each; those behind the item `after`, where one is named."""
        place: dict[str, Any] = {"after": after} if after else {}
        seen: set[str] = set()
        while True:
            answer = self.ask(operation, partial(send, place=place))
            yield answer
            last = last_item(answer)
            if last == "":
                return
            if last in seen or len(seen) >= _MOST_PAGES:
                words = f"Cannot {operation}: the pages go in a circle."
                raise ServiceError(words, operation=operation, code="PagingLoop")
            seen.add(last)
            place = {"after": last}

    def items(self, operation: str, send: SendPage) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page; what is no object is left out."""
        for page in self.pages(operation, send):
            yield from (item for item in items_of(page) if isinstance(item, dict))


@contextmanager
def _trying(operation: str, repeat: bool | None) -> Iterator[None]:
    token = _asked.set(_Asked(operation, repeat))
    try:
        yield
    finally:
        _asked.reset(token)


class _Wire(httpx.BaseTransport):
    """Hands the package's requests to Rest, and Rest's answers to the package."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = _asked.get(_Asked())
        headers = {name.title(): value for name, value in request.headers.items() if name in _PASSED_ON}
        options: Options = {"headers": headers}
        if "content-type" in request.headers:
            options["content"] = cast(httpx.SyncByteStream, request.stream)
        if asked.repeat is not None:
            options["idempotent"] = asked.repeat
        answer = self._rest.request(request.method, str(request.url), operation=asked.operation, **options)
        kept = {name: value for name, value in answer.headers.items() if name not in _TRANSFER}
        return httpx.Response(answer.status, headers=kept, content=answer.content, request=request)

    def close(self) -> None:
        self._rest.close()


_TRANSFER = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that no longer hold: the content has been decoded."""
