"""What is asked of a resource before anything is sent, the deployment's part too; nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maas_client.check import Check
from maas_client.errors import PlanError
from maas_client.simulator.foundry import account_keys, account_of
from maas_client.simulator.openai_files import MOST_FILES, keep_file
from maas_client.simulator.world import World
from tests.backends.foundry.openai_v1.stage import Stage

DEPLOYS = {"register": {"name": "card"}, "deploy": {"name": "card-end"}}


def checks(stage: Stage, **more: Any) -> dict[str, Check]:
    found = stage.jobs.check(stage.plan(**more))
    assert not [each for each in stage.transport.asked if not each.startswith("GET")]
    return {each.name: each for each in found}


def test_all_is_well(stage: Stage) -> None:
    found = checks(stage, **DEPLOYS)
    assert {name: each.ok for name, each in found.items()} == {
        "Sign-in": True,
        "Account": True,
        "Queue": True,
        "Files": True,
        "Provider Microsoft.CognitiveServices": True,
        "Model": True,
        "Region": True,
        "Rights": True,
        "Quota": True,
        "Endpoint": True,
    }
    assert "simulated-foundry (AIServices) in eastus2" in found["Account"].detail
    assert "deploy models" in found["Rights"].detail


def test_without_a_deployment_less_is_asked(stage: Stage) -> None:
    found = checks(stage)
    assert not {"Quota", "Endpoint"} & set(found)
    assert "deploy models" not in found["Rights"].detail


def test_a_wrong_key_ends_the_questions(world: World, tmp_path: Path) -> None:
    found = checks(Stage(world, tmp_path / "home" / "foundry", key="wrong"))
    assert found["Sign-in"].ok is False
    assert {each.ok for name, each in found.items() if name != "Sign-in"} == {None}
    good = checks(Stage(world, tmp_path / "home" / "foundry", key="ours"))
    assert good["Sign-in"].ok is True
    assert "Rights" not in good  # a key needs no role, and nothing is deployed
    shown = " ".join(each.detail for each in (*found.values(), *good.values()))
    assert account_keys(world)["key1"] not in shown


def test_without_a_subscription_a_deployment_cannot_be(world: World, tmp_path: Path) -> None:
    stage = Stage(world, tmp_path / "home" / "foundry", key="ours", subscription=False)
    assert checks(stage)["Account"].ok is None
    found = checks(stage, **DEPLOYS)["Account"]
    assert (found.ok, "AZURE_SUBSCRIPTION_ID" in found.detail) == (False, True)


def test_an_account_that_is_not_there_is_said(world: World, stage: Stage) -> None:
    account_of(world)["properties"] |= {
        "endpoint": "https://x.example/",
        "endpoints": {},
        "customSubDomainName": "x",
    }
    found = checks(stage)
    assert found["Account"].ok is False
    assert found["Queue"].ok is True
    account_of(world)["kind"] = "FormRecognizer"
    account_of(world)["properties"]["customSubDomainName"] = "localhost"
    assert checks(Stage(world, stage.home))["Account"].ok is None


def test_a_missing_right_for_the_last_step_is_found_before_the_first(world: World, stage: Stage) -> None:
    world.grants.caller = [{"actions": ["*/read"], "dataActions": ["*"]}]
    found = checks(stage, **DEPLOYS)
    assert found["Right to deploy models"].ok is False
    assert "Microsoft.CognitiveServices/accounts/deployments/write" in found["Right to deploy models"].detail


def test_a_full_queue_and_many_files_are_said(world: World, stage: Stage) -> None:
    from maas_client.simulator.openai_tuning import MOST_QUEUED

    for number in range(MOST_QUEUED):
        job = {"id": f"ftjob-{number}", "status": "pending", "created_at": 1, "object": "fine_tuning.job"}
        world.store.put(f"{world.names.foundry_id}/openai-jobs/{job['id']}", job)
    for number in range(MOST_FILES - 1):
        keep_file(world, f"{number}.jsonl", b"", purpose="fine-tune")
    found = checks(stage)
    assert found["Queue"].ok is False
    assert found["Files"].ok is None


def test_standard_training_is_bound_to_its_regions(stage: Stage) -> None:
    standard = checks(stage, model="gpt-4.1-mini", foundry={"training_type": "standard"})["Region"]
    assert standard.ok is False
    assert "northcentralus" in standard.detail
    assert (
        checks(stage, model="gpt-4.1-mini", foundry={"training_type": "globalStandard"})["Region"].ok is True
    )
    assert checks(stage, model="gpt-4.1-mini")["Region"].ok is None


def test_a_quota_that_does_not_suffice_is_said(world: World, stage: Stage) -> None:
    world.quota["OpenAI.GlobalStandard.gpt-oss-20b-finetune"] = 40
    found = checks(stage, **DEPLOYS)["Quota"]
    assert (found.ok, "40 of 40 are left, 50 are wanted" in found.detail) == (False, True)
    assert checks(stage, register={"name": "card"}, deploy={"name": "card-end", "capacity": 40})["Quota"].ok
    unknown = checks(
        stage, register={"name": "card"}, deploy={"name": "card-end", "sku": "ProvisionedManaged"}
    )
    assert unknown["Quota"].ok is None


def test_a_name_that_is_taken_is_said(stage: Stage) -> None:
    model = {"format": "Microsoft", "name": "gpt-oss-20b", "version": "1"}
    stage.account.arm.put(
        stage.account.path("deployments", "card-end"),
        {"sku": {"name": "GlobalStandard", "capacity": 1}, "properties": {"model": model}},
        params=stage.account.params,
    )
    stage.transport.asked.clear()
    found = checks(stage, **DEPLOYS)["Endpoint"]
    assert (found.ok, "serves gpt-oss-20b" in found.detail) == (False, True)


def test_a_service_that_cannot_be_asked_is_unknown(world: World, stage: Stage) -> None:
    world.faults.order({"kind": "status", "status": 403, "match": "/files", "times": 0})
    assert checks(stage)["Files"].ok is None


def test_a_plan_is_for_its_resource(stage: Stage) -> None:
    from dataclasses import replace

    plan = replace(stage.plan(), target="Foundry resource other (other.openai.azure.com)")
    for call in (stage.jobs.check, stage.jobs.submit):
        with pytest.raises(PlanError, match="not for Foundry resource localhost"):
            call(plan)
