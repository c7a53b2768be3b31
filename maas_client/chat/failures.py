"""Failures of a chat, whichever library met them, as errors of maas_client."""

from __future__ import annotations

from urllib.parse import urlsplit

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    RejectedError,
    ServiceError,
    UnavailableError,
)

OPERATION = "chat"
CONNECT_S = 10.0
ANSWER_S = 600.0  # a long answer of a large model on a CPU takes minutes, and others may be served first

_OVERLOADED = {408, 429, 502, 503, 504}
_BY_STATUS: dict[int, tuple[type[ServiceError], str]] = {
    401: (AccessDeniedError, "Check the endpoint's key with `maas endpoints show NAME`."),
    403: (AccessDeniedError, "Check the endpoint's key and your role on it."),
    404: (NotFoundError, "`maas endpoints list` shows what is there."),
    409: (ConflictError, ""),
}


_BY_CODE = {
    "context_length_exceeded": "Start afresh or shorten it.",
    "content_filter": "Ask it in other words.",
}


def refused(status: int, message: str, *, code: str = "", request_id: str = "") -> ServiceError:
    """The error for an HTTP status that is not success; `message` is the endpoint's own."""
    kind, hint = _BY_STATUS.get(status, (ServiceError, ""))
    if status in _OVERLOADED:
        kind, hint = UnavailableError, "Try again in a moment."
    elif kind is ServiceError and status < 500:
        kind, hint = RejectedError, _BY_CODE.get(code, "")
    said = " ".join(message.split()) or f"HTTP status {status}"
    return kind(
        f"The endpoint refused: {said}",
        hint=hint,
        operation=OPERATION,
        status=status,
        code=code,
        request_id=request_id,
    )


def unreachable(url: str) -> UnavailableError:
    """Nothing answers at the endpoint's address, or not in time."""
    return UnavailableError(
        f"No answer from the endpoint at {url}.",
        hint="`maas endpoints list` says whether it runs; `maas deploy` starts it.",
        operation=OPERATION,
    )


def broken_off() -> UnavailableError:
    """The connection ended before the answer did."""
    return UnavailableError(
        "The endpoint broke off in the middle of the answer.",
        hint="Ask again; `maas endpoints list` says whether it still runs.",
        operation=OPERATION,
    )


def filtered() -> RejectedError:
    """The content filter of the deployment took the answer away, or the rest of it."""
    return RejectedError(
        "The content filter of the endpoint took the answer away.",
        hint=_BY_CODE["content_filter"],
        operation=OPERATION,
        code="content_filter",
    )


def not_a_chat(url: str) -> ServiceError:
    """Something answers at the address, but it does not speak the chat protocol."""
    return ServiceError(
        f"What answers at {url} is not a chat endpoint.",
        hint="`maas endpoints list` shows the addresses.",
        operation=OPERATION,
    )


def is_loopback(url: str) -> bool:
    """Whether the endpoint is on this machine, where a proxy from the environment has no part."""
    return urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
