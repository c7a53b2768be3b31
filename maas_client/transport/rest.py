"""REST: one client for Azure's services that repeats what may be repeated and names every refusal."""

from __future__ import annotations

import base64
import logging
import random
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from maas_client.errors import ServiceError, UnavailableError
from maas_client.transport.answer import Answer
from maas_client.transport.credential import Credential
from maas_client.transport.failures import failure_of
from maas_client.transport.hints import CHECK_KEY
from maas_client.transport.longrunning import look, result, wait
from maas_client.transport.operations import Operation, begun
from maas_client.transport.paging import items_of, next_url, with_params
from maas_client.transport.redaction import shown_url
from maas_client.transport.retrying import REPEATABLE_METHODS, RETRIED_STATUSES, RetryPolicy, retry_after_s
from maas_client.transport.trust import TrustedHosts

if TYPE_CHECKING:
    import httpx

    from maas_client.transport.exchange import Exchange, Request, Timeouts

Params = Mapping[str, str | int | None]


class Options(TypedDict, total=False):
    """What every request takes besides path and body.

    `params`: query parameters (None leaves one out). `headers`: further ones. `content`: bytes instead of
    JSON, or what gives them piece by piece each time it is gone through. `idempotent`: whether it may be
    repeated, instead of what the method says.
    """

    params: Params | None
    headers: Mapping[str, str]
    content: bytes | Iterable[bytes]
    idempotent: bool


_log = logging.getLogger("maas_client.transport")
_CLAIMS = re.compile(r'claims="([^"]+)"')
_MOST_PAGES = 10_000


class Rest:
    """Requests to one service. Paths are relative to `base_url`; whole URLs are taken as they are.

    `credential` (None: none is needed) signs for `scope`, and only on the host of `base_url` and on
    `trusted_hosts` (see TrustedHosts). GET, HEAD, PUT and DELETE are repeated after 408, 429, 5xx and broken
    connections, as `policy` says and never sooner than Retry-After; POST only with `idempotent=True`. Every
    request raises one of ServiceError's kinds with the operation, status, code and request id. Certificates
    and proxies come from REQUESTS_CA_BUNDLE, HTTPS_PROXY and NO_PROXY. `transport` replaces the network.
    """

    def __init__(
        self,
        base_url: str,
        credential: Credential | None = None,
        scope: str = "",
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
        policy: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        trusted_hosts: Collection[str] = (),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._hosts = TrustedHosts(base_url, trusted_hosts)
        self._credential = credential
        self._scope = scope
        self._clock = clock
        self._sleep = sleep
        self._transport = transport
        self._policy = policy or RetryPolicy()
        self._timeouts = timeouts
        self._chance = chance

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        if "_exchange" in self.__dict__:
            self.__dict__.pop("_exchange").close()

    @cached_property
    def _exchange(self) -> Exchange:
        from maas_client.transport.exchange import Exchange, Timeouts

        return Exchange(self._hosts, timeouts=self._timeouts or Timeouts(), transport=self._transport)

    # -- single requests

    def get(self, path: str, *, operation: str = "", **options: Unpack[Options]) -> Answer:
        """Read. Options as in `request`."""
        return self.request("GET", path, operation=operation, **options)

    def head(self, path: str, *, operation: str = "", **options: Unpack[Options]) -> Answer:
        """Look whether it is there. Options as in `request`."""
        return self.request("HEAD", path, operation=operation, **options)

    def put(self, path: str, body: Any = None, *, operation: str = "", **options: Unpack[Options]) -> Answer:
        """Create or replace; may be repeated. Options as in `request`."""
        return self.request("PUT", path, body, operation=operation, **options)

    def post(self, path: str, body: Any = None, *, operation: str = "", **options: Unpack[Options]) -> Answer:
        """Do. Sent once, unless `idempotent=True` says that doing it twice is doing it once."""
        return self.request("POST", path, body, operation=operation, **options)

    def patch(
        self, path: str, body: Any = None, *, operation: str = "", **options: Unpack[Options]
    ) -> Answer:
        """Change a part; sent once. Options as in `request`."""
        return self.request("PATCH", path, body, operation=operation, **options)

    def delete(self, path: str, *, operation: str = "", **options: Unpack[Options]) -> Answer:
        """Delete; may be repeated. Options as in `request`."""
        return self.request("DELETE", path, operation=operation, **options)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        operation: str = "",
        **options: Unpack[Options],
    ) -> Answer:
        """Send one request and return its answer (status below 300). `body` goes as JSON.

        `operation` is what is tried, as a verb phrase ("get job card-1").
        """
        from maas_client.transport.exchange import Request

        identity = str(uuid.uuid4())
        named = {
            "Accept": "application/json",
            "x-ms-client-request-id": identity,
            **options.get("headers", {}),
        }
        url = self.url(path, options.get("params"))
        request = Request(method, url, body, options.get("content"), named)
        may_repeat = options.get("idempotent", method in REPEATABLE_METHODS)
        began, tries = self._clock(), 0
        while True:
            tries += 1
            answer, error = self._try(request, operation, identity)
            if answer is not None and error is None:
                return answer
            wait_s = self._wait_s(answer, error, tries, began) if may_repeat else None
            if wait_s is None:
                raise error or ServiceError("There was no answer.", operation=operation) from None
            _log.debug("%s %s again in %.1f s", method, shown_url(url), wait_s)
            self._sleep(wait_s)

    def _wait_s(
        self, answer: Answer | None, error: ServiceError | None, tries: int, began: float
    ) -> float | None:
        """Seconds to wait before the next try; None where there is none."""
        if not isinstance(error, UnavailableError):
            return None
        if answer is not None and answer.status not in RETRIED_STATUSES:
            return None
        spent_s = self._clock() - began
        return self._policy.wait_s(tries, asked_s=error.retry_after_s, spent_s=spent_s, random=self._chance)

    def url(self, path: str, params: Params | None = None) -> str:
        """The whole URL of a path (or of a URL) with query parameters."""
        is_whole = path.lower().startswith(("http://", "https://"))
        whole = path if is_whole else f"{self.base_url}/{path.lstrip('/')}"
        return with_params(whole, params or {})

    def _try(
        self, request: Request, operation: str, identity: str
    ) -> tuple[Answer | None, ServiceError | None]:
        """One try, and a second one with a fresh token after 401: the answer, the error, or both."""
        began = time.monotonic()
        try:
            answer = self._exchange.send(request, self._authorization)
            if answer.status == 401 and self._credential is not None and self._credential.renewable:
                claims = _challenge(answer)
                answer = self._exchange.send(request, lambda: self._authorization(fresh=True, claims=claims))
        except ServiceError as error:
            if not error.operation:  # it went out; a failed sign-in names its own
                error.operation, error.request_id = operation, error.request_id or identity
            return None, error
        milliseconds = 1000 * (time.monotonic() - began)
        ids = ", ".join(answer.request_ids)
        _log.debug(
            "%s %s %d %.0f ms %s", request.method, shown_url(request.url), answer.status, milliseconds, ids
        )
        if answer.status < 300:
            return answer, None
        failure = failure_of(answer, operation=operation, client_request_id=identity)
        if answer.status == 401 and self._credential is not None and not self._credential.renewable:
            failure.hint = CHECK_KEY
        if isinstance(failure, UnavailableError):
            failure.retry_after_s = retry_after_s(answer.headers, self._clock())
            if failure.retry_after_s is not None:
                failure.hint = f"Try again in {failure.retry_after_s:.0f} s."
        return answer, failure

    def _authorization(self, *, fresh: bool = False, claims: str = "") -> Mapping[str, str]:
        if self._credential is None:
            return {}
        return self._credential.headers(self._scope, fresh=fresh, claims=claims)

    # -- long-running operations

    def begin(
        self, method: str, path: str, body: Any = None, *, operation: str, **options: Unpack[Options]
    ) -> Operation:
        """Send the request that begins a long-running operation, and return at once."""
        answer = self.request(method, path, body, operation=operation, **options)
        return begun(operation, method, self.url(path, options.get("params")), answer)

    def look(self, operation: Operation) -> Operation:
        """Look once at an operation. A failed one is a state, not an exception."""
        return look(self.get, operation)

    def finish(
        self,
        operation: Operation,
        *,
        timeout_s: float = 3600.0,
        watch: Callable[[Operation], None] | None = None,
    ) -> Answer:
        """Look until the operation ends, as often as the service asks, and return its result.

        `watch` sees every look. Raises ServiceError where it failed or was canceled, UnavailableError after
        `timeout_s` (the operation goes on by itself) or after five lost looks in a row.
        """
        ended = wait(
            self.get, operation, timeout_s=timeout_s, watch=watch, clock=self._clock, sleep=self._sleep
        )
        return result(self.get, ended)

    def long_running(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        operation: str,
        timeout_s: float = 3600.0,
        watch: Callable[[Operation], None] | None = None,
        **options: Unpack[Options],
    ) -> Answer:
        """`begin` and `finish` in one."""
        started = self.begin(method, path, body, operation=operation, **options)
        return self.finish(started, timeout_s=timeout_s, watch=watch)

    # -- lists

    def pages(self, path: str, *, operation: str = "", **options: Unpack[Options]) -> Iterator[Answer]:
        """The pages of a list, one request each. Raises ServiceError where the links go in a circle."""
        url, seen_urls = self.url(path, options.pop("params", None)), set[str]()
        while url:
            if url in seen_urls or len(seen_urls) >= _MOST_PAGES:
                raise ServiceError(
                    f"Cannot {operation or 'list'}: the pages of {shown_url(url)} go in a circle.",
                    operation=operation,
                    code="PagingLoop",
                )
            seen_urls.add(url)
            answer = self.get(url, operation=operation, **options)
            yield answer
            url = next_url(answer, url)

    def paging(self, path: str, *, operation: str = "", **options: Unpack[Options]) -> Iterator[Any]:
        """The items of a list, page after page, as they are needed."""
        for page in self.pages(path, operation=operation, **options):
            yield from items_of(page)


def _challenge(answer: Answer) -> str:
    """The claims that the service wants in the next token, "" where it names none."""
    found = _CLAIMS.search(answer.headers.get("www-authenticate", ""))
    if found is None:
        return ""
    try:
        return base64.urlsafe_b64decode(found.group(1) + "==").decode()
    except ValueError:
        return ""
