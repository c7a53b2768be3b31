"""`maas run` on a whole simulated Azure: twice at once, killed at random and repeated, and reaped."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from maas_client.ledger import Ledger
from maas_client.simulator import Simulator
from maas_client.simulator.world import Timing
from tests.cli.shell import MAAS, job_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KILLS = 8
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


def test_killed_at_random_moments_and_repeated(
    azure: Simulator, variables: dict[str, str], empty_home: Path
) -> None:
    """The first attempt fails by itself, so there is a second one, too. Whatever is cut off: one of each."""
    seed = int(os.environ.get("MAAS_TEST_SEED") or time.time())
    chance = random.Random(seed)
    print(f"MAAS_TEST_SEED={seed}")  # pytest shows it when something fails
    job = job_of(empty_home, "killed", ttl="60s")
    azure.fault("job_fail", match="killed", times=1, message="The node failed.")
    killed, ended = 0, []
    while killed < KILLS:
        started = start(variables, "run", str(job), "-y", "-o", "json")
        try:
            started.wait(chance.uniform(0.5, 9))
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGKILL)
            killed += 1
        else:
            ended.append(started.returncode)
            if started.returncode == 0:
                break
        _, err = started.communicate()
        assert "Traceback" not in err
        assert made(azure, "killed")["versions"] <= 1
        assert made(azure, "killed")["endpoints"] <= 1
    assert set(ended) <= {0, 100}
    again = start(variables, "run", str(job), "-y", "-o", "json")
    if again.wait(280) == 100:  # nobody had seen the first attempt fail
        again.communicate()
        again = start(variables, "run", str(job), "-y", "-o", "json")
    journey = end(again)
    assert (journey["run"]["state"], bool(journey["answer"])) == ("succeeded", True)
    must_hold(azure, variables, empty_home, journey["run"]["id"])
    reaped(azure, variables, journey["endpoint"]["expires_at"])


def must_hold(azure: Simulator, variables: dict[str, str], empty_home: Path, run: str) -> None:
    """One run in two attempts, one version, one endpoint with one deployment; the ledger says the same."""
    assert made(azure, "killed") == {"jobs": 2, "versions": 1, "endpoints": 1}
    store, workspace = azure.world.store, azure.world.names.workspace_id
    jobs = {each["name"]: each["properties"]["status"] for each in store.members(f"{workspace}/jobs")}
    assert {name: word for name, word in jobs.items() if name.startswith("killed")} == {
        run: "Failed",
        f"{run}-r2": "Completed",
    }
    (deployment,) = store.members(f"{workspace}/onlineEndpoints/killed/deployments")
    assert store.get(f"{workspace}/onlineEndpoints/killed")["properties"]["traffic"] == {
        deployment["name"]: 100
    }  # type: ignore[index]
    ledger = Ledger(empty_home / "home" / "ledger.sqlite3")
    assert [(record.id, str(record.state)) for record in ledger.runs()] == [(run, "succeeded")]
    with closing(sqlite3.connect(empty_home / "home" / "ledger.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    last = {action.verb: action for action in ledger.actions()}
    assert set(last) == {"submit", "resume", "register", "deploy"}
    assert {verb for verb, action in last.items() if action.error or not action.result} <= {
        "submit",
        "resume",
    }
    assert [one["model"] for one in maas(variables, "endpoints", "list")] == ["killed:1"]
    here = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    assert [words for words in here if str(empty_home) in words] == []


def reaped(azure: Simulator, variables: dict[str, str], expires_at: float) -> None:
    """What is over is deleted, and nothing is left that bills."""
    while expires_at > time.time():
        time.sleep(1)
    (gone,) = maas(variables, "reap")
    assert (gone["endpoint"], gone["backend"], gone["deleted"]) == ("killed", "azureml", True)
    assert maas(variables, "reap") == []
    azure.world.operations.settle()
    assert made(azure, "killed")["endpoints"] == 0
