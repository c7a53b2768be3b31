"""Deployments: ready only when they answer, with an end that is written on them, never somebody else's."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.backends.foundry.openai_v1.deployments import STATES, read_deployment
from maas_client.endpoint import Billing, EndpointRef, EndpointState
from maas_client.errors import (
    ConflictError,
    NotFoundError,
    PlanError,
    QuotaError,
    SettingsError,
    UnavailableError,
)
from maas_client.model import Lineage, RegisteredModel
from maas_client.run import Artifact
from maas_client.simulator.cognitive import DEVELOPER_LIFE_S, deployments
from maas_client.simulator.foundry import account_keys, account_of
from maas_client.simulator.world import World
from maas_client.spec import DeploySpec
from tests.backends.foundry.openai_v1.stage import Stage
from tests.simulator.openapi import COGNITIVE, contract

REF = EndpointRef("foundry", "card-end")
SPEC = DeploySpec(name="card-end", ttl="4h")


@pytest.fixture
def stage(world: World, tmp_path: Path) -> Stage:
    """A stage that looks at the simulated clock, so that leases end."""
    return Stage(world, tmp_path / "home" / "foundry")


def register(stage: Stage, name: str = "card", **more: Any) -> RegisteredModel:
    ref, plan = stage.trained(**more)
    lineage = Lineage(ref.id, plan.spec.model, plan.spec.task, plan.spec.method.name)
    assert stage.platform.models is not None
    made: RegisteredModel = stage.platform.models.register(name, stage.jobs.artifact(ref), lineage)
    return made


def test_a_deployment_carries_its_lease_and_no_secret(world: World, stage: Stage) -> None:
    model = register(stage)
    begun = stage.platform.endpoints.deploy(model.ref, SPEC)
    [made] = deployments(world)
    tags = made["tags"]
    assert (tags["maas-model"], tags["maas-run"], tags["maas-ttl"]) == ("card:1", model.lineage.run, "4h")
    assert int(tags["maas-expires-at"]) == int(begun.expires_at or 0)
    assert tags["maas-expires"].endswith("Z")
    assert made["sku"] == {"name": "GlobalStandard", "capacity": 50}
    assert made["properties"]["model"]["format"] == "Microsoft"
    keys = account_keys(world)
    written = json.dumps(made) + "".join(path.read_text() for path in stage.home.rglob("*.json"))
    assert not [key for key in keys.values() if key in written]
    kept = stage.home / "openai" / "endpoints" / "card-end.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_succeeded_is_not_ready_until_it_answers(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 1.0
    serving = stage.platform.endpoints
    assert serving.deploy(model.ref, SPEC).state is EndpointState.STARTING
    world.clock.move_on(10)
    world.faults.order({"kind": "not_ready", "times": 2})
    seen = serving.status(REF)
    assert (seen.state, seen.native_state) == (EndpointState.STARTING, "Succeeded")
    assert "does not answer yet" in seen.message
    with pytest.raises(ConflictError):
        serving.access(REF)
    assert serving.deploy(model.ref, SPEC).state is EndpointState.READY
    stage.transport.asked.clear()
    assert serving.status(REF).state is EndpointState.READY
    assert not [each for each in stage.transport.asked if "completions" in each]  # it has answered before


def test_a_deployment_that_is_throttled_answers(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 0.0
    world.faults.order({"kind": "status", "status": 429, "match": "completions"})
    assert stage.platform.endpoints.deploy(model.ref, SPEC).state is EndpointState.STARTING
    assert stage.platform.endpoints.status(REF).state is EndpointState.READY


def test_a_lost_connection_is_no_state(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 0.0
    stage.platform.endpoints.deploy(model.ref, SPEC)
    stage.transport.order("reset", "completions")
    with pytest.raises(UnavailableError):
        stage.platform.endpoints.status(REF)
    assert stage.platform.endpoints.status(REF).state is EndpointState.READY


def test_a_failed_deployment_says_why_and_is_made_again(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 1.0
    world.faults.order(
        {"kind": "lro_fail", "match": "deployments", "message": "There is no room in eastus2."}
    )
    stage.platform.endpoints.deploy(model.ref, SPEC)
    world.clock.move_on(10)
    failed = stage.platform.endpoints.status(REF)
    assert (failed.state, failed.billing) == (EndpointState.FAILED, Billing.UNKNOWN)
    assert failed.message == "There is no room in eastus2."
    stage.platform.endpoints.deploy(model.ref, SPEC)
    world.clock.move_on(10)
    assert stage.platform.endpoints.status(REF).state is EndpointState.READY


def test_whoever_waits_for_a_deployment_is_told_once_that_it_failed(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 1.0
    world.faults.order({"kind": "lro_fail", "match": "deployments", "message": "There is no room."})
    stage.platform.endpoints.deploy(model.ref, SPEC)
    world.clock.move_on(10)
    told = stage.platform.endpoints.deploy(model.ref, SPEC)
    assert (told.state, told.message) == (EndpointState.FAILED, "There is no room.")
    assert stage.platform.endpoints.deploy(model.ref, SPEC).state is EndpointState.STARTING


def test_no_quota_is_said_at_once(world: World, stage: Stage) -> None:
    model = register(stage)
    world.quota["OpenAI.GlobalStandard.gpt-oss-20b-finetune"] = 10
    with pytest.raises(QuotaError, match="InsufficientQuota") as caught:
        stage.platform.endpoints.deploy(model.ref, SPEC)
    assert caught.value.request_id
    assert "deploy.capacity" in caught.value.hint
    assert stage.platform.endpoints.deploy(model.ref, DeploySpec(name="card-end", capacity=10))


def test_other_settings_change_the_deployment_there_is(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 0.0
    serving = stage.platform.endpoints
    first = serving.deploy(model.ref, SPEC)
    more = serving.deploy(model.ref, DeploySpec(name="card-end", ttl="4h", capacity=70))
    assert deployments(world)[0]["sku"]["capacity"] == 70
    longer = serving.deploy(model.ref, DeploySpec(name="card-end", ttl="8h", capacity=70))
    assert first.expires_at is not None
    assert longer.expires_at is not None
    assert longer.expires_at > first.expires_at + 3 * 3600
    assert more.ref == longer.ref
    stage.transport.asked.clear()
    serving.deploy(model.ref, DeploySpec(name="card-end", ttl="8h", capacity=70))
    assert not [each for each in stage.transport.asked if each.startswith("PUT")]


def test_a_deployment_past_its_time_bills_until_it_is_deleted(world: World, tmp_path: Path) -> None:
    now = [1_795_000_000.0]
    stage = Stage(world, tmp_path / "home" / "foundry", clock=lambda: now[0])
    model = register(stage)
    world.timing.provisioning_s = 0.0
    stage.platform.endpoints.deploy(model.ref, SPEC)
    now[0] += 4 * 3600 + 1
    seen = stage.platform.endpoints.status(REF)
    assert (seen.state, seen.billing) == (EndpointState.EXPIRED, Billing.BILLING)
    assert "bills until then" in seen.message
    assert [each.state for each in stage.platform.endpoints.list()] == [EndpointState.EXPIRED]
    again = stage.platform.endpoints.deploy(model.ref, SPEC)
    assert again.expires_at == now[0] + 4 * 3600


def test_a_developer_deployment_ends_after_a_day_whatever_is_wanted(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 0.0
    spec = DeploySpec(name="card-end", ttl="3d", sku="DeveloperTier")
    status = stage.platform.endpoints.deploy(model.ref, spec)
    [made] = deployments(world)
    created = read_deployment(made, None).created_at
    assert status.expires_at == (created or 0) + DEVELOPER_LIFE_S
    assert "no hourly fee" in status.cost
    assert "Azure deletes it after 24 h" in stage.platform.endpoints.cost(model, spec)


def test_deployments_of_others_are_left_alone(world: World, stage: Stage) -> None:
    model = register(stage)
    stage.account.arm.put(
        stage.account.path("deployments", "card-end"),
        {
            "sku": {"name": "GlobalStandard", "capacity": 1},
            "properties": {"model": {"format": "Microsoft", "name": "gpt-oss-20b", "version": "1"}},
        },
        params=stage.account.params,
    )
    serving = stage.platform.endpoints
    assert serving.list() == ()
    with pytest.raises(ConflictError, match="maas did not make it"):
        serving.deploy(model.ref, SPEC)
    for call in (serving.status, serving.access, serving.delete):
        with pytest.raises(NotFoundError, match="that maas made"):
            call(REF)


def test_a_service_that_drops_tags_is_remembered_here(world: World, stage: Stage) -> None:
    model = register(stage)
    world.timing.provisioning_s = 0.0
    stage.platform.endpoints.deploy(model.ref, SPEC)
    deployments(world)[0]["tags"] = {}
    seen = stage.platform.endpoints.status(REF)
    assert (seen.model, seen.state) == ("card:1", EndpointState.READY)
    assert seen.expires_at is not None
    assert "only written in this project" in seen.message
    assert len(stage.platform.endpoints.list()) == 1


def test_the_way_in_is_the_key_of_the_settings_or_the_accounts_or_a_sign_in(
    world: World, tmp_path: Path
) -> None:
    world.timing.provisioning_s = 0.0
    stage = Stage(world, tmp_path / "home" / "foundry")
    model = register(stage)
    stage.platform.endpoints.deploy(model.ref, SPEC)
    stage.platform.endpoints.status(REF)
    access = stage.platform.endpoints.access(REF)
    assert (access.url, access.model, access.speaks) == ("http://localhost:1/openai/v1", "card-end", "openai")
    assert access.key == account_keys(world)["key1"]
    own = Stage(world, tmp_path / "home" / "foundry", key="ours")
    assert own.platform.endpoints.access(REF).key == account_keys(world)["key1"]
    world.grants.caller = [{"actions": ["*"], "notActions": ["*/listKeys/action"], "dataActions": ["*"]}]
    assert stage.platform.endpoints.access(REF).key == ""
    world.grants.caller = [{"actions": ["*"]}]
    account_of(world)["properties"]["disableLocalAuth"] = True
    keyless = Stage(world, tmp_path / "home" / "foundry")
    assert keyless.platform.endpoints.access(REF).key == ""


def test_without_a_subscription_nothing_can_be_deployed(world: World, tmp_path: Path) -> None:
    model = register(Stage(world, tmp_path / "home" / "foundry"))
    stage = Stage(world, tmp_path / "home" / "foundry", key="ours", subscription=False)
    assert stage.platform.endpoints.list() == ()
    with pytest.raises(SettingsError) as caught:
        stage.platform.endpoints.deploy(model.ref, SPEC)
    assert "AZURE_SUBSCRIPTION_ID" in caught.value.hint


def test_the_account_is_found_by_its_address(world: World, stage: Stage) -> None:
    assert stage.account.facts.name == "simulated-foundry"
    account_of(world)["properties"] |= {"endpoint": "https://other.example/", "endpoints": {}}
    elsewhere = Stage(world, stage.home)
    with pytest.raises(NotFoundError, match="no account with the address localhost"):
        elsewhere.account.path()
    account_of(world)["properties"]["customSubDomainName"] = "LOCALHOST"
    assert Stage(world, stage.home).account.facts.name == "simulated-foundry"


def test_a_model_of_another_resource_is_not_deployed_here(stage: Stage, tmp_path: Path) -> None:
    from maas_client.cloudpath import CloudPath

    artifact = Artifact(tmp_path, {}, CloudPath("openai://elsewhere/gpt-oss-20b.ft-1"))
    assert stage.platform.models is not None
    model = stage.platform.models.register("card", artifact, Lineage("r", "gpt-oss-20b", "chat", "lora"))
    with pytest.raises(PlanError, match="is in Foundry resource elsewhere"):
        stage.platform.endpoints.deploy(model.ref, SPEC)


@pytest.mark.parametrize("status", [500, 503])
def test_a_delete_that_fails_is_said(world: World, stage: Stage, status: int) -> None:
    model = register(stage)
    stage.platform.endpoints.deploy(model.ref, SPEC)
    world.faults.order({"kind": "status", "status": status, "match": "DELETE", "times": 0})
    with pytest.raises(UnavailableError):
        stage.platform.endpoints.delete(REF)
    world.faults.clear()
    stage.platform.endpoints.delete(REF)
    assert deployments(world) == []


@pytest.mark.skipif(not COGNITIVE.is_file(), reason="the published contracts are not here")
def test_every_published_provisioning_state_is_mapped() -> None:
    words = contract(COGNITIVE)["definitions"]["DeploymentProperties"]["properties"]["provisioningState"][
        "enum"
    ]
    assert {word.lower() for word in words} <= set(STATES)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"properties": None, "sku": [], "tags": "x"},
        {"tags": {"maas-model": "a:1", "maas-expires-at": "soon"}},
    ],
)
def test_odd_deployments_are_read(body: Any) -> None:
    read_deployment(body, None)


def test_nothing_of_the_wire_is_needed_to_open(world: World, tmp_path: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    stage = Stage(world, tmp_path / "home" / "foundry")
    stage.transport.inner = httpx.MockTransport(refuse)
    assert stage.platform.endpoints is not None
    assert not stage.home.exists()
