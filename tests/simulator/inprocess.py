"""The simulator without server and sockets: a world, and the way into it for a Rest or a Workspace."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from azure.core.credentials import AccessToken

from maas_client.simulator.application import make_application
from maas_client.simulator.arm import make_workspace
from maas_client.simulator.bill import Bill
from maas_client.simulator.clock import Clock
from maas_client.simulator.datastores import make_datastores
from maas_client.simulator.lro import Operations
from maas_client.simulator.metadata import ML_AUDIENCE, STORAGE_SUFFIX, audiences
from maas_client.simulator.openai_training import Tuner
from maas_client.simulator.runner import Runner
from maas_client.simulator.servers import Servers
from maas_client.simulator.state import Store
from maas_client.simulator.storage import Storage, new_key
from maas_client.simulator.tokens import Tokens
from maas_client.simulator.world import Names, Timing, World
from maas_client.transport.cloud import Cloud
from maas_client.transport.credential import AzureCredential
from maas_client.transport.workspace import Target
from maas_client.workspace.session import Workspace

BASE = "http://localhost:1"
CLOUD = Cloud("MaasSimulator", BASE, BASE, STORAGE_SUFFIX, ML_AUDIENCE)


def make_world(folder: Path, *, kind: str = "Hub", base_url: str = BASE) -> World:
    """The parts without server and without Azurite: what needs no blob works. Stop its runner in the end."""
    names = Names()
    made = World(
        names=names,
        folder=folder,
        base_url=base_url,
        clock=Clock(1),
        store=Store(),
        tokens=Tokens(secrets.token_bytes(16), names.tenant, audiences(base_url)),
        timing=Timing(queue_s=1e6, page_size=3),
        admin_key="admin",
        environment={"IDENTITY_HEADER": "secret"},
    )
    made.storage = Storage(folder / "storage", None, new_key())
    made.storage.endpoint = "http://localhost:2/maassimulator"
    made.bill, made.operations, made.runner = Bill(made), Operations(made), Runner(made)
    made.servers = Servers(made)
    made.tuner = Tuner(made)
    make_workspace(made, names.workspace_id, {"kind": kind})
    make_datastores(made, names.workspace_id)
    return made


class InProcess(httpx.BaseTransport):
    """Leads requests of a plain httpx client into a world's application. `heard` is told of each exchange."""

    def __init__(self, world: World) -> None:
        self._transport = httpx.ASGITransport(make_application(world))
        self.heard: Callable[[httpx.Request, httpx.Response], object] = lambda _request, _answer: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def go() -> tuple[httpx.Response, bytes]:
            body = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            answer = await self._transport.handle_async_request(body)
            return answer, await answer.aread()

        answer, content = asyncio.run(go())
        told = httpx.Response(answer.status_code, headers=answer.headers, content=content)
        self.heard(request, told)
        return told


class Source:
    """An azure.identity credential that asks the world for its tokens."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        token, ends = self._world.tokens.issue(scopes[0].removesuffix("/.default"))
        return AccessToken(token, int(ends))


def open_inprocess(world: World, *, workspace: str | None = None) -> Workspace:
    """The world's workspace (or one of another name) as backends open it."""
    names = world.names
    target = Target(names.subscription, names.resource_group, workspace or names.workspace)
    credential = AzureCredential(open_source=lambda: Source(world))
    return Workspace(target, credential, lambda: CLOUD, transport=InProcess(world), sleep=lambda _: None)
