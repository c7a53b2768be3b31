"""A real HTTP server on 127.0.0.1 that answers as a test says: also with resets, cut-off and slow bodies."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request as it arrived; header names are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def body(self) -> Any:
        return json.loads(self.content) if self.content else None


@dataclass(frozen=True)
class Reply:
    """What is answered. `trouble`: "", reset (no answer), cut (half the body), slow (a byte each 50 ms)."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""

    @property
    def content(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Server(ThreadingHTTPServer):
    """A client that goes away in the middle is no news."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Loopback:
    """The server: `calls` are the requests so far, answered by `answer(call)`; over TLS with `tls`."""

    def __init__(self, answer: Callable[[Call], Reply], tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.calls: list[Call] = []
        self._server = Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

            def serve(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                call = Call(self.command, self.path, headers, self.rfile.read(size))
                stage.calls.append(call)
                self.give(stage.answer(call))

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = serve  # noqa: N815

            def give(self, reply: Reply) -> None:
                if reply.trouble == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(reply.status)
                content = reply.content
                kinds = {"Content-Type": "application/json"} if content else {}
                for name, value in {**kinds, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.write(content, reply.trouble)

            def write(self, content: bytes, trouble: str) -> None:
                if self.command == "HEAD":
                    return
                if trouble == "cut":
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                pieces = (
                    [content[at : at + 1] for at in range(len(content))] if trouble == "slow" else [content]
                )
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                        time.sleep(0.05 if trouble == "slow" else 0)
                except OSError:
                    self.close_connection = True

        return Handler


@contextmanager
def loopback(answer: Callable[[Call], Reply]) -> Iterator[Loopback]:
    """A server for the length of a test."""
    server = Loopback(answer)
    try:
        yield server
    finally:
        server.close()


def in_turn(*replies: Reply) -> Callable[[Call], Reply]:
    """Answers one after the other; the last one stays."""
    left = list(replies)

    def answer(call: Call) -> Reply:
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


class Sleeper:
    """A clock that only moves when somebody sleeps."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
