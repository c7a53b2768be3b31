"""What is asked before a FineTuning job is sent: every step's rights, the region, the model, the cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from maas_client.check import Check
from tests.backends.foundry.classic.room import Room

DEPLOYING = {"register": {"name": "card"}, "deploy": {"name": "card-end"}}


def checked(room: Room, **parts: Any) -> dict[str, Check]:
    """The Checks of a plan by name, without storage, which needs Azurite."""
    platform, wire = room.open()
    plan = room.plan(**parts)
    found = {check.name: check for check in platform.jobs.check(plan) if check.name != "Storage"}
    reading = {"GET", "HEAD"}
    assert {text.split(" ")[0] for text in wire.sent if not text.endswith("/listSecrets")} <= reading
    return found


def test_all_is_well_in_a_listed_region(room: Room) -> None:
    found = checked(room, **DEPLOYING)
    assert [name for name, check in found.items() if check.ok is not True] == []
    assert "says its registry" in found["Region"].detail
    assert found["Model"].detail.endswith("/Phi-4-mini-instruct/versions/1")
    assert "make serverless endpoints" in found["Rights"].detail


def test_the_service_s_own_catalog_has_the_last_word_on_regions(room: Room) -> None:
    room.world.names = replace(room.world.names, location="westeurope")
    room.world.store.get(room.target.path)["location"] = "westeurope"  # type: ignore[index]
    found = checked(room)
    assert found["Region"].ok is False
    assert "westeurope" in found["Region"].detail


def test_rights_are_those_of_this_plan_s_steps(room: Room) -> None:
    assert "make serverless endpoints" not in checked(room)["Rights"].detail
    assert "subscribe to a model's offer" in checked(room, model="Ministral-3B", **DEPLOYING)["Rights"].detail


def test_a_missing_right_of_the_last_step_is_seen_before_the_first(room: Room) -> None:
    rules = [
        {"actions": ["*"], "notActions": ["*/serverlessEndpoints/*"], "dataActions": [], "notDataActions": []}
    ]
    room.world.grants.caller = rules
    found = checked(room, **DEPLOYING)
    missing = [name for name, check in found.items() if check.ok is False]
    assert "Right to make serverless endpoints" in missing


def test_a_model_that_the_registry_does_not_have_is_seen(room: Room) -> None:
    found = checked(room, model="azureml://registries/azureml/models/no-such-model")
    assert found["Model"].ok is False


def test_a_cluster_must_be_there_because_the_service_makes_none(room: Room) -> None:
    found = checked(room, compute={"name": "gpus"})
    assert found["Cluster"].ok is False
    assert "gpus" in found["Cluster"].detail
    assert "Region" not in found


@pytest.mark.parametrize(
    ("tags", "ok"), [({}, False), ({"maas-model": "x:1"}, False), ({"maas-model": "card:1"}, True)]
)
def test_an_endpoint_s_name_that_is_taken_is_seen(room: Room, tags: dict[str, str], ok: bool) -> None:
    assert checked(room, **DEPLOYING)["Endpoint"].detail == "the name card-end is free"
    room.world.store.put(f"{room.target.path}/serverlessEndpoints/card-end", {"tags": tags, "properties": {}})
    assert checked(room, **DEPLOYING)["Endpoint"].ok is ok


def test_machines_of_the_subscription_are_looked_for(room: Room) -> None:
    found = checked(room, compute={"size": "Standard_NC24ads_A100_v4"})
    assert found["Size Standard_NC24ads_A100_v4"].ok is True
    assert "Region" not in found
    assert "Cluster" not in found


@pytest.mark.parametrize("kind", ["Default", "Hub", "Project"])
def test_hubs_projects_and_workspaces_serve(room: Room, kind: str) -> None:
    room.world.store.get(room.target.path)["kind"] = kind  # type: ignore[index]
    assert checked(room)["Workspace"].ok is True


def test_a_feature_store_does_not(room: Room) -> None:
    room.world.store.get(room.target.path)["kind"] = "FeatureStore"  # type: ignore[index]
    assert checked(room)["Workspace"].ok is False


def test_where_there_is_no_workspace_nothing_more_is_asked(room: Room) -> None:
    room.world.store.delete(room.target.path)
    found = checked(room, **DEPLOYING)
    assert found["Workspace"].ok is False
    assert "Model" not in found
