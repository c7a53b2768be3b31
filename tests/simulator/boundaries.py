"""A workspace in memory whose wire can be stopped between any two requests: by others, by kills, by loss."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

import httpx

from maas_client.simulator.world import World
from maas_client.transport.credential import AzureCredential
from maas_client.transport.workspace import Target
from maas_client.workspace.session import Workspace
from tests.simulator.inprocess import CLOUD, InProcess, Source


class KilledError(BaseException):
    """The process is gone: nothing catches it, nothing is tidied up."""


class Boundaries(InProcess):
    """Counts requests from 0, without those for tokens and metadata. `at` is called before each with its
    number and text; `lost` are the numbers whose answers are lost after they were done.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.at: Callable[[int, str], object] = lambda _number, _text: None
        self.lost: set[int] = set()
        self.sent: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        number, text = len(self.sent), f"{request.method} {unquote(request.url.path)}"
        self.sent.append(text)
        self.at(number, text)
        answer = super().handle_request(request)
        if number in self.lost:
            raise httpx.ReadError("The connection broke.", request=request)
        return answer


def open_with_boundaries(world: World) -> tuple[Workspace, Boundaries]:
    """The world's workspace as another process opens it, and its wire. Its clock is the world's; sleeping
    moves that on.
    """
    names = world.names
    wire = Boundaries(world)
    workspace = Workspace(
        Target(names.subscription, names.resource_group, names.workspace),
        AzureCredential(open_source=lambda: Source(world)),
        lambda: CLOUD,
        clock=world.clock.now,
        sleep=world.clock.move_on,
        transport=wire,
    )
    return workspace, wire
