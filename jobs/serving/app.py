"""The routes: chat completions whole and streamed, model info, health, and the key that guards them."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.engine import Engine, Piece, PromptError
from serving.turns import BusyError, Turns
from serving.wire import (
    AnswerWriter,
    ChatRequest,
    RequestError,
    error_body,
    event,
    read_request,
    require_context,
)

BODY_LIMIT_BYTES = 4 * 1024 * 1024
OPEN_PATHS = ("/health",)
_log = logging.getLogger("serving")


def make_app(engine: Engine, *, name: str, key: str) -> ASGIApp:
    """The server for a loaded model, which it calls `name`; every path but /health asks for `key`."""
    routes = ChatRoutes(Turns(engine), name)
    app = Starlette(
        routes=[
            Route("/chat/completions", routes.complete, methods=["POST"]),
            Route("/v1/chat/completions", routes.complete, methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/info", routes.info),
            Route("/health", routes.health),
        ],
        exception_handlers={
            HTTPException: _http_problem,
            RequestError: _request_problem,
            PromptError: _prompt_problem,
            BusyError: _busy_problem,
            Exception: _own_problem,
        },
    )
    return KeyGuard(app, key)


class KeyGuard:
    """Lets a request through that brings the key as `Authorization: Bearer KEY` or `api-key: KEY`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._has_key(scope):
            await self._app(scope, receive, send)
            return
        body = error_body("The endpoint's key is missing or wrong.", status=401, code="invalid_api_key")
        refusal = JSONResponse(body, status_code=401, headers={"www-authenticate": "Bearer"})
        await refusal(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        kind, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if kind.lower() == b"bearer" else headers.get(b"api-key", b"")
        return hmac.compare_digest(given, self._key)


class ChatRoutes:
    """What the server answers for one model."""

    def __init__(self, turns: Turns, name: str) -> None:
        self._turns, self._name = turns, name
        self._loaded_at = int(time.time())

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def info(self, _request: Request) -> Response:
        return JSONResponse(
            {"model_name": self._name, "model_type": "chat-completion", "model_provider_name": "maas_client"}
        )

    async def models(self, _request: Request) -> Response:
        model = {"id": self._name, "object": "model", "created": self._loaded_at, "owned_by": "maas_client"}
        return JSONResponse({"object": "list", "data": [model]})

    async def complete(self, request: Request) -> Response:
        extra = request.headers.get("extra-parameters", "error")
        chat = read_request(await _body(request), drop_unknown=extra in {"drop", "pass-through"})
        chat.require_model(self._name)
        self._turns.require_room()
        prompt = await self._turns.encode(chat.conversation(), chat.offered_tools())
        require_context(len(prompt), self._turns.engine.context_length)
        writer, pieces = AnswerWriter(self._name, len(prompt)), self._turns.answer(prompt, chat.settings())
        if chat.stream:
            return StreamingResponse(_events(chat, writer, pieces), media_type="text/event-stream")
        return await _whole(request, writer, pieces)


async def _events(
    chat: ChatRequest, writer: AnswerWriter, pieces: AsyncGenerator[Piece, None]
) -> AsyncIterator[bytes]:
    yield writer.opening()
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.text:
                    yield writer.delta(piece.text)
                if piece.finish_reason:
                    yield writer.closing(piece.tokens, piece.finish_reason, with_usage=chat.wants_usage())
    except (RuntimeError, ValueError) as error:  # the status is sent already: the stream itself must say it
        _log.exception("The model failed in the middle of an answer")
        yield event(error_body(f"The model failed: {error}", status=500, code="internal_error"))


async def _whole(request: Request, writer: AnswerWriter, pieces: AsyncGenerator[Piece, None]) -> Response:
    """Collect the answer, unless the client leaves before it is there."""
    answers: list[dict[str, Any]] = []

    async def collect() -> None:
        texts: list[str] = []
        async with aclosing(pieces):
            async for piece in pieces:
                texts.append(piece.text)
                if piece.finish_reason:
                    answers.append(writer.whole("".join(texts), piece.tokens, piece.finish_reason))
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(collect)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()
    return JSONResponse(answers[0]) if answers else Response(status_code=499)


async def _body(request: Request) -> bytes:
    """The request's body, read no further than the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            message = f"The body is larger than {BODY_LIMIT_BYTES // 2**20} MiB."
            raise RequestError(message, status=413, code="request_too_large")
    return bytes(body)


def _problem(message: str, status: int, code: str, param: str = "") -> Response:
    return JSONResponse(error_body(message, status=status, code=code, param=param), status_code=status)


async def _request_problem(_request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, RequestError) else RequestError(str(error))
    return _problem(str(problem), problem.status, problem.code, problem.param)


async def _prompt_problem(_request: Request, error: Exception) -> Response:
    return _problem(str(error), 400, getattr(error, "code", "invalid_prompt"), "messages")


async def _busy_problem(_request: Request, error: Exception) -> Response:
    return _problem(str(error), 429, "too_many_requests")


async def _http_problem(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    return _problem(f"{request.method} {request.url.path} is not offered here.", status, code)


async def _own_problem(_request: Request, error: Exception) -> Response:
    return _problem(f"The model failed on this request: {error}", 500, "internal_error")
