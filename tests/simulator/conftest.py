"""One simulator for the whole session, the real Azure packages pointed at it, and a world without storage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.simulator import Simulator
from maas_client.simulator.application import make_application
from maas_client.simulator.world import Timing, World
from tests.simulator.inprocess import BASE, make_world


@pytest.fixture(scope="session")
def azure() -> Iterator[Simulator]:
    """A whole simulator over TLS, with the environment of this process set for it."""
    with (
        Simulator(speed=120, timing=Timing(tuning_steps=3)) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def client(azure: Simulator) -> Any:
    """The real MLClient with the real DefaultAzureCredential; it does not renew a token that was revoked."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    names = azure.world.names
    return MLClient(DefaultAzureCredential(), names.subscription, names.resource_group, names.workspace)


@pytest.fixture
def wire(azure: Simulator) -> Iterator[httpx.Client]:
    """Plain HTTPS to the simulator, signed in. Faults are cleared afterwards."""
    token, _ = azure.world.tokens.issue(azure.url)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=azure.url, headers=headers, timeout=20) as connection:
        yield connection
    azure.world.faults.clear()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The parts without server and without Azurite: whatever needs no blob works."""
    made = make_world(tmp_path)
    yield made
    made.runner.stop()
    made.tuner.stop()


_BELOW = ("/jobs", "/models", "/codes", "/data", "/environments", "/datastores", "/computes")
_BELOW += ("/onlineEndpoints", "/serverlessEndpoints", "/marketplaceSubscriptions")
Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(world: World) -> Ask:
    """Send one request to the world's application: ask("GET", "/jobs/x") is below the workspace."""
    token, _ = world.tokens.issue(BASE)
    transport = httpx.ASGITransport(make_application(world), raise_app_exceptions=True)

    def send(method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if path == "" or path.startswith(_BELOW):
            path = world.names.workspace_id + path
        query = {"api-version": "2024-10-01-preview", **more.pop("query", {})}
        query = {key: value for key, value in query.items() if value is not None}
        headers = {"Authorization": f"Bearer {token}", "x-simulator-key": "admin", **more.pop("headers", {})}

        async def go() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as connection:
                return await connection.request(method, path, json=body, params=query, headers=headers)

        return asyncio.run(go())

    return send
