"""What the simulator answers: JSON replies, and errors in the two shapes that ARM and its services use."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_COMPONENT = "managementfrontend"


@dataclass(frozen=True)
class Reply:
    """Status, JSON body (None: no body) and headers. `text` replaces the body where it is not JSON."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None


class Refusal(Exception):  # noqa: N818  it is an answer, not a defect
    """A request that is answered with an error.

    `inner` are the service's nested codes, outermost first; None gives the bare error of ARM itself, which
    has neither details nor correlation.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        inner: tuple[str, ...] | None = (),
        headers: Mapping[str, str] | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner
        self.headers = dict(headers or {})
        self.details = details or []

    def body(self, *, location: str, at: str) -> dict[str, Any]:
        """The error as JSON. `location` is the region, `at` the time that the error names."""
        if self.inner is None:
            return {"error": {"code": self.code, "message": self.message}}
        facts: list[tuple[str, Any]] = [
            ("ComponentName", _COMPONENT),
            ("Correlation", {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]}),
            ("Environment", location),
            ("Location", location),
            ("Time", at),
        ]
        if self.inner:
            facts.append(("InnerError", _nested(self.inner)))
        information = [{"type": kind, "info": {"value": value}} for kind, value in facts]
        error = {"code": self.code, "message": self.message, "details": self.details}
        return {"error": {**error, "additionalInfo": information}}


def _nested(codes: tuple[str, ...]) -> dict[str, Any] | None:
    return {"code": codes[0], "innerError": _nested(codes[1:])} if codes else None


def user_error(message: str, *inner: str, status: int = 400) -> Refusal:
    """The service's word for anything that the caller did wrong."""
    return Refusal(status, "UserError", message, inner=inner)


def not_found(message: str) -> Refusal:
    """404 of the service for a thing inside a workspace."""
    return user_error(message, "NotFoundError", status=404)


def conflict(message: str) -> Refusal:
    """409 of the service."""
    return Refusal(409, "Conflict", message)


def request_headers(location: str, at: str) -> dict[str, str]:
    """The ids that every answer of ARM carries."""
    request = str(uuid.uuid4())
    compact = at[:19].replace("-", "").replace(":", "")
    return {
        "x-ms-request-id": request,
        "x-ms-correlation-request-id": request,
        "x-ms-routing-request-id": f"{location.upper()}:{compact}Z:{request}",
        "x-ms-response-type": "standard",
    }
