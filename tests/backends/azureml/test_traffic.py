"""Shares of an endpoint's requests: set without undoing what others set, back to an older version."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.azureml.endpoints import AzuremlEndpoints
from maas_client.backends.azureml.lease import TAG_DEPLOYMENT, TAG_MODEL
from maas_client.endpoint import EndpointState
from maas_client.errors import ConflictError, MaasError, NotFoundError, RejectedError, UnavailableError
from tests.backends.azureml.online_stage import REF, OnlineStage, wanted
from tests.simulator.boundaries import Boundaries, KilledError

V1, V2 = "v1-fd3b", "v2-fd3b"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[OnlineStage]:
    """card:1 serves, and card:2 answers beside it without requests."""
    made = OnlineStage(tmp_path)
    side_by_side(made)
    yield made
    made.world.runner.stop()


def side_by_side(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    serving, _ = stage.open()
    serving.deploy(stage.v2, wanted())
    stage.pass_time()
    assert set(stage.deployments()) == {V1, V2}


def test_shares_are_shown_and_set(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    assert serving.traffic(REF) == {V1: 100, V2: 0}
    assert serving.traffic(REF, {"v1": 90, "v2": 10}) == {V1: 90, V2: 10}
    assert serving.traffic(REF) == {V1: 90, V2: 10}
    status = serving.status(REF)
    assert (status.state, status.model) == (EndpointState.READY, "card:1")
    assert status.traffic == {V1: 90, V2: 10}


def test_back_to_the_older_version(stage: OnlineStage) -> None:
    serving, wire = stage.open()
    serving.traffic(REF, {"v2": 100})
    assert (serving.status(REF).model, stage.traffic()) == ("card:2", {V2: 100})
    assert serving.traffic(REF, {V1: 100, V2: 0}) == {V1: 100, V2: 0}
    status = serving.status(REF)
    assert (status.state, status.model) == (EndpointState.READY, "card:1")
    assert f"{V2} gets no requests and costs all the same" in status.message
    assert stage.endpoint()["tags"]["maas-model"] == "card:1"
    wire.sent.clear()
    assert stage.drive(serving, stage.v1).state is EndpointState.READY
    assert next(text for text in wire.sent if text.startswith("DELETE")).endswith(V2)


def test_the_same_deploy_ends_a_trial_with_some_of_the_requests(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    serving.traffic(REF, {"v1": 50, "v2": 50})
    ready = stage.drive(serving, stage.v2)
    assert (ready.state, ready.model) == (EndpointState.READY, "card:2")
    stage.pass_time()
    assert (stage.traffic(), list(stage.deployments())) == ({V2: 100}, [V2])


def test_setting_what_is_set_sends_nothing(stage: OnlineStage) -> None:
    serving, wire = stage.open()
    serving.traffic(REF, {"v1": 100})
    assert not [text for text in wire.sent if text.startswith("PUT")]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"v1": 60, "v2": 60}, "add up to 120"),
        ({"v1": 110, "v2": -10}, "0 to 100 each"),
        ({}, "add up to 0"),
        ({"v3": 100}, f"no single deployment v3; it has {V1}, {V2}"),
        ({"v1": 50, V1: 50}, f"{V1} is named twice"),
        ({"blue": 100}, "no single deployment blue"),
    ],
)
def test_shares_that_do_not_fit_are_refused(stage: OnlineStage, shares: dict[str, int], words: str) -> None:
    serving, wire = stage.open()
    with pytest.raises(ConflictError, match=words):
        serving.traffic(REF, shares)
    assert not [text for text in wire.sent if text.startswith("PUT")]


def test_what_is_not_up_gets_no_requests(stage: OnlineStage) -> None:
    stage.deployments()[V2]["properties"]["provisioningState"] = "Failed"
    with pytest.raises(ConflictError, match=f"{V2} is Failed"):
        stage.open()[0].traffic(REF, {"v1": 50, "v2": 50})


def test_all_else_about_the_endpoint_stays(stage: OnlineStage) -> None:
    """azure-ai-ml writes back the parts of an endpoint that its entity has."""
    endpoint = stage.endpoint()
    endpoint["properties"] |= {
        "description": "ours",
        "publicNetworkAccess": "Disabled",
        "mirrorTraffic": {V2: 10},
    }
    endpoint["properties"]["properties"]["enforce_access"] = "True"
    endpoint["tags"]["cost-center"] = "7"
    before = _kept(endpoint)
    stage.open()[0].traffic(REF, {"v1": 80, "v2": 20})
    assert _kept(stage.endpoint()) == before
    assert stage.traffic() == {V1: 80, V2: 20}


def _kept(endpoint: dict[str, Any]) -> dict[str, Any]:
    properties = endpoint["properties"]
    names = ("description", "publicNetworkAccess", "mirrorTraffic", "authMode")
    own = {name: value for name, value in properties["properties"].items() if "AsyncOperation" not in name}
    tags = {
        name: value for name, value in endpoint["tags"].items() if name not in {TAG_MODEL, TAG_DEPLOYMENT}
    }
    return {name: properties[name] for name in names} | {"own": own, "tags": tags}


def test_identities_of_the_user_stay(stage: OnlineStage) -> None:
    sent: list[Any] = []
    stage.endpoint()["identity"] = {
        "type": "UserAssigned",
        "userAssignedIdentities": {"/subscriptions/x/id": {"principalId": "p", "clientId": "c"}},
    }
    serving, wire = stage.open()
    handle = wire.handle_request

    def look(request: Any) -> Any:
        if request.method == "PUT":
            sent.append(request.content)
        return handle(request)

    wire.handle_request = look  # type: ignore[method-assign]
    serving.traffic(REF, {"v1": 80, "v2": 20})
    assert b'"userAssignedIdentities":{"/subscriptions/x/id":{}}' in sent[0].replace(b" ", b"")
    assert b"provisioningState" not in sent[0]
    assert b"scoringUri" not in sent[0]


class Beside:
    """A call in a thread of its own that stops at its first nap, when Azure works on what it asked for."""

    def __init__(self, stage: OnlineStage, call: Callable[[AzuremlEndpoints], object]) -> None:
        self._stage, self._call = stage, call
        self._halted, self._go = threading.Event(), threading.Event()
        self._serving, _ = stage.open("second-home", sleep=self._nap)
        self._thread = threading.Thread(target=self._run)
        self.outcome: object = None

    def _nap(self, seconds: float) -> None:
        self._halted.set()
        assert self._go.wait(60)
        self._stage.world.clock.move_on(seconds)

    def _run(self) -> None:
        self.outcome = outcome_of(lambda: self._call(self._serving))
        self._halted.set()

    def start(self) -> None:
        self._thread.start()
        assert self._halted.wait(60)

    def finish(self) -> object:
        self._go.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.outcome


def outcome_of(call: Callable[[], object]) -> object:
    try:
        return call()
    except MaasError as error:
        return error


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[Callable[[], OnlineStage]]:
    made: list[OnlineStage] = []

    def make() -> OnlineStage:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(OnlineStage(folder))
        side_by_side(made[-1])
        return made[-1]

    yield make
    for each in made:
        each.world.runner.stop()


def requests_of(stage: OnlineStage, call: Callable[[AzuremlEndpoints], object]) -> int:
    serving, wire = stage.open()
    call(serving)
    return len(wire.sent)


def test_of_two_who_set_shares_at_once_none_is_overwritten(make_stage: Callable[[], OnlineStage]) -> None:
    """The shares in the end are of somebody who was told so, and who was undone was told of that."""
    mine, theirs = {"v1": 80, "v2": 20}, {"v1": 30, "v2": 70}
    undone = 0
    for boundary in range(requests_of(make_stage(), lambda serving: serving.traffic(REF, mine))):
        stage = make_stage()
        serving, wire = stage.open()
        other = Beside(stage, lambda serving: serving.traffic(REF, theirs))
        wire.at = lambda number, _, other=other, at=boundary: number == at and other.start()
        first, second = outcome_of(lambda: serving.traffic(REF, mine)), other.finish()  # noqa: B023
        stage.pass_time()
        told = [isinstance(each, ConflictError) for each in (first, second)]
        undone += any(told)
        if told == [False, False]:  # the first had ended when the second came
            assert boundary > wire.sent.index(next(text for text in wire.sent if text.startswith("PUT")))
        assert told != [True, True]
        assert stage.traffic() == ({V1: 80, V2: 20} if told[1] else {V1: 30, V2: 70}), boundary
        for each in (first, second):
            assert not isinstance(each, ConflictError) or "Somebody else changed the traffic" in str(each)
    assert undone >= 3


def test_a_lease_that_deploy_writes_meanwhile_stays(make_stage: Callable[[], OnlineStage]) -> None:
    """Its tags are set by a request of their own; only one that lands within a request could be undone."""
    shares = {"v1": 80, "v2": 20}
    for boundary in range(requests_of(make_stage(), lambda serving: serving.traffic(REF, shares))):
        stage = make_stage()
        serving, wire = stage.open()
        accepted: list[bool] = []

        def tag(stage: OnlineStage = stage, accepted: list[bool] = accepted) -> None:
            second, other = stage.open("second-home")
            other.at = lambda number, _: _stop_after_patch(number, other)
            with suppress(KilledError, ConflictError):
                second.deploy(stage.v2, wanted(ttl="2d"))
            accepted.append(stage.endpoint()["tags"]["maas-ttl"] == "2d")

        wire.at = lambda number, _, at=boundary, tag=tag: number == at and tag()
        first = outcome_of(lambda: serving.traffic(REF, shares))  # noqa: B023
        stage.pass_time()
        assert first == {V1: 80, V2: 20}, boundary
        if accepted[0] and not wire.sent[boundary].startswith("PUT"):
            assert stage.endpoint()["tags"]["maas-ttl"] == "2d", boundary
            assert stage.endpoint()["tags"]["maas-expires"]


def _stop_after_patch(number: int, wire: Boundaries) -> None:
    if number and wire.sent[number - 1].startswith("PATCH"):
        raise KilledError


def test_who_comes_while_azure_works_waits(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    stage.endpoint()["properties"]["provisioningState"] = "Updating"
    with pytest.raises(UnavailableError, match="still works on endpoint"):
        serving.traffic(REF, {"v1": 50, "v2": 50})
    assert stage.traffic() == {V1: 100}


def test_a_lost_answer_or_a_kill_leaves_the_old_shares_or_the_new_exactly_once(
    make_stage: Callable[[], OnlineStage],
) -> None:
    stage = make_stage()
    serving, wire = stage.open()
    serving.traffic(REF, {"v1": 80, "v2": 20})
    changed = wire.sent.index(next(text for text in wire.sent if text.startswith("PUT")))
    for boundary in range(changed - 1, changed + 3):
        for kind in ("lost", "killed"):
            stage = make_stage()
            serving, wire = stage.open()
            wire.lost = {boundary} if kind == "lost" else set()
            wire.at = _kill_at(boundary) if kind == "killed" else wire.at
            try:
                serving.traffic(REF, {"v1": 80, "v2": 20})
            except (KilledError, UnavailableError):
                stage.pass_time()
                stage.open()[0].traffic(REF, {"v1": 80, "v2": 20})
            assert stage.traffic() == {V1: 80, V2: 20}, (boundary, kind)


def _kill_at(boundary: int) -> Callable[[int, str], None]:
    def at(number: int, text: str) -> None:
        if number == boundary:
            raise KilledError

    return at


def test_refusals_are_told(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    stage.world.faults.order({"kind": "status", "status": 400, "match": "PUT .*/card-end$"})
    with pytest.raises(RejectedError):
        serving.traffic(REF, {"v1": 50, "v2": 50})
    stage.world.faults.order({"kind": "lro_fail", "match": "PUT .*/card-end$", "message": "No way."})
    serving.traffic(REF, {"v1": 50, "v2": 50})
    stage.world.store.delete(stage.endpoint()["id"])
    with pytest.raises(NotFoundError):
        serving.traffic(REF, {"v1": 50, "v2": 50})
