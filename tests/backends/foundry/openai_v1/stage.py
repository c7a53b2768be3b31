"""The openai route in front of a simulated Foundry resource, in this process or behind a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from maas_client.backend import Platform
from maas_client.backends.foundry.openai_v1.account import Account, Resource
from maas_client.backends.foundry.openai_v1.endpoints import OpenAIEndpoints
from maas_client.backends.foundry.openai_v1.jobs import OpenAIJobs
from maas_client.backends.foundry.openai_v1.models import OpenAIModels
from maas_client.plan import Plan
from maas_client.run import RunRef, RunState, RunStatus
from maas_client.settings import Settings
from maas_client.simulator.foundry import account_keys
from maas_client.simulator.world import World
from maas_client.spec import JobSpec
from maas_client.transport.credential import AzureCredential
from tests.simulator.inprocess import BASE, CLOUD, InProcess, Source

SCOPE = "https://cognitiveservices.azure.com/.default"
PATIENCE_S = 30.0


def rows(count: int = 20) -> str:
    """Chat rows, each different."""
    return "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"What is {number}?"},
                    {"role": "assistant", "content": f"A number: {number}."},
                ]
            }
        )
        + "\n"
        for number in range(count)
    )


def preference_rows(count: int = 20) -> str:
    return "".join(
        json.dumps(
            {
                "input": {"messages": [{"role": "user", "content": f"What is {number}?"}]},
                "preferred_output": [{"role": "assistant", "content": f"It is {number}."}],
                "non_preferred_output": [{"role": "assistant", "content": "Go away."}],
            }
        )
        + "\n"
        for number in range(count)
    )


class Cut(httpx.BaseTransport):
    """Passes requests on, and breaks the connection before or after those that are ordered by their text."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self.inner = inner
        self.orders: list[tuple[str, str]] = []
        self.asked: list[str] = []

    def order(self, kind: str, match: str) -> None:
        """`reset`: before it arrives; `lost`: after it was done. Each order strikes once."""
        self.orders.append((kind, match))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        text = f"{request.method} {request.url.path}"
        self.asked.append(text)
        kind = ""
        for order in self.orders:
            if order[1] in text:
                self.orders.remove(order)
                kind = order[0]
                break
        if kind == "reset":
            raise httpx.ReadError("reset", request=request)
        answer = self.inner.handle_request(request)
        if kind == "lost":
            raise httpx.ReadError("the answer was lost", request=request)
        return answer


@dataclass
class Stage:
    """The route's platform over a world, in a home of its own. A second stage is a second terminal."""

    world: World
    home: Path
    transport: Cut = field(init=False)
    account: Account = field(init=False)
    settings: Settings = field(init=False)
    platform: Platform = field(init=False)
    naps: list[float] = field(default_factory=list)
    key: str = ""
    subscription: bool = True
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        names = self.world.names
        self.transport = Cut(InProcess(self.world))
        self.settings = Settings(_env_file=None, azure_openai_endpoint=BASE)
        self.account = Account(
            Resource("localhost", BASE, SCOPE),
            AzureCredential(open_source=lambda: Source(self.world)),
            lambda: CLOUD,
            key=account_keys(self.world)["key1"] if self.key == "ours" else self.key or None,
            subscription=names.subscription if self.subscription else None,
            group=names.resource_group if self.subscription else None,
            clock=self.clock,
            sleep=self._sleep,
            transport=self.transport,
        )
        folder = self.home / "openai"
        models = OpenAIModels(folder, clock=self.clock)
        endpoints = OpenAIEndpoints(lambda: self.account, models, folder, clock=self.clock)
        jobs = OpenAIJobs(self.settings, lambda: self.account, folder, clock=self.clock)
        self.platform = Platform("foundry", jobs, models, endpoints)

    def _sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        time.sleep(min(seconds, 0.01))

    @property
    def jobs(self) -> Any:
        return self.platform.jobs

    def spec(self, text: str = "", /, **more: Any) -> JobSpec:
        """A job on gpt-oss-20b over chat rows (or others: `text`)."""
        self.home.mkdir(parents=True, exist_ok=True)
        path = self.home.parent / f"rows-{abs(hash(text))}.jsonl"
        path.write_text(text or rows(), encoding="utf-8")
        job = {
            "name": "card",
            "task": "chat",
            "model": "gpt-oss-20b",
            "backend": "foundry",
            "data": {"train": str(path)},
            "training": {"epochs": 1},
            **more,
        }
        return JobSpec.model_validate(job)

    def plan(self, text: str = "", /, **more: Any) -> Plan:
        plan: Plan = self.jobs.plan(self.spec(text, **more))
        return plan

    def tunings(self) -> list[Mapping[str, Any]]:
        """Every fine-tuning job of the resource, oldest first."""
        return self.world.store.members(f"{self.world.names.foundry_id}/openai-jobs")

    def live(self) -> list[str]:
        """Ids of jobs that train or wait."""
        return [
            job["id"] for job in self.tunings() if job["status"] not in {"succeeded", "failed", "cancelled"}
        ]

    def ended(self, ref: RunRef) -> RunStatus:
        return self.wait(ref, lambda status: status.state.is_final)

    def wait(self, ref: RunRef, accept: Callable[[RunStatus], bool]) -> RunStatus:
        until = time.monotonic() + PATIENCE_S
        while not accept(status := self.jobs.status(ref)):
            assert time.monotonic() < until, status
            time.sleep(0.01)
        return status

    def trained(self, **more: Any) -> tuple[RunRef, Plan]:
        """A run that has succeeded, with its plan."""
        plan = self.plan(**more)
        ref = self.jobs.submit(plan)
        assert self.ended(ref).state is RunState.SUCCEEDED
        return ref, plan


def listen() -> tuple[socket.socket, str]:
    """A socket of this machine, and its address."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    return listener, f"http://localhost:{listener.getsockname()[1]}"


@contextmanager
def served(app: ASGIApp, listener: socket.socket) -> Iterator[None]:
    """An application behind a socket, for processes that are killed."""
    config = uvicorn.Config(app, log_level="critical", lifespan="off", loop="asyncio", http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True, name="served"
    )
    thread.start()
    until = time.monotonic() + PATIENCE_S
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
