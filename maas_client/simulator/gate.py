"""What every request passes first: faults, sign-in, api-version, and the ids on every answer."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maas_client.simulator.faults import REQUEST_KINDS, Fault
from maas_client.simulator.replies import Refusal, request_headers
from maas_client.simulator.world import World

_SPELLINGS = (
    (re.compile(r"/resourcegroups/", re.IGNORECASE), "/resourceGroups/"),
    (
        re.compile(r"/providers/microsoft\.machinelearningservices/", re.IGNORECASE),
        "/providers/Microsoft.MachineLearningServices/",
    ),
    (
        re.compile(r"/providers/microsoft\.cognitiveservices/", re.IGNORECASE),
        "/providers/Microsoft.CognitiveServices/",
    ),
)
_OPEN = (
    "/metadata/",
    "/msi/",
    "/discovery",
    "/inference/",
    "/serverless/",
    "/openai/",
    "/api/projects/",
    "/scripted/",
)
"""Paths that need no token of ours: they have keys of their own or are public."""
_STATUS_CODES: Mapping[int, tuple[str, str]] = {
    400: ("UserError", "The request is invalid."),
    401: ("AuthenticationFailed", "Authentication failed."),
    403: ("AuthorizationFailed", "The client does not have authorization to perform this action."),
    404: ("UserError", "The resource was not found."),
    409: ("Conflict", "Another operation on this resource is in progress."),
    412: ("PreconditionFailed", "The resource was changed in the meantime."),
    429: ("TooManyRequests", "Too many requests. Please retry after some time."),
    500: ("ServiceError", "InternalServerError"),
    502: ("BadGateway", "The upstream service gave no valid answer."),
    503: ("ServiceUnavailable", "The service is unavailable just now."),
    504: ("TransientError", "Service invocation timed out."),
}


class Gate:
    """The outermost layer of the application (ASGI). `seen` counts requests by method and path."""

    def __init__(self, app: ASGIApp, world: World) -> None:
        self._app = app
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer in its place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for spelling, canonical in _SPELLINGS:
            scope["path"] = spelling.sub(canonical, scope["path"])
        world = self._world
        world.operations.settle()
        text = f"{scope['method']} {scope['path']}"
        admin = scope["path"].startswith("/_simulator/")
        if not admin:
            world.requests.append(text)
            if world.timing.latency_s:
                await asyncio.sleep(world.timing.latency_s)
        fault = None if admin else world.faults.take(REQUEST_KINDS, text)
        if fault is not None and fault.kind == "reset":
            _break(send)
            return
        try:
            self._check(Request(scope), fault, admin)
            await self._app(scope, receive, _Sender(world, send, fault))
        except Refusal as refusal:
            await self._refuse(refusal, scope, receive, _Sender(world, send, fault))

    def _check(self, request: Request, fault: Fault | None, admin: bool) -> None:
        """Raise the refusal that the fault, the missing token or the missing api-version call for."""
        path = request.url.path
        if fault is not None and fault.kind == "status":
            raise _ordered(fault)
        if admin:
            if not hmac.compare_digest(request.headers.get("x-simulator-key", ""), self._world.admin_key):
                raise Refusal(401, "AuthenticationFailed", "The header x-simulator-key is missing or wrong.")
            return
        if fault is not None and fault.kind == "expired_token":
            self._world.tokens.void_all()
        if path.startswith((*_OPEN, f"/{self._world.names.tenant}/")):
            return
        self._world.tokens.check(request.headers.get("authorization", ""))
        if path.startswith("/subscriptions") and "api-version" not in request.query_params:
            text = "The api-version query parameter (?api-version=) is required for all requests."
            raise Refusal(400, "MissingApiVersionParameter", text, inner=None)
        self._world.grants.check(request.method, path)

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        names, now = self._world.names, self._world.now()
        body = refusal.body(location=names.location, at=now)
        await JSONResponse(body, refusal.status, refusal.headers)(scope, receive, send)


def _ordered(fault: Fault) -> Refusal:
    status = int(fault["status"])
    code, message = _STATUS_CODES.get(status, ("ServiceError", "An error was ordered."))
    headers = {} if fault["retry_after"] is None else {"Retry-After": str(fault["retry_after"])}
    return Refusal(status, fault["code"] or code, message, headers=headers)


def _break(send: Any) -> None:
    """Cut the connection, so that the client sees it reset and nothing else."""
    cycle = getattr(send, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is None:
        raise RuntimeError("This server cannot break connections.")
    transport.abort()


class _Sender:
    """Sends an answer with the ids of ARM, or mangled as a fault orders."""

    def __init__(self, world: World, send: Send, fault: Fault | None) -> None:
        self._world = world
        self._send = send
        self._fault = fault
        self._is_broken = False

    async def __call__(self, message: Message) -> None:
        """Send one message of the answer."""
        if self._is_broken:
            return
        if message["type"] == "http.response.start":
            ids = request_headers(self._world.names.location, self._world.now())
            extra = [(key.encode(), value.encode()) for key, value in ids.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        if self._fault is None:
            await self._send(message)
        elif self._fault.kind == "lost_reply":
            self._is_broken = True
            _break(self._send)
        elif self._fault.kind in {"truncate", "slow"} and message["type"] == "http.response.body":
            await self._mangle(message, self._fault)
        else:
            await self._send(message)

    async def _mangle(self, message: Message, fault: Fault) -> None:
        body: bytes = message.get("body", b"")
        if fault.kind == "truncate":
            self._is_broken = True
            await self._send({**message, "body": body[: int(fault["bytes"])], "more_body": True})
            await asyncio.sleep(0.05)  # let the first bytes out before the end
            _break(self._send)
            return
        pieces = max(1, int(fault["pieces"]))
        size = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), size):
            await asyncio.sleep(float(fault["seconds"]) / pieces)
            await self._send({**message, "body": body[start : start + size], "more_body": True})
        await self._send({**message, "body": b""})
