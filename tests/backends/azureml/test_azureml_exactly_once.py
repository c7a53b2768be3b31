"""A submission that is cut off anywhere or done twice at once, and then repeated, is one job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from maas_client.ledger import Ledger
from maas_client.simulator import Simulator
from maas_client.simulator.arm import make_workspace
from maas_client.simulator.datastores import make_datastores
from maas_client.simulator.world import Timing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 60.0
TRANSIENT = {3, 4}
"""Exit codes of a service that refused or was not reachable: the same command may be given again."""
JOB = """\
name: card
task: classification
model: tiny-phi3
backend: azureml
data: {train: rows.jsonl, validation: {split: 0.5}}
compute: {size: Standard_DS3_v2}
"""


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    """A simulator in which jobs wait for machines for ever: nothing trains here."""
    with (
        Simulator(speed=60, timing=Timing(queue_s=1e9)) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


class Submitter:
    """The process that forks commands; see submitter.py."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "submitter.txt").open("wb")
        self.log = folder / "submitter.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.backends.azureml.submitter"],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONPATH": f".{os.pathsep}jobs"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.answer() == {"ready": True}

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        read: dict[str, Any] = json.loads(line)
        return read

    def start(self, **order: Any) -> list[int]:
        """Start commands; the process ids of those that do it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pids: list[int] = self.answer()["pids"]
        return pids

    def codes(self) -> list[int]:
        """How they ended."""
        codes: list[int] = self.answer()["codes"]
        return codes

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        self._log.close()


@pytest.fixture(scope="module")
def submitter(azure: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitter]:
    submitter = Submitter(tmp_path_factory.mktemp("submitter"))
    yield submitter
    submitter.stop()


@dataclass
class Scene:
    """A job file in a folder, and a workspace that has seen nothing yet."""

    azure: Simulator
    submitter: Submitter
    folder: Path
    workspace: str

    @property
    def path(self) -> str:
        names = replace(self.azure.world.names, workspace=self.workspace)
        return names.workspace_id

    @property
    def requests(self) -> list[str]:
        return [
            each.replace(self.path, "")
            for each in list(self.azure.world.requests)
            if f"/workspaces/{self.workspace}" in each
        ]

    @property
    def jobs(self) -> list[str]:
        return [each["name"] for each in self.azure.world.store.members(f"{self.path}/jobs")]

    def fault(self, kind: str, *, after: int, **more: Any) -> None:
        self.azure.world.faults.clear()
        self.azure.fault(kind, match=f"/workspaces/{self.workspace}(/|$)", after=after, **more)

    def start(self, do: str = "submit", *homes: str) -> list[int]:
        places = [str(self.folder / home) for home in homes or ("home",)]
        return self.submitter.start(
            do=do, homes=places, job=str(self.folder / "job.yaml"), workspace=self.workspace
        )

    def submit(self, *homes: str) -> list[int]:
        """Submit to the end; the exit codes."""
        self.start("submit", *homes)
        return self.submitter.codes()

    def must_hold(self) -> None:
        """The same command again succeeds, and there is one job, which the ledger knows."""
        self.azure.world.faults.clear()
        assert self.submit() == [0], self.submitter.log.read_text()[-2000:]
        [record] = Ledger(self.folder / "home" / "ledger.sqlite3").runs()
        assert self.jobs == [record.id]
        assert record.state == "queued"


@pytest.fixture
def set_scene(azure: Simulator, submitter: Submitter, tmp_path: Path) -> Iterator[Any]:
    def make() -> Scene:
        mark = uuid.uuid4().hex[:8]
        scene = Scene(azure, submitter, tmp_path / mark, f"ws-{mark}")
        scene.folder.mkdir()
        (scene.folder / "job.yaml").write_text(JOB)
        rows = [json.dumps({"text": f"{mark} {number}", "label": "ab"[number % 2]}) for number in range(8)]
        (scene.folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
        make_workspace(azure.world, scene.path, {"kind": "Default"})
        make_datastores(azure.world, scene.path)
        return scene

    yield make
    azure.world.faults.clear()


def boundaries(scene: Scene) -> list[str]:
    """Every request to the workspace that a first submission makes."""
    assert scene.submit() == [0], scene.submitter.log.read_text()[-2000:]
    found = scene.requests
    made = [each for each in found if each.startswith(("PUT", "POST"))]
    assert [each for each in made if each.startswith("PUT /jobs/")]
    assert [each for each in made if "startPendingUpload" in each]
    assert len(scene.jobs) == 1
    return found


@pytest.mark.parametrize("kind", ["lost_reply", "reset"])
def test_exactly_once_when_a_connection_breaks_at_any_request(set_scene: Any, kind: str) -> None:
    struck = 0
    for number, request in enumerate(boundaries(set_scene())):
        scene = set_scene()
        scene.fault(kind, after=number)
        [code] = scene.submit()
        assert code in {0, *TRANSIENT}, request
        struck += scene.azure.world.faults.standing()[0].hits > number
        scene.must_hold()
    assert struck > 8


def test_exactly_once_when_the_command_is_killed_at_any_request(set_scene: Any) -> None:
    killed = 0
    for number, request in enumerate(boundaries(set_scene())):
        scene = set_scene()
        scene.fault("slow", after=number, seconds=20)
        [pid] = scene.start()
        deadline = time.monotonic() + PATIENCE_S
        while len(scene.requests) <= number:
            assert time.monotonic() < deadline, request
            time.sleep(0.02)
        time.sleep(0.1)  # what was asked is done; only the reply is on its way
        os.kill(pid, signal.SIGKILL)
        killed += scene.submitter.codes() == [-signal.SIGKILL]
        assert len(scene.jobs) <= 1
        scene.must_hold()
    assert killed > 8


def test_exactly_once_when_the_connection_breaks_again_and_again(set_scene: Any) -> None:
    scene = set_scene()
    for kind in ("lost_reply", "reset"):
        scene.fault(kind, after=0, times=0)
        [code] = scene.submit()
        assert code in TRANSIENT
    scene.must_hold()


@pytest.mark.parametrize("homes", [("home", "home"), ("home", "other", "third")])
def test_exactly_once_when_several_commands_submit_at_once(set_scene: Any, homes: tuple[str, ...]) -> None:
    scene = set_scene()
    assert scene.submit(*homes) == [0] * len(homes), scene.submitter.log.read_text()[-2000:]
    scene.must_hold()


def test_exactly_once_when_several_commands_resume_at_once(set_scene: Any) -> None:
    scene = set_scene()
    assert scene.submit("home", "other") == [0, 0]
    [name] = scene.jobs
    cancel(scene, name)
    scene.start("resume", "home", "other")
    codes = scene.submitter.codes()
    assert set(codes) <= {0, 3}  # 3: it was resumed already
    assert 0 in codes
    assert scene.jobs == [name, f"{name}-r2"]
    assert scene.submit() == [0]
    assert scene.jobs == [name, f"{name}-r2"]


def cancel(scene: Scene, name: str) -> None:
    """Let a job end without success."""
    job = scene.azure.world.store.get(f"{scene.path}/jobs/{name}")
    assert job is not None
    scene.azure.world.runner.cancel(job)
    deadline = time.monotonic() + PATIENCE_S
    while job["properties"]["status"] != "Canceled":
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["lost_reply", "reset"])
def test_exactly_once_when_a_resumption_breaks_at_any_request(set_scene: Any, kind: str) -> None:
    scene = set_scene()
    assert scene.submit() == [0]
    [name] = scene.jobs
    made = [name]
    for request, times in (("PUT .*/jobs/", 0), ("GET .*/jobs/", 1), ("GET .*-r[0-9]", 1)):
        cancel(scene, made[-1])
        made.append(f"{name}-r{len(made) + 1}")
        scene.azure.fault(kind, match=f"{request}.*", times=times)
        [code] = scene.submit()
        assert code in {0, *TRANSIENT}, request
        scene.azure.world.faults.clear()
        assert scene.submit() == [0], scene.submitter.log.read_text()[-2000:]
        assert scene.jobs == made


def test_exactly_once_when_every_reply_to_the_job_is_lost(set_scene: Any) -> None:
    scene = set_scene()
    scene.azure.fault("lost_reply", match=f"PUT .*/workspaces/{scene.workspace}/jobs/", times=0)
    assert scene.submit() == [0], scene.submitter.log.read_text()[-2000:]
    assert len(scene.jobs) == 1
    scene.must_hold()


def test_exactly_once_leaves_a_job_of_the_same_name_that_is_not_ours_alone(set_scene: Any) -> None:
    scene = set_scene()
    assert scene.submit() == [0]
    [name] = scene.jobs
    job = scene.azure.world.store.get(f"{scene.path}/jobs/{name}")
    job["properties"]["tags"] = {"owner": "somebody else"}
    assert scene.submit("other") == [3]
    assert "it is not this plan's" in scene.submitter.log.read_text()
    assert scene.jobs == [name]
