"""All operations put together into one web application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from maas_client.simulator import (
    admin,
    arm,
    assets,
    cognitive,
    computes,
    datastores,
    jobs,
    lro,
    metadata,
    online,
    openai_chat,
    openai_files,
    openai_tuning,
    registries,
    resolving,
    roles,
    runhistory,
    scoring,
    serverless,
)
from maas_client.simulator.gate import Gate
from maas_client.simulator.replies import Refusal
from maas_client.simulator.routing import Operation
from maas_client.simulator.world import World

_MODULES = (
    admin,
    arm,
    assets,
    cognitive,
    computes,
    datastores,
    jobs,
    lro,
    online,
    openai_chat,
    openai_files,
    openai_tuning,
    registries,
    resolving,
    roles,
    runhistory,
    scoring,
    serverless,
)
"""Each has OPERATIONS. A new service is a new module here."""


def operations(world: World) -> list[Operation]:
    """Every operation that the simulator knows."""
    return [*metadata.operations(world), *(each for module in _MODULES for each in module.OPERATIONS)]


def make_application(world: World) -> ASGIApp:
    """The application: the gate around the routes."""

    async def refuse(_: Request, error: Exception) -> Response:
        if not isinstance(error, Refusal):
            raise error
        body = error.body(location=world.names.location, at=world.now())
        return JSONResponse(body, error.status, error.headers)

    async def unknown(request: Request, _: Exception) -> Response:
        text = f"No registered resource provider found for {request.method} {request.url.path}."
        error = Refusal(404, "InvalidResourceType", text, inner=None)
        return await refuse(request, error)

    routes = [operation.route(world) for operation in operations(world)]
    handlers = {Refusal: refuse, 404: unknown, 405: unknown}
    return Gate(Starlette(routes=routes, exception_handlers=handlers), world)
