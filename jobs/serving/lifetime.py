"""The server's life: its port, the file that says where it is, its end by time or by signal."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tuning.errors import InputError
from tuning.events import write_json

SHUTDOWN_S = 3
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class StateFile:
    """The file by which others find the server. Written when it is ready and once more when it ends in order.

    Ready: {"pid", "port", "url", "started_at", "name", "expires_at"}. An orderly end adds {"ended_at",
    "ended_by"}: "expiry", "SIGTERM" or "SIGINT"; a killed server adds nothing. Times are unix seconds.
    """

    path: Path

    def write(self, facts: dict[str, Any]) -> None:
        """Replace the file in one step. Raises InputError where it cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, facts)
        except OSError as error:
            raise InputError(f"The state file {self.path} cannot be written: {error.strerror}.") from error


class StopSignals:
    """Notes SIGTERM and Ctrl-C while the server runs (it ends its answers first)."""

    def __init__(self) -> None:
        self.received: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or number


def open_port(host: str, port: int) -> socket.socket:
    """Bind a port (0: a free one) without taking connections yet. Raises InputError where that fails."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"Port {port} on {host} cannot be opened ({reason}); pass --port 0 for a free one."
        ) from None
    return listener


def serve_until_end(
    app: ASGIApp, listener: socket.socket, state: StateFile, *, name: str, expires_at: float | None
) -> int:
    """Serve until the time is up (returns 0) or a stop signal comes (returns 128 + its number)."""
    try:
        listener.listen(128)  # here and not earlier: until the model is loaded, connections are refused
    except OSError as error:
        raise InputError(f"The port is taken by another server ({error.strerror}); pass --port 0.") from None
    signals = StopSignals()
    # log_config=None: the process has set up its logging already.
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", timeout_graceful_shutdown=SHUTDOWN_S, ws="none"
    )
    asyncio.run(_serve(uvicorn.Server(config), listener, state, _facts(listener, name, expires_at), signals))
    return 0 if signals.received is None else 128 + signals.received


def _facts(listener: socket.socket, name: str, expires_at: float | None) -> dict[str, Any]:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    place = {"pid": os.getpid(), "port": port, "url": f"http://{shown}:{port}"}
    return {**place, "started_at": time.time(), "name": name, "expires_at": expires_at}


async def _serve(
    server: Any, listener: socket.socket, state: StateFile, facts: dict[str, Any], signals: StopSignals
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    state.write(facts)
    expired = False
    while not serving.done():
        # The wall clock is looked at again and again: it may jump, and machines sleep.
        expired = facts["expires_at"] is not None and time.time() >= facts["expires_at"]
        server.should_exit = server.should_exit or expired
        await asyncio.wait({serving}, timeout=_LOOK_S)
    await serving
    ended_by = "expiry" if signals.received is None else signal.Signals(signals.received).name
    state.write({**facts, "ended_at": time.time(), "ended_by": ended_by})
