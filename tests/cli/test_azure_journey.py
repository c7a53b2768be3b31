"""`maas run` on a whole simulated Azure: all the way, twice at once, killed and repeated, and reaped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.simulator import Simulator
from maas_client.simulator.world import Timing
from tests.cli.shell import MAAS, job_in

pytestmark = pytest.mark.slow
SIZE = "Standard_NC24ads_A100_v4"


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    with Simulator(speed=600, timing=Timing(tuning_steps=3)) as running:
        yield running


@pytest.fixture
def variables(azure: Simulator, empty_home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "AZUREML_CURRENT_CLOUD"}
    return {**kept, **azure.environment, "MAAS_HOME": str(empty_home / "home")}


def job_of(folder: Path, name: str, ttl: str = "2h") -> Path:
    path = job_in(
        folder,
        name=name,
        backend="azureml",
        compute={"size": SIZE},
        training={"max_steps": 3, "max_length": 64, "batch_size": 2},
        evaluation={"max_rows": 2},
        register={"name": name},
        deploy={"name": name, "size": SIZE, "ttl": ttl},
    )
    rows = (json.dumps({"text": f"text {n} {name}", "label": "ab"[n % 2]}) for n in range(20))
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return path


def start(variables: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*MAAS, *words], env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def end(started: subprocess.Popen[str]) -> Any:
    out, err = started.communicate(timeout=280)
    assert started.returncode == 0, err
    assert "Traceback" not in err
    return json.loads(out)


def maas(variables: dict[str, str], *words: str) -> Any:
    return end(start(variables, *words, "-o", "json"))


def made(azure: Simulator, name: str) -> dict[str, int]:
    """How many jobs, versions and endpoints of a name there are."""
    store, workspace = azure.world.store, azure.world.names.workspace_id
    return {
        "jobs": sum(one["name"].startswith(name) for one in store.members(f"{workspace}/jobs")),
        "versions": len(store.members(f"{workspace}/models/{name}/versions")),
        "endpoints": sum(one["name"] == name for one in store.members(f"{workspace}/onlineEndpoints")),
    }


def test_two_commands_at_once_make_everything_once(
    azure: Simulator, variables: dict[str, str], empty_home: Path
) -> None:
    job = job_of(empty_home, "twice")
    both = [start(variables, "run", str(job), "-y", "-o", "json") for _ in range(2)]
    one, other = [end(each) for each in both]
    assert one["run"]["id"] == other["run"]["id"]
    assert one["answer"]
    assert made(azure, "twice") == {"jobs": 1, "versions": 1, "endpoints": 1}
    (listed,) = [one for one in maas(variables, "endpoints", "list") if one["ref"] == "azureml://twice"]
    assert (listed["billing"], listed["state"]) == ("billing", "ready")
    assert "an hour" in listed["cost"]
    maas(variables, "endpoints", "delete", "twice", "-y")
    assert maas(variables, "endpoints", "list") == []
    shown = maas(variables, "runs", "show", "twice")
    verbs = [one["verb"] for one in shown["history"]]
    assert set(verbs) == {"submit", "register", "deploy"}


def test_killed_again_and_again_and_repeated(
    azure: Simulator, variables: dict[str, str], empty_home: Path
) -> None:
    job = job_of(empty_home, "killed", ttl="45s")
    for after_s in (2.5, 4, 6, 9, 14):
        started = start(variables, "run", str(job), "-y", "-o", "json")
        try:
            started.wait(after_s)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGKILL)
        started.communicate()
    journey = maas(variables, "run", str(job), "-y")
    assert journey["run"]["state"] == "succeeded"
    assert made(azure, "killed") == {"jobs": 1, "versions": 1, "endpoints": 1}
    while journey["endpoint"]["expires_at"] > time.time():
        time.sleep(1)
    (gone,) = maas(variables, "reap")
    assert (gone["endpoint"], gone["backend"], gone["deleted"]) == ("killed", "azureml", True)
    until = time.monotonic() + 60
    while made(azure, "killed")["endpoints"] and time.monotonic() < until:
        time.sleep(1)
    assert maas(variables, "reap") == []
