"""Commands against a small Azure: checks, other days, locked plans, other targets, lists that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from maas_client.ledger import Ledger
from maas_client.simulator.faults import Faults
from tests.cli.shell import job_in, maas
from tests.cli.small_azure import SmallAzure, small_azure

Maas = Callable[..., CompletedProcess[str]]
A100 = "Standard_NC24ads_A100_v4"
ML = "Microsoft.MachineLearningServices/workspaces"
AWAY = "workspace old in rg-2, subscription 2222"


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallAzure]:
    with small_azure(tmp_path_factory.mktemp("azure")) as running:
        yield running


@pytest.fixture
def there(azure: SmallAzure, empty_home: Path) -> Iterator[Maas]:
    """`maas` with the variables of the small Azure, which forgets its orders afterwards."""

    def run(*words: str, **environment: str) -> CompletedProcess[str]:
        return maas(*words, **{**azure.environment, **environment})

    azure.world.requests.clear()
    yield run
    azure.world.faults = Faults()
    azure.world.grants.caller = [{"actions": ["*"], "notActions": [], "dataActions": ["*"]}]


@pytest.fixture
def job(empty_home: Path) -> Path:
    return job_in(empty_home, backend="azureml", compute={"size": A100})


def checks_of(ended: CompletedProcess[str]) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(ended.stdout)["checks"]}


# -- plan


def test_a_plan_asks_the_service_whether_it_can_succeed(there: Maas, job: Path, azure: SmallAzure) -> None:
    ended = there("plan", str(job), "-o", "json")
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert ended.stderr.startswith("Asking workspace simulated-ws in simulated-rg, subscription ")
    checks = checks_of(ended)
    assert checks["Workspace"]["ok"] is True
    assert checks[f"Quota for dedicated {A100}"]["ok"] is True
    assert checks["Storage"]["ok"] is None
    assert {each.partition(" ")[0] for each in azure.world.requests} <= {"GET", "POST"}
    assert not [each for each in azure.world.requests if "/jobs" in each]


def test_a_plan_offline_sends_nothing(there: Maas, job: Path, azure: SmallAzure) -> None:
    ended = there("plan", str(job), "--offline", "-o", "json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "checks" not in json.loads(ended.stdout)
    assert list(azure.world.requests) == []


def test_a_right_that_is_missing_is_found_before_the_run(there: Maas, job: Path, azure: SmallAzure) -> None:
    azure.world.grants.caller = [{"actions": ["*/read", f"{ML}/jobs/*", f"{ML}/datastores/*"]}]
    ended = there("plan", str(job))
    assert ended.returncode == 2
    missing = [line for line in ended.stdout.splitlines() if line.startswith("MISSING")]
    assert len(missing) == 2
    assert f"{ML}/codes/versions/write on simulated-ws is not granted" in missing[0]
    assert "AzureML Data Scientist" in missing[0]
    refused = there("run", str(job), "-y")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "failed 2 checks of workspace simulated-ws" in refused.stderr
    assert "Right to send code: " in refused.stderr
    assert there("runs", "list", "-o", "json").stdout == "[]\n"
    assert there("submit", str(job), "--dry-run", "--no-checks").returncode == 0


def test_a_plan_as_of_another_day(there: Maas, empty_home: Path) -> None:
    job = job_in(empty_home, backend="foundry", model="Phi-3-mini-4k-instruct")
    now = there("plan", str(job), "--offline")
    assert now.returncode == 2
    assert "2025-08-30" in now.stderr
    then = there("plan", str(job), "--offline", "--date", "2025-08-29")
    assert (then.returncode, "card-support-" in then.stdout) == (0, True)
    assert there("plan", str(job), "--date", "yesterday").returncode == 2


def test_nobody_answers_the_question_of_money(there: Maas, job: Path) -> None:
    ended = there("submit", str(job), "--no-checks")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Cost: $3.67 an hour for 1 x " in ended.stderr
    assert "Pass -y to say yes." in ended.stderr
    assert there("runs", "list", "-o", "json").stdout == "[]\n"


# -- locked plans


def test_a_locked_plan_is_refused_elsewhere(there: Maas, job: Path, empty_home: Path) -> None:
    ended = there("plan", str(job), "--offline", "--out", "job.plan.json", "--set", "training.epochs=2")
    assert ended.returncode == 0
    assert "Send exactly this: maas submit job.plan.json" in ended.stderr
    same = there("submit", "job.plan.json", "--dry-run", "--no-checks", "-o", "json")
    assert json.loads(same.stdout)["run"] == json.loads((empty_home / "job.plan.json").read_text())["run"]
    other = there("submit", "job.plan.json", "--dry-run", AZUREML_WORKSPACE_NAME="prod")
    assert (other.returncode, other.stdout) == (2, "")
    assert "job.plan.json does not hold any more: the target is workspace prod in " in other.stderr
    (empty_home / "rows.jsonl").write_text('{"text": "x", "label": "y"}\n' * 3)
    changed = there("submit", "job.plan.json")
    assert changed.returncode == 2
    assert "does not hold any more: the training data changed. Nothing was sent." in changed.stderr
    assert "--set cannot change" in there("submit", "job.plan.json", "--set", "a=1").stderr


# -- targets


@pytest.fixture
def foreign(empty_home: Path) -> str:
    """A run and an endpoint that were made in another workspace."""
    ledger = Ledger(empty_home / ".maas" / "ledger.sqlite3")
    plan = {"command": "python train.py", "hashes": {}, "target": AWAY, "cost": "$1 an hour"}
    record, _ = ledger.adopt_or_add(
        name="old",
        backend="azureml",
        fingerprint="f",
        plan_of=lambda number: (f"old-0000-{number}", plan),
        spec={"name": "old"},
    )
    with ledger.action("deploy", "card", backend="azureml", target=AWAY, model="old:1") as result:
        result["expires_at"] = 1.0
    return record.id


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "cancel", "old"],
        ["runs", "resume", "old", "-y"],
        ["runs", "download", "old"],
        ["register", "old"],
        ["endpoints", "delete", "card", "-y"],
        ["endpoints", "traffic", "card", "v1=100"],
    ],
)
def test_what_was_made_elsewhere_is_left_alone(
    there: Maas, foreign: str, azure: SmallAzure, words: list[str]
) -> None:
    ended = there(*words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"is in {AWAY}, and the settings name workspace simulated-ws" in ended.stderr
    assert "AZURE_SUBSCRIPTION_ID=2222 AZURE_RESOURCE_GROUP=rg-2 AZUREML_WORKSPACE_NAME=old" in ended.stderr
    assert [each for each in azure.world.requests if not each.startswith("GET")] == []


def test_what_is_elsewhere_is_unknown_in_lists(there: Maas, foreign: str) -> None:
    runs = there("runs", "list", "-o", "json")
    assert (runs.returncode, [one["state"] for one in json.loads(runs.stdout)]) == (1, ["unknown"])
    endpoints = there("endpoints", "list", "-o", "json")
    (one,) = json.loads(endpoints.stdout)
    assert (endpoints.returncode, one["billing"], one["model"]) == (1, "unknown", "old:1")
    reaped = there("reap", "-o", "json")
    (gone,) = json.loads(reaped.stdout)
    assert (reaped.returncode, gone["deleted"]) == (1, False)
    assert gone["error"]["error"] == "TargetError"


# -- lists that fail


def test_a_list_that_fails_is_never_nothing(there: Maas, azure: SmallAzure) -> None:
    azure.world.faults.order({"kind": "status", "status": 403, "match": "/onlineEndpoints", "times": 0})
    listed = there("endpoints", "list")
    assert listed.returncode == 1
    row = next(line for line in listed.stdout.splitlines() if line.startswith("?"))
    assert row.split()[:4] == ["?", "azureml", "unknown", "unknown"]
    data = json.loads(there("endpoints", "list", "-o", "json").stdout)
    assert data[0]["error"]["status"] == 403
    reaped = there("reap")
    assert (reaped.returncode, "unknown: azureml: " in reaped.stderr) == (1, True)
    azure.world.faults.order({"kind": "status", "status": 403, "match": "/models", "times": 0})
    kept = there("models", "registered")
    assert (kept.returncode, kept.stdout.splitlines()[1].split()[:2]) == (1, ["?", "azureml"])


def test_lists_of_a_service_with_nothing(there: Maas) -> None:
    listed, reaped = there("endpoints", "list"), there("reap")
    assert (listed.returncode, listed.stdout) == (0, "No endpoints.\n")
    assert there("models", "registered", "-o", "json").stdout == "[]\n"
    assert (reaped.returncode, reaped.stdout) == (0, "")


@pytest.mark.parametrize("words", [["v1"], ["v1=x"], ["v1=101"], ["=5"], ["v1=-1"], ["v1=50", "v1=50"]])
def test_shares_that_are_none(words: list[str], empty_home: Path) -> None:
    ended = maas("endpoints", "traffic", "card", *words)
    assert (ended.returncode, ended.stdout) == (2, "")


# -- doctor


def test_doctor_looks_at_the_workspace(there: Maas, azure: SmallAzure) -> None:
    ended = there("doctor", "-o", "json")
    rows = {one["name"]: one for one in json.loads(ended.stdout)}
    assert rows["Workspace"]["detail"] == "simulated-ws (Hub) in eastus2"
    assert rows["Endpoints on azureml"]["detail"] == "0, of which 0 bill or may bill"
    assert "99999999-8888" in rows["Sign-in"]["detail"]
    azure.world.requests.clear()
    bare = there("doctor", "--no-azure", "-o", "json")
    assert "Workspace" not in {one["name"] for one in json.loads(bare.stdout)}
    assert list(azure.world.requests) == []


def test_doctor_without_a_network_ends_soon_with_unknowns(there: Maas) -> None:
    began = time.monotonic()
    nowhere = "http://127.0.0.1:9"
    names = {"ARM_CLOUD_METADATA_URL": f"{nowhere}/metadata", "IDENTITY_ENDPOINT": f"{nowhere}/msi"}
    ended = there("doctor", "-o", "json", **names)
    assert time.monotonic() - began < 60
    rows = {one["name"]: one for one in json.loads(ended.stdout)}
    assert rows["Sign-in"]["ok"] is not True
    assert rows["Workspace"] == {
        "name": "Workspace",
        "ok": None,
        "detail": "not asked",
        "hint": rows["Workspace"]["hint"],
    }
    assert "Traceback" not in ended.stderr


def test_doctor_is_told_to_look_where_nothing_is_named(empty_home: Path) -> None:
    ended = maas("doctor", "--azure", "-o", "json")
    rows = {one["name"]: one for one in json.loads(ended.stdout)}
    assert ended.returncode == 2
    assert "AZURE_SUBSCRIPTION_ID" in rows["Workspace"]["detail"]
