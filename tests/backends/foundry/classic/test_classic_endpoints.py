"""Serverless endpoints: made once, with a key and an end; replaced, asked, deleted; the wire is in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from maas_client.backends.foundry.classic.endpoints import ClassicEndpoints
from maas_client.backends.foundry.classic.marketplace import ensure_subscription, subscription_name
from maas_client.backends.foundry.classic.wire import ENDPOINT_STATES, endpoint_state
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError, NotFoundError, ServiceError
from maas_client.model import RegisteredModel
from maas_client.spec import DeploySpec
from tests.backends.foundry.classic.room import Room
from tests.simulator.boundaries import Boundaries, KilledError, open_with_boundaries
from tests.transport.loopback import Reply, loopback

SPEC = DeploySpec(name="card-end", ttl="4h")
REF = EndpointRef("foundry", "card-end")


def opened(room: Room) -> tuple[ClassicEndpoints, Boundaries]:
    platform, wire = room.open()
    assert isinstance(platform.endpoints, ClassicEndpoints)
    return platform.endpoints, wire


@pytest.fixture
def model(room: Room) -> RegisteredModel:
    return room.registered()


def order(room: Room, fault: dict[str, Any]) -> None:
    room.world.faults.order(fault)


def pass_time(room: Room, seconds: float = 100) -> None:
    room.world.clock.move_on(seconds)
    room.world.operations.settle()


def changes(wire: Boundaries) -> list[str]:
    return [text.rpartition("/workspaces/")[2] for text in wire.sent if not text.startswith("GET")]


def test_a_deployment_is_one_put_with_key_auth_and_tags(room: Room, model: RegisteredModel) -> None:
    endpoints, wire = opened(room)
    status = endpoints.deploy(model.ref, SPEC)
    assert changes(wire) == ["simulated-ws/serverlessEndpoints/card-end"]
    body = room.endpoints()["card-end"]
    assert body["properties"]["authMode"] == "Key"
    assert body["properties"]["modelSettings"]["modelId"] == str(model.place)
    assert (body["location"], body["sku"]) == ("eastus2", {"name": "Consumption"})
    ends = float(body["tags"]["maas-expires-at"])
    assert ends == pytest.approx(room.world.clock.now() + 4 * 3600, abs=10)
    assert body["tags"] == {
        "maas-model": "card:1",
        "maas-run": model.lineage.run,
        "maas-ttl": "4h",
        "maas-expires-at": str(int(ends)),
        "maas-expires": f"{datetime.fromtimestamp(ends, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    assert (status.ref, status.state, status.native_state) == (REF, EndpointState.STARTING, "Creating")
    assert (status.model, status.expires_at) == ("card:1", ends)
    assert status.billing is Billing.UNKNOWN


def test_the_same_deployment_again_changes_nothing(room: Room, model: RegisteredModel) -> None:
    first = opened(room)[0].deploy(model.ref, SPEC)
    endpoints, wire = opened(room)
    again = endpoints.deploy(model.ref, SPEC)
    assert changes(wire) == []
    assert again.expires_at == first.expires_at


def test_another_time_gives_the_endpoint_another_end(room: Room, model: RegisteredModel) -> None:
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC)
    pass_time(room)
    status = endpoints.deploy(model.ref, SPEC.model_copy(update={"ttl": "8h"}))
    assert status.expires_at == pytest.approx(room.world.clock.now() + 8 * 3600, abs=10)
    assert len(room.endpoints()) == 1


def test_a_name_serves_one_model(room: Room, model: RegisteredModel) -> None:
    endpoints, wire = opened(room)
    endpoints.deploy(model.ref, SPEC)
    other = room.registered("other")
    wire.sent.clear()
    with pytest.raises(ConflictError, match="serves card:1, another model"):
        endpoints.deploy(other.ref, SPEC)
    assert changes(wire) == []


def test_an_endpoint_of_somebody_else_is_left_alone(room: Room, model: RegisteredModel) -> None:
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC)
    room.endpoints()["card-end"]["tags"] = {"owner": "somebody"}
    with pytest.raises(ConflictError, match="maas did not make it"):
        endpoints.deploy(model.ref, SPEC)
    for call in (endpoints.status, endpoints.access, endpoints.delete):
        with pytest.raises(NotFoundError):
            call(REF)
    assert endpoints.list() == ()
    assert "card-end" in room.endpoints()


def test_a_newer_version_takes_the_place_step_by_step(room: Room, model: RegisteredModel) -> None:
    endpoints, wire = opened(room)
    endpoints.deploy(model.ref, SPEC)
    pass_time(room)
    newer = room.registered(version=2)
    wire.sent.clear()
    seen = [endpoints.deploy(newer.ref, SPEC), endpoints.deploy(newer.ref, SPEC)]
    assert [status.state for status in seen] == [EndpointState.STARTING] * 2
    assert "card:1 makes room" in seen[0].message
    assert "The same deploy again goes on" in seen[1].message
    assert changes(wire) == ["simulated-ws/serverlessEndpoints/card-end"]
    pass_time(room)
    assert endpoints.deploy(newer.ref, SPEC).model == "card:2"
    assert room.endpoints()["card-end"]["tags"]["maas-model"] == "card:2"


def test_one_whose_creation_failed_is_made_anew(room: Room, model: RegisteredModel) -> None:
    endpoints, _ = opened(room)
    order(room, {"kind": "lro_fail", "match": "PUT .*serverlessEndpoints", "code": "NoRoom"})
    endpoints.deploy(model.ref, SPEC)
    pass_time(room)
    assert endpoints.status(REF).state is EndpointState.FAILED
    assert endpoints.deploy(model.ref, SPEC).state is EndpointState.STARTING
    pass_time(room)
    assert endpoints.deploy(model.ref, SPEC).native_state == "Creating"
    pass_time(room)
    assert endpoint_state(room.endpoints()["card-end"])[1] == "Online"


def test_a_failure_is_told_once_with_its_reason_before_it_is_made_anew(
    room: Room, model: RegisteredModel
) -> None:
    endpoints, _ = opened(room)
    order(room, {"kind": "lro_fail", "match": "PUT .*serverless", "code": "NoRoom", "message": "All is full"})
    endpoints.deploy(model.ref, SPEC)
    pass_time(room)
    told = endpoints.deploy(model.ref, SPEC)
    assert (told.state, told.message) == (
        EndpointState.FAILED,
        "Azure could not make it: NoRoom: All is full.",
    )
    assert "card-end" in room.endpoints()
    assert endpoints.deploy(model.ref, SPEC).state is EndpointState.STARTING
    pass_time(room)
    assert "card-end" not in room.endpoints()


def test_another_region_keeps_the_model_s_home_in_its_id(room: Room, model: RegisteredModel) -> None:
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC.model_copy(update={"location": "West US 3"}))
    body = room.endpoints()["card-end"]
    assert body["location"] == "westus3"
    assert body["properties"]["modelSettings"]["modelId"].startswith(
        "azureml://locations/eastus2/workspaces/"
    )
    moved = endpoints.deploy(model.ref, SPEC.model_copy(update={"location": "eastus"}))
    assert "makes room" in moved.message


def test_an_unknown_model_is_not_deployed(room: Room) -> None:
    endpoints, wire = opened(room)
    with pytest.raises(NotFoundError):
        endpoints.deploy(room.ref("card:7"), SPEC)
    assert changes(wire) == []


# -- exactly once


def count_of(room: Room, model: RegisteredModel) -> int:
    endpoints, wire = opened(room)
    endpoints.deploy(model.ref, SPEC)
    forget(room)
    return len(wire.sent)


def forget(room: Room) -> None:
    room.world.store.delete(f"{room.target.path}/serverlessEndpoints/card-end")


def must_hold(room: Room, model: RegisteredModel) -> None:
    """The same deployment again finds or makes the one endpoint."""
    status = opened(room)[0].deploy(model.ref, SPEC)
    assert status.model == "card:1"
    assert list(room.endpoints()) == ["card-end"]
    assert room.endpoints()["card-end"]["properties"]["modelSettings"]["modelId"] == str(model.place)
    forget(room)


@pytest.mark.parametrize("after", [False, True])
def test_exactly_once_when_the_process_dies_at_any_request(
    room: Room, model: RegisteredModel, after: bool
) -> None:
    for boundary in range(count_of(room, model)):
        endpoints, wire = opened(room)
        wire.lost = {boundary} if after else set()

        def die(number: int, _: str, at: int = boundary + after) -> None:
            if number == at:
                raise KilledError

        wire.at = die
        with pytest.raises((KilledError, ServiceError)):
            endpoints.deploy(model.ref, SPEC)
        must_hold(room, model)


def test_exactly_once_when_any_reply_is_lost(room: Room, model: RegisteredModel) -> None:
    for boundary in range(count_of(room, model)):
        endpoints, wire = opened(room)
        wire.lost = {boundary}
        endpoints.deploy(model.ref, SPEC)
        must_hold(room, model)


def test_exactly_once_when_another_terminal_deploys_at_any_request(
    room: Room, model: RegisteredModel
) -> None:
    for boundary in range(count_of(room, model)):
        endpoints, wire = opened(room)

        def meanwhile(number: int, _: str, at: int = boundary) -> None:
            if number == at:
                opened(room)[0].deploy(model.ref, SPEC)

        wire.at = meanwhile
        endpoints.deploy(model.ref, SPEC)
        must_hold(room, model)


def test_exactly_once_where_the_service_is_busy_with_the_same_endpoint(
    room: Room, model: RegisteredModel
) -> None:
    endpoints, wire = opened(room)

    def meanwhile(number: int, text: str) -> None:
        if text.startswith("PUT"):
            wire.at = lambda _number, _text: None
            opened(room)[0].deploy(model.ref, SPEC)
            order(room, {"kind": "status", "status": 409, "match": "PUT .*serverlessEndpoints"})

    wire.at = meanwhile
    assert endpoints.deploy(model.ref, SPEC).model == "card:1"
    must_hold(room, model)


def test_a_conflict_that_is_not_about_us_is_raised(room: Room, model: RegisteredModel) -> None:
    order(room, {"kind": "status", "status": 409, "match": "PUT .*serverlessEndpoints"})
    with pytest.raises(ConflictError):
        opened(room)[0].deploy(model.ref, SPEC)


def test_exactly_once_deleted_when_any_reply_is_lost(room: Room, model: RegisteredModel) -> None:
    opened(room)[0].deploy(model.ref, SPEC)
    pass_time(room)
    endpoints, wire = opened(room)
    endpoints.delete(REF)
    for boundary in range(len(wire.sent)):
        opened(room)[0].deploy(model.ref, SPEC)
        pass_time(room)
        endpoints, wire = opened(room)
        wire.lost = {boundary}
        endpoints.delete(REF)
        assert room.endpoints() == {}


def test_what_is_being_deleted_already_is_waited_for(room: Room, model: RegisteredModel) -> None:
    endpoints, wire = opened(room)
    endpoints.deploy(model.ref, SPEC)
    pass_time(room)

    def die(number: int, text: str) -> None:
        if "mfeOperationsStatus" in text:
            raise KilledError

    wire.at = die
    with pytest.raises(KilledError):
        endpoints.delete(REF)
    assert endpoints.list()[0].native_state == "Deleting"
    opened(room)[0].delete(REF)
    assert room.endpoints() == {}
    with pytest.raises(NotFoundError):
        endpoints.delete(REF)


# -- sight


@pytest.mark.parametrize("word", [*ENDPOINT_STATES, "Thawing"])
def test_every_word_of_the_service_has_a_state(room: Room, model: RegisteredModel, word: str) -> None:
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC)
    properties = room.endpoints()["card-end"]["properties"]
    properties |= {"endpointState": word, "provisioningState": "Succeeded"}
    [status] = endpoints.list()
    assert status.native_state == word
    assert status.state is ENDPOINT_STATES.get(word, EndpointState.UNKNOWN)
    assert (status.billing is Billing.BILLING) is (word in {"Online", "Reinstating"})
    assert status.billing is not Billing.FREE
    assert "by the hour" in status.cost


@pytest.mark.parametrize(
    ("endpoint", "provisioning", "state"),
    [
        ("Creating", "Failed", EndpointState.FAILED),
        (None, "Canceled", EndpointState.FAILED),
        ("Online", "Failed", EndpointState.READY),
        ("Online", "Deleting", EndpointState.STOPPED),
        (None, "Succeeded", EndpointState.UNKNOWN),
    ],
)
def test_both_words_of_the_service_are_read(
    endpoint: str | None, provisioning: str, state: EndpointState
) -> None:
    body = {"properties": {"endpointState": endpoint, "provisioningState": provisioning}}
    assert endpoint_state(body)[0] is state


def test_one_past_its_time_is_expired_and_bills(room: Room, model: RegisteredModel) -> None:
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC)
    pass_time(room, 4 * 3600 + 1)
    [status] = endpoints.list()
    assert (status.state, status.billing) == (EndpointState.EXPIRED, Billing.BILLING)
    assert "maas reap" in status.message
    with pytest.raises(ConflictError, match="expired"):
        endpoints.access(REF)
    renewed = endpoints.deploy(model.ref, SPEC)
    assert renewed.expires_at is not None
    assert renewed.expires_at > room.world.clock.now()


def test_unknown_endpoints_are_not_found(room: Room) -> None:
    endpoints, _ = opened(room)
    for call in (endpoints.status, endpoints.access, endpoints.delete, endpoints.traffic):
        with pytest.raises(NotFoundError, match="card-end"):
            call(REF)


def test_one_deployment_gets_every_request(room: Room, model: RegisteredModel) -> None:
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC)
    assert endpoints.traffic(REF) == endpoints.traffic(REF, {"card:1": 100}) == {"card:1": 100}
    with pytest.raises(ConflictError, match="one deployment"):
        endpoints.traffic(REF, {"card:1": 50, "card:2": 50})


def test_the_cost_is_said_before(room: Room, model: RegisteredModel) -> None:
    cost = opened(room)[0].cost(model, SPEC)
    assert "by the hour" in cost
    assert "unknown" in cost
    assert "4h" in cost
    assert "`maas reap`" in cost


# -- whether it answers


@contextlib.contextmanager
def online(room: Room, model: RegisteredModel, answer: Any) -> Iterator[ClassicEndpoints]:
    """An endpoint that Azure calls Online, and a server that answers as told."""
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC)
    pass_time(room)
    with loopback(answer) as server:
        room.endpoints()["card-end"]["properties"]["inferenceEndpoint"] = {"uri": f"{server.url}/"}
        yield endpoints


def seen(room: Room, model: RegisteredModel, answer: Any) -> EndpointStatus:
    with online(room, model, answer) as endpoints:
        return endpoints.status(REF)


def test_online_and_answering_is_ready(room: Room, model: RegisteredModel) -> None:
    with online(room, model, lambda _: Reply(200, {"model_name": "card"})) as endpoints:
        status = endpoints.status(REF)
        assert (status.state, status.billing) == (EndpointState.READY, Billing.BILLING)
        access = endpoints.access(REF)
    assert (access.url, access.model, access.speaks) == (status.url, "card", "chat")
    assert access.key
    assert access.key not in repr(access)
    assert access.key not in str(status.to_dict())
    assert not access.url.endswith("/")


@pytest.mark.parametrize(
    ("status", "code", "state"),
    [
        (503, "ServiceUnavailable", EndpointState.STARTING),
        (404, "DeploymentNotReady", EndpointState.STARTING),
        (424, "DeploymentNotReady", EndpointState.STARTING),
        (404, "NotFound", EndpointState.READY),
        (429, "TooManyRequests", EndpointState.READY),
    ],
)
def test_online_without_an_answer_is_starting(
    room: Room, model: RegisteredModel, status: int, code: str, state: EndpointState
) -> None:
    found = seen(room, model, lambda _: Reply(status, {"error": {"code": code, "message": "no"}}))
    assert found.state is state
    assert found.billing is Billing.BILLING
    assert ("does not answer yet" in found.message) is (state is EndpointState.STARTING)


def test_online_where_nobody_listens_is_starting(room: Room, model: RegisteredModel) -> None:
    endpoints, _ = opened(room)
    endpoints.deploy(model.ref, SPEC)
    pass_time(room)
    room.endpoints()["card-end"]["properties"]["inferenceEndpoint"] = {"uri": "http://127.0.0.1:9"}
    assert endpoints.status(REF).state is EndpointState.STARTING
    with pytest.raises(ConflictError, match="does not answer yet"):
        endpoints.access(REF)


# -- marketplace subscriptions


def subscriptions(room: Room) -> dict[str, dict[str, Any]]:
    found = room.world.store.members(f"{room.target.path}/marketplaceSubscriptions")
    return {each["name"]: each for each in found}


def test_models_of_other_publishers_are_subscribed_to_first(room: Room) -> None:
    model = room.registered(base="Ministral-3B")
    endpoints, wire = opened(room)
    first = endpoints.deploy(model.ref, SPEC)
    assert (first.state, first.native_state) == (EndpointState.STARTING, "Subscribing")
    assert room.endpoints() == {}
    endpoints.deploy(model.ref, SPEC)
    assert len(subscriptions(room)) == 1
    pass_time(room)
    assert endpoints.deploy(model.ref, SPEC).native_state == "Creating"
    assert changes(wire) == [
        "simulated-ws/marketplaceSubscriptions/maas-ministral-3b",
        "simulated-ws/serverlessEndpoints/card-end",
    ]


def test_microsoft_s_own_models_need_none(room: Room, model: RegisteredModel) -> None:
    opened(room)[0].deploy(model.ref, SPEC)
    assert subscriptions(room) == {}


MINISTRAL = "azureml://registries/azureml-mistral/models/Ministral-3B"


def test_a_subscription_of_somebody_else_counts(room: Room) -> None:
    workspace, wire = open_with_boundaries(room.world)
    assert not ensure_subscription(workspace, MINISTRAL)
    pass_time(room)
    subscriptions(room)["maas-ministral-3b"]["name"] = "theirs"
    wire.sent.clear()
    assert ensure_subscription(workspace, f"{MINISTRAL}/versions/3")
    assert not [text for text in wire.sent if text.startswith("PUT")]


def test_one_that_was_ended_is_asked_for_again(room: Room) -> None:
    workspace, wire = open_with_boundaries(room.world)
    ensure_subscription(workspace, MINISTRAL)
    pass_time(room)
    subscriptions(room)["maas-ministral-3b"]["properties"]["marketplaceSubscriptionStatus"] = "Unsubscribed"
    wire.sent.clear()
    ensure_subscription(workspace, MINISTRAL)
    assert [text.split(" ")[0] for text in wire.sent] == ["GET", "PUT"]


@pytest.mark.parametrize(("word", "provisioning"), [("Suspended", "Succeeded"), ("Unsubscribed", "Failed")])
def test_one_that_cannot_be_used_is_said(room: Room, word: str, provisioning: str) -> None:
    workspace, _ = open_with_boundaries(room.world)
    ensure_subscription(workspace, MINISTRAL)
    properties = subscriptions(room)["maas-ministral-3b"]["properties"]
    properties |= {"marketplaceSubscriptionStatus": word, "provisioningState": provisioning}
    with pytest.raises(ConflictError, match=word) as caught:
        ensure_subscription(workspace, MINISTRAL)
    assert "billing account" in caught.value.hint


@pytest.mark.parametrize("lost", [0, 1])
def test_exactly_once_subscribed_when_a_reply_is_lost(room: Room, lost: int) -> None:
    workspace, wire = open_with_boundaries(room.world)
    wire.lost = {lost}
    ensure_subscription(workspace, MINISTRAL)
    assert len(subscriptions(room)) == 1


def test_the_name_of_a_subscription_fits_the_service() -> None:
    assert (
        subscription_name("azureml://registries/x/models/Llama-3.3_70B Instruct")
        == "maas-llama-3-3-70b-instruct"
    )
    assert len(subscription_name("azureml://registries/x/models/" + "a" * 90)) <= 52


def test_a_lost_connection_is_repeatable(room: Room, model: RegisteredModel) -> None:
    endpoints, wire = opened(room)

    def cut(number: int, text: str) -> None:
        raise httpx.ConnectError("no route")

    wire.at = cut
    with pytest.raises(ServiceError) as caught:
        endpoints.deploy(model.ref, SPEC)
    assert caught.value.exit_code == 4
