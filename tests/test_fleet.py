"""Endpoints on several backends: found, listed and deleted; what is unknown is never taken for nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import (
    AccessDeniedError,
    NotFoundError,
    PlanError,
    TargetError,
    UnavailableError,
    UsageError,
)
from maas_client.model import Lineage, ModelRef, RegisteredModel
from maas_client.project import Project
from maas_client.spec import DeploySpec
from tests.fakes import NAME, World

HERE = "workspace ws in rg, subscription 1111"
AWAY = "workspace old in rg-2, subscription 2222"
MODEL = RegisteredModel(
    ModelRef("kept", 1), Path("model"), 1.0, Lineage("run-1", "m", "chat", "lora"), {}, True, 1
)
SPEC = DeploySpec(name="served", ttl="1h")


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def service(tmp_path: Path) -> World:
    return World(tmp_path / "azure", name="azureml", target=HERE, named=(HERE,), endpoint_cost="$1 an hour.")


@pytest.fixture
def reopen(tmp_path: Path, local: World, service: World) -> Callable[[], Project]:
    return lambda: Project(
        tmp_path / "home", clock=lambda: 50.0, platforms={NAME: local.open(), "azureml": service.open()}
    )


def put(world: World, name: str, *, end: float | None = None) -> None:
    """An endpoint that is there although nobody here deployed it."""
    ref = EndpointRef(world.name, name)
    world.endpoints[name] = EndpointStatus(
        ref, EndpointState.READY, "ready", 1.0, "m:1", Billing.BILLING, expires_at=end
    )


# -- finding


def test_by_its_name_where_it_was_deployed(reopen: Callable[[], Project], service: World) -> None:
    reopen().deploy(MODEL, SPEC, backend="azureml")
    assert reopen().fleet.find("served") == EndpointRef("azureml", "served")
    service.boundaries.clear()
    reopen().fleet.find("served")
    assert service.boundaries == []


def test_by_its_name_where_nobody_here_deployed_it(reopen: Callable[[], Project], service: World) -> None:
    put(service, "theirs")
    assert reopen().fleet.find("theirs") == EndpointRef("azureml", "theirs")
    assert reopen().endpoint("azureml://theirs").state is EndpointState.READY


def test_a_name_on_two_backends_must_be_said_whole(
    reopen: Callable[[], Project], local: World, service: World
) -> None:
    reopen().deploy(MODEL, SPEC, backend="azureml")
    put(local, "served")
    for call in (reopen().endpoint, reopen().endpoint_access, reopen().delete_endpoint, reopen().traffic):
        with pytest.raises(UsageError, match="'served' is on azureml and local") as caught:
            call("served")
        assert caught.value.hint == "Write azureml://served or local://served."
    reopen().delete_endpoint("local://served")
    assert list(local.endpoints) == []
    assert list(service.endpoints) == ["served"]
    reopen().delete_endpoint("served")
    assert list(service.endpoints) == []


def test_a_name_that_is_nowhere(reopen: Callable[[], Project]) -> None:
    with pytest.raises(NotFoundError, match="There is no endpoint 'nothing'"):
        reopen().endpoint("nothing")
    with pytest.raises(UsageError, match="names no place"):
        reopen().endpoint("mars://x")


def test_a_service_that_cannot_be_asked_is_not_taken_for_no(
    reopen: Callable[[], Project], service: World
) -> None:
    service.trouble = UnavailableError("Away.")
    with pytest.raises(UnavailableError):
        reopen().endpoint("nothing")


# -- listing


def test_every_backend_is_listed(reopen: Callable[[], Project], local: World, service: World) -> None:
    put(local, "mine")
    put(service, "theirs")
    assert [str(one.ref) for one in reopen().endpoints()] == ["local://mine", "azureml://theirs"]


def test_what_cannot_be_asked_is_unknown_and_never_nothing(
    reopen: Callable[[], Project], local: World, service: World
) -> None:
    put(local, "mine")
    reopen().deploy(MODEL, SPEC, backend="azureml")
    service.trouble = AccessDeniedError("No role.")
    here, there = reopen().endpoint_lists()
    assert (here.error, [one.ref.name for one in here.endpoints]) == (None, ["mine"])
    assert there.error is service.trouble
    (status,) = there.endpoints
    assert (status.state, status.billing) == (EndpointState.UNKNOWN, Billing.UNKNOWN)
    assert (status.model, status.expires_at, status.message) == ("kept:1", 3601.0, "No role.")


def test_an_endpoint_in_another_target_is_unknown(reopen: Callable[[], Project], service: World) -> None:
    reopen().deploy(MODEL, SPEC, backend="azureml")
    service.named, service.endpoints = (AWAY,), {}
    (status,) = reopen().endpoints()
    assert status.billing is Billing.UNKNOWN
    assert status.message == f"is in {HERE}, which the settings do not name"
    service.named = ()
    (status,) = reopen().endpoints()
    assert status.billing is Billing.UNKNOWN


def test_a_service_that_nobody_names_or_used_is_not_asked(
    reopen: Callable[[], Project], service: World
) -> None:
    service.named, service.trouble = (), AccessDeniedError("No.")
    assert [one.backend for one in reopen().endpoint_lists()] == [NAME]


def test_a_service_whose_packages_are_missing_counts_only_where_it_was_used(
    reopen: Callable[[], Project], service: World
) -> None:
    service.trouble = PlanError("Azure needs packages that are not installed.")
    assert [one.backend for one in reopen().endpoint_lists()] == [NAME]
    service.trouble = None
    reopen().deploy(MODEL, SPEC, backend="azureml")
    service.trouble = PlanError("Azure needs packages that are not installed.")
    assert [one.error is None for one in reopen().endpoint_lists()] == [True, False]


def test_a_service_is_not_asked_again_too_soon(
    reopen: Callable[[], Project], local: World, service: World
) -> None:
    project = reopen()
    project.endpoints()
    put(service, "theirs")
    put(local, "mine")
    assert [one.ref.name for one in project.endpoints(max_age_s=60)] == ["mine"]
    assert [one.ref.name for one in project.endpoints()] == ["mine", "theirs"]


# -- changing


def test_nothing_is_changed_in_another_target(reopen: Callable[[], Project], service: World) -> None:
    reopen().deploy(MODEL, SPEC, backend="azureml")
    service.named = (AWAY,)
    project = reopen()
    for call in (project.endpoint, project.endpoint_access, project.delete_endpoint, project.traffic):
        with pytest.raises(TargetError, match="Endpoint served is in workspace ws") as caught:
            call("served")
        assert "AZUREML_WORKSPACE_NAME=ws" in caught.value.hint
    assert list(service.endpoints) == ["served"]
    assert [one.verb for one in project.ledger.actions()] == ["deploy"]


def test_traffic_is_shown_and_set(reopen: Callable[[], Project], service: World) -> None:
    reopen().deploy(MODEL, SPEC, backend="azureml")
    assert reopen().traffic("served") == {"kept:1": 100}
    assert reopen().traffic("served", {"v1": 90, "v2": 10}) == {"v1": 90, "v2": 10}
    (_, action) = reopen().ledger.actions("served")
    assert (action.verb, action.intent["shares"]) == ("set traffic", {"v1": 90, "v2": 10})


def test_deleting_again_is_fine(reopen: Callable[[], Project], service: World) -> None:
    reopen().deploy(MODEL, SPEC, backend="azureml")
    reopen().delete_endpoint("served")
    reopen().delete_endpoint("served")
    with pytest.raises(NotFoundError):
        reopen().delete_endpoint("never")


@pytest.mark.parametrize(
    ("state", "end", "here", "there"),
    [
        (EndpointState.READY, None, False, False),
        (EndpointState.READY, 51.0, False, False),
        (EndpointState.READY, 50.0, True, True),
        (EndpointState.UNKNOWN, 1.0, True, True),
        (EndpointState.FAILED, 99.0, True, False),
        (EndpointState.STOPPED, None, True, False),
        (EndpointState.EXPIRED, None, True, True),
    ],
)
def test_whose_time_is_over(
    reopen: Callable[[], Project],
    local: World,
    service: World,
    state: EndpointState,
    end: float | None,
    here: bool,
    there: bool,
) -> None:
    for world, over in ((local, here), (service, there)):
        put(world, "one", end=end)
        world.endpoints["one"] = replace(world.endpoints["one"], state=state)
        assert reopen().fleet.is_over(world.endpoints["one"], 50.0) is over
