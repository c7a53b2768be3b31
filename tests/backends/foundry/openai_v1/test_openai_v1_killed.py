"""Commands that are killed at any request, and given again: one job, one deployment, none lost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maas_client.ledger import Ledger
from maas_client.simulator.application import make_application
from maas_client.simulator.foundry import account_keys
from maas_client.simulator.world import World
from tests.backends.foundry.openai_v1.stage import listen, rows, served
from tests.simulator.inprocess import make_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOB = """\
name: card
task: chat
model: gpt-oss-20b
backend: foundry
data: {train: rows.jsonl}
training: {epochs: 1}
register: {name: card}
deploy: {name: card-end, ttl: 4h}
"""


class Executioner:
    """The simulated resource, which kills whoever sends request number `at`, before or after it is done."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.seen: list[str] = []
        self.reset()

    def reset(self, at: int = -1, *, after: bool = False) -> None:
        self.pid, self.at, self.after, self.count = 0, at, after, 0
        self.seen = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number, self.count = self.count, self.count + 1
        self.seen.append(f"{scope['method']} {scope['path']}")
        if number != self.at:
            await self.app(scope, receive, send)
            return
        if self.after:

            async def swallow(_: Message) -> None:
                """Nobody hears the answer."""

            await self.app(scope, receive, swallow)
        while not self.pid:
            await asyncio.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)


@dataclass
class Scene:
    """A simulated resource behind a socket, and a process that forks commands."""

    world: World
    executioner: Executioner
    process: subprocess.Popen[str]
    log: Path
    folder: Path
    homes: int = 0

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        read: dict[str, Any] = json.loads(line)
        return read

    def start(self, *homes: Path, to: str = "deploy") -> list[int]:
        assert self.process.stdin is not None
        order = {"homes": [str(home) for home in homes], "job": str(self.folder / "job.yaml"), "to": to}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pids: list[int] = self.answer()["pids"]
        return pids

    def codes(self) -> list[int]:
        codes: list[int] = self.answer()["codes"]
        return codes

    def fresh(self) -> Path:
        """A project that has seen nothing, with rows of its own, in front of an empty resource."""
        self.homes += 1
        (self.folder / "rows.jsonl").write_text(rows(20 + self.homes), encoding="utf-8")
        world = self.world
        for job in self.tunings():
            if job["status"] not in {"succeeded", "failed", "cancelled"}:
                world.tuner.stop_job(job, "cancelled")
        for kind in ("openai-jobs", "openai-files", "deployments"):
            for each in world.store.members(f"{world.names.foundry_id}/{kind}"):
                name = each.get("name") if kind == "deployments" else each["id"]
                world.store.delete(f"{world.names.foundry_id}/{kind}/{name}")
        return self.folder / f"home-{self.homes}"

    def tunings(self) -> list[Any]:
        return self.world.store.members(f"{self.world.names.foundry_id}/openai-jobs")

    def deployments(self) -> list[Any]:
        return self.world.store.members(f"{self.world.names.foundry_id}/deployments")

    def must_hold(self, home: Path) -> None:
        """The same command again succeeds, and there is one of each, which the ledger knows."""
        self.executioner.reset()
        self.start(home)
        assert self.codes() == [0], self.log.read_text()[-2000:]
        [job], [deployment] = self.tunings(), self.deployments()
        [record] = Ledger(home / "ledger.sqlite3").runs()
        assert job["metadata"]["maas-run"] == record.id
        assert (job["status"], record.state) == ("succeeded", "succeeded")
        assert deployment["properties"]["model"]["name"] == job["fine_tuned_model"]
        assert deployment["tags"]["maas-model"] == "card:1"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("killed")
    listener, url = listen()
    world = make_world(folder / "azure", base_url=url)
    world.timing.tuning_steps = 0
    world.timing.queue_s = world.timing.reading_s = world.timing.finalizing_s = (
        world.timing.provisioning_s
    ) = 0.0
    world.timing.page_size = 50
    world.clock.change_speed(1000)
    executioner = Executioner(make_application(world))
    (folder / "job.yaml").write_text(JOB, encoding="utf-8")
    log = folder / "submitter.txt"
    with served(executioner, listener), log.open("wb") as errors:
        names = world.names
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("AZURE", "MAAS", "FOUNDRY"))
            },
            "PYTHONPATH": f".{os.pathsep}jobs",
            "AZURE_OPENAI_ENDPOINT": url,
            "AZURE_OPENAI_API_KEY": account_keys(world)["key1"],
            "AZURE_SUBSCRIPTION_ID": names.subscription,
            "AZURE_RESOURCE_GROUP": names.resource_group,
            "ARM_CLOUD_METADATA_URL": f"{url}/metadata/endpoints",
            "IDENTITY_ENDPOINT": f"{url}/msi/token",
            "IDENTITY_HEADER": world.environment["IDENTITY_HEADER"],
            "NO_PROXY": "localhost",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.backends.foundry.openai_v1.submitter"],
            cwd=Path(__file__).parents[4],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        made = Scene(world, executioner, process, log, folder)
        assert made.answer() == {"ready": True}
        yield made
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
        world.tuner.stop()


def requests_of_a_journey(scene: Scene) -> list[str]:
    """What a journey asks."""
    home = scene.fresh()
    scene.executioner.reset()
    scene.start(home)
    assert scene.codes() == [0], scene.log.read_text()[-2000:]
    return list(scene.executioner.seen)


def boundaries(seen: list[str]) -> list[tuple[int, bool]]:
    """Where to kill: before and after each request that changes something, and at the first of each look."""
    kinds: set[str] = set()
    found = []
    for number, request in enumerate(seen):
        kind = re.sub(r"(ftjob|file)-[0-9a-f]+", r"\1", request)
        if not request.startswith("GET"):
            found += [(number, False), (number, True)]
        elif kind not in kinds:
            found.append((number, False))
        kinds.add(kind)
    return found


def test_exactly_once_when_the_command_is_killed_at_any_request(scene: Scene) -> None:
    seen = requests_of_a_journey(scene)
    changes = [each for each in seen if not each.startswith("GET") and "/chat/" not in each]
    assert [each.split("/")[-1] for each in changes] == ["files", "files", "jobs", "card-end"]
    killed, places = 0, boundaries(seen)
    for number, after in places:
        home = scene.fresh()
        scene.executioner.reset(number, after=after)
        [scene.executioner.pid] = scene.start(home)
        [code] = scene.codes()
        killed += code == -signal.SIGKILL
        assert len(scene.tunings()) <= 1
        assert len(scene.deployments()) <= 1
        scene.must_hold(home)
    assert len(places) >= 16
    assert killed >= len(places) - 2  # how often a watcher looks differs from time to time


def test_exactly_once_when_several_commands_submit_at_once(scene: Scene) -> None:
    scene.world.timing.queue_s = 1e9  # a second job that has ended could not be canceled
    for homes in (("a", "a", "a"), ("a", "b"), ("a", "b", "c")):
        scene.fresh()
        scene.executioner.reset()
        scene.start(*(scene.folder / f"{scene.homes}-{home}" for home in homes), to="submit")
        assert scene.codes() == [0] * len(homes), scene.log.read_text()[-2000:]
        wanted = [job for job in scene.tunings() if job["status"] not in {"cancelled", "cancelling"}]
        assert len(wanted) == 1
        assert len({job["metadata"]["maas-run"] for job in scene.tunings()}) == 1
