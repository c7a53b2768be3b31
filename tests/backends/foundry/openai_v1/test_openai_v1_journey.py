"""`maas run` through the openai route: one simulated resource, real training, a chat with what was tuned."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.simulator import Simulator
from maas_client.simulator.cognitive import deployments
from maas_client.simulator.world import Timing
from tests.backends.foundry.openai_v1.stage import rows
from tests.cli.shell import MAAS, job_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    with Simulator(speed=600, timing=Timing(tuning_steps=2)) as running:
        yield running


@pytest.fixture
def variables(azure: Simulator, empty_home: Path) -> dict[str, str]:
    return {**os.environ, **azure.environment, "MAAS_HOME": str(empty_home / "home")}


def start(variables: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*MAAS, *words, "-o", "json"],
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(started: subprocess.Popen[str]) -> Any:
    out, err = started.communicate(timeout=240)
    assert started.returncode == 0, err
    assert "Traceback" not in err
    return json.loads(out)


def maas(variables: dict[str, str], *words: str) -> Any:
    return end(start(variables, *words))


def test_two_commands_at_once_make_one_job_and_one_deployment_that_answers(
    azure: Simulator, variables: dict[str, str], empty_home: Path
) -> None:
    job = job_in(
        empty_home,
        name="card",
        task="chat",
        model="gpt-oss-20b",
        backend="foundry",
        training={"epochs": 1},
        register={"name": "card"},
        deploy={"name": "card-end", "ttl": "2h"},
    )
    (empty_home / "rows.jsonl").write_text(rows(), encoding="utf-8")
    both = [start(variables, "run", str(job), "-y") for _ in range(2)]
    one, other = [end(each) for each in both]
    assert one["run"]["id"] == other["run"]["id"]
    assert (one["run"]["state"], one["model"]["ref"]) == ("succeeded", "card:1")
    assert one["answer"]

    tuned = [each for each in jobs_of(azure) if each["status"] != "cancelled"]
    assert len(tuned) == 1
    (there,) = deployments(azure.world)
    assert there["properties"]["model"]["name"] == tuned[0]["fine_tuned_model"]
    assert there["tags"]["maas-model"] == "card:1"

    said = maas(variables, "chat", "card-end", "-m", "hello")
    assert said["text"]
    (listed,) = maas(variables, "endpoints", "list")
    assert (listed["ref"], listed["state"], listed["billing"]) == ("foundry://card-end", "ready", "billing")
    maas(variables, "runs", "download", one["run"]["id"], "--to", str(empty_home / "got"))
    result = json.loads((empty_home / "got" / "result.json").read_text(encoding="utf-8"))
    assert result["fine_tuned_model"] == tuned[0]["fine_tuned_model"]
    assert "train_loss" in (empty_home / "got" / "results.csv").read_text(encoding="utf-8")

    maas(variables, "endpoints", "delete", "card-end", "-y")
    assert maas(variables, "endpoints", "list") == []
    assert not deployments(azure.world)


def jobs_of(azure: Simulator) -> list[dict[str, Any]]:
    return list(azure.world.store.members(f"{azure.world.names.foundry_id}/openai-jobs"))
