"""One request over the network and its answer: timeouts, redirects, proxies and certificates. Uses httpx."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import httpx

from maas_client.errors import ServiceError, SettingsError, UnavailableError
from maas_client.transport.answer import Answer, read_answer
from maas_client.transport.errorwords import one_line
from maas_client.transport.redaction import quiet_http_logs, shown_url
from maas_client.transport.trust import TrustedHosts, absolute, harmless, parts_of

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_MOST_BYTES = 64 * 2**20
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True)
class Timeouts:
    """Seconds to connect, between two pieces of an answer, and for one answer in whole."""

    connect_s: float = 5.0
    read_s: float = 30.0
    whole_s: float = 120.0


@dataclass(frozen=True, repr=False)
class Request:
    """What is sent. `headers` are the caller's; the credential's are added only for trusted hosts."""

    method: str
    url: str
    json: Any = None
    content: bytes | Iterable[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Exchange:
    """Sends one request at a time on pooled connections; safe to share between threads."""

    def __init__(
        self,
        hosts: TrustedHosts,
        *,
        timeouts: Timeouts,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        quiet_http_logs()
        self._hosts = hosts
        self._timeouts = timeouts
        limits = httpx.Timeout(timeouts.read_s, connect=timeouts.connect_s, pool=timeouts.connect_s)
        try:
            self._client = httpx.Client(
                transport=transport,
                timeout=limits,
                follow_redirects=False,
                verify=transport is not None or _certificates(*_ca_settings()),
            )
        except ValueError as error:
            raise SettingsError(
                f"HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is no proxy address: {one_line(error)}.",
                hint="Write it as http://host:port.",
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, request: Request, authorize: Callable[[], Mapping[str, str]]) -> Answer:
        """Send, following redirects; `authorize` gives the headers that only trusted hosts see.

        Returns the answer whatever its status. Raises UnavailableError where there is none.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._once(request, authorize)
            onward = self._redirected(request, answer)
            if onward is None:
                return answer
            request = onward
        raise ServiceError(
            f"{shown_url(request.url)} redirects in a circle.",
            hint="Check the endpoint.",
            code="TooManyRedirects",
        )

    def _redirected(self, request: Request, answer: Answer) -> Request | None:
        """The request that a redirect asks for; None where it is not followed.

        What changes something is repeated only as it was (307, 308) and only to a trusted host.
        """
        place = answer.headers.get("location", "")
        if answer.status not in _REDIRECTS or not place:
            return None
        url = absolute(request.url, place)
        if request.method in {"GET", "HEAD"}:
            return replace(request, url=url)
        if answer.status in {307, 308} and url in self._hosts:
            return replace(request, url=url)
        return None

    def _once(self, request: Request, authorize: Callable[[], Mapping[str, str]]) -> Answer:
        if not parts_of(request.url).hostname:
            raise ServiceError(f"{shown_url(request.url)} is no web address.", code="InvalidUrl")
        trusted = request.url in self._hosts
        headers = {**request.headers, **authorize()} if trusted else harmless(request.headers)
        try:
            with self._client.stream(
                request.method, request.url, headers=headers, json=request.json, content=request.content
            ) as response:
                content = self._read(response, request.url)
        except httpx.HTTPError as error:
            raise _no_answer(error, request.url) from None
        except (httpx.InvalidURL, UnicodeError):
            raise ServiceError(f"{shown_url(request.url)} is no web address.", code="InvalidUrl") from None
        return read_answer(response.status_code, dict(response.headers), content, request.url)

    def _read(self, response: httpx.Response, url: str) -> bytes:
        """The content, bounded in time and size."""
        until, parts, size = time.monotonic() + self._timeouts.whole_s, [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if time.monotonic() > until:
                raise httpx.ReadTimeout("The answer took too long as a whole.")
            if size > _MOST_BYTES:
                raise ServiceError(
                    f"The answer of {shown_url(url)} is larger than 64 MiB.", code="AnswerTooLarge"
                )
        return b"".join(parts)


def _no_answer(error: httpx.HTTPError, url: str) -> ServiceError:
    """The error for a request that brought no answer."""
    host = parts_of(url).hostname or url
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return ServiceError(
            f"The certificate of {host} is not trusted here.",
            hint="Set REQUESTS_CA_BUNDLE to your organization's CA file.",
            code="CertificateError",
        )
    if isinstance(error, httpx.UnsupportedProtocol):
        return ServiceError(f"{shown_url(url)} is no web address.", code="InvalidUrl")
    reason, hint = "the connection broke", "Try again; check the network if it stays."
    if isinstance(error, httpx.ProxyError):
        reason, hint = "the proxy refused", "Check HTTPS_PROXY and NO_PROXY."
    elif isinstance(error, httpx.DecodingError):
        reason, hint = "its answer is not packed as it says", "Check HTTPS_PROXY and NO_PROXY, and try again."
    elif isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        reason, hint = "it takes no connection in time", "Check the network, VPN, firewall and HTTPS_PROXY."
    elif isinstance(error, httpx.TimeoutException):
        reason = "the answer took too long"
    elif isinstance(error, httpx.ConnectError):
        reason, hint = _connect_reason(text)
    return UnavailableError(f"Cannot reach {host}: {reason}.", hint=hint, code=type(error).__name__)


def _connect_reason(text: str) -> tuple[str, str]:
    if any(words in text for words in ("Name or service", "getaddrinfo", "nodename", "name resolution")):
        return "its name is unknown", "Check the endpoint's name and the network."
    return "it takes no connection", "Check the network, VPN, firewall and HTTPS_PROXY."


def _ca_settings() -> tuple[str, str]:
    """The variable that names a CA file (or folder), as the Azure packages read them, and its value."""
    for name in _CA_VARIABLES:
        if value := os.environ.get(name):
            return name, value
    return "", ""


@cache
def _certificates(variable: str, place: str) -> ssl.SSLContext:
    """Certificates to trust: the file or folder that is named, else httpx's own. Raises SettingsError."""
    if not place:
        return httpx.create_ssl_context()
    try:
        if os.path.isdir(place):  # noqa: PTH112
            return ssl.create_default_context(capath=place)
        return ssl.create_default_context(cafile=place)
    except (OSError, ssl.SSLError):
        raise SettingsError(
            f"{variable} names {place}, which holds no readable certificates.",
            hint="Point it to a PEM file of CA certificates, or unset it.",
        ) from None
