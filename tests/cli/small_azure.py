"""A small Azure without storage for commands in processes of their own: plain http, started in a moment."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from maas_client.simulator.application import make_application
from maas_client.simulator.metadata import environment
from maas_client.simulator.world import World
from tests.simulator.inprocess import make_world


@dataclass
class SmallAzure:
    """The world behind it, and the variables that lead to it."""

    world: World
    environment: dict[str, str]


@contextmanager
def small_azure(folder: Path) -> Iterator[SmallAzure]:
    """Resource Manager, discovery, registries and tokens on 127.0.0.1."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    world = make_world(folder, base_url=f"http://localhost:{listener.getsockname()[1]}")
    config = uvicorn.Config(make_application(world), log_level="critical", lifespan="off", loop="asyncio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        variables = environment(world, ca_bundle="", identity_header="secret")
        yield SmallAzure(world, dict(variables))
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        world.runner.stop()
