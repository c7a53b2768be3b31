"""A deployment that is killed, loses answers or has company at any request ends as one that went well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from maas_client.endpoint import EndpointState, EndpointStatus
from maas_client.errors import ConflictError, MaasError, NotFoundError, UnavailableError
from maas_client.model import ModelRef
from tests.backends.azureml.online_stage import MOST_LOOKS, NAME, REF, OnlineStage, wanted
from tests.simulator.boundaries import Boundaries, KilledError

V1, V2 = "v1-fd3b", "v2-fd3b"
Start = Callable[[OnlineStage], None]


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[Callable[[], OnlineStage]]:
    """A new world each time: tests here try every request of a deployment."""
    made: list[OnlineStage] = []

    def make() -> OnlineStage:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(OnlineStage(folder))
        return made[-1]

    yield make
    for stage in made:
        stage.world.runner.stop()


def from_nothing(stage: OnlineStage) -> None:
    """Nothing is there; card:1 is deployed."""


def from_the_older_version(stage: OnlineStage) -> None:
    """card:0 is not there, card:1 serves; card:2 is deployed."""
    stage.ready(stage.v1)


def from_a_failure(stage: OnlineStage) -> None:
    """card:1 serves, and card:2 was tried and has failed."""
    stage.ready(stage.v1)
    stage.world.faults.order({"kind": "lro_fail", "match": f"PUT .*{V2}"})
    stage.drive(stage.open()[0], stage.v2)
    stage.world.faults.clear()


STARTS: dict[str, tuple[Start, str]] = {
    "from nothing": (from_nothing, "v1"),
    "from the older version": (from_the_older_version, "v2"),
    "from a failure": (from_a_failure, "v2"),
}


def guard(stage: OnlineStage, wire: Boundaries, *, serving: tuple[str, ...] = ("Succeeded",)) -> None:
    """Before each request: who serves goes on serving, and all traffic goes where it is answered."""
    inner = wire.at

    def at(number: int, text: str) -> None:
        for endpoint in stage.endpoints():
            shares = endpoint["properties"]["traffic"]
            states = {
                name: each["properties"]["provisioningState"] for name, each in stage.deployments().items()
            }
            assert sum(shares.values()) in ({100} if stage.served else {0, 100})
            assert all(states.get(name) in serving for name in shares), (shares, states, text)
        inner(number, text)

    wire.at = at


def require_one(stage: OnlineStage, model: ModelRef, status: EndpointStatus) -> None:
    """One endpoint, one deployment, all requests to it, and nothing else bills."""
    stage.pass_time()
    assert (status.state, status.model) == (EndpointState.READY, str(model)), status
    assert [each["name"] for each in stage.endpoints()] == [NAME]
    assert list(stage.deployments()) == [V1 if model.version == 1 else V2]
    assert stage.traffic() == dict.fromkeys(stage.deployments(), 100)
    before = hours_billed(stage)
    stage.pass_time(3600)
    assert hours_billed(stage) - before == pytest.approx(1, abs=0.05)


def hours_billed(stage: OnlineStage) -> float:
    return sum(line.quantity for line in stage.world.bill.lines() if NAME in line.what)


def begin(stage: OnlineStage, start: str) -> ModelRef:
    prepare, name = STARTS[start]
    prepare(stage)
    stage.served = start != "from nothing"
    model: ModelRef = getattr(stage, name)
    return model


def boundaries(stage: OnlineStage, start: str, *, every: bool) -> list[int]:
    """The requests of a deployment that goes well; those at and after a change where not `every`."""
    model = begin(stage, start)
    serving, wire = stage.open()
    guard(stage, wire)
    require_one(stage, model, stage.drive(serving, model))
    numbers = range(len(wire.sent))
    changing = [n for n in numbers if wire.sent[n].startswith(("PUT", "PATCH", "DELETE"))]
    assert len(changing) >= 3
    return [n for n in numbers if every or n in changing or n - 1 in changing]


EVERY = pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["at each change", "at each request"]
)


@EVERY
@pytest.mark.parametrize("start", STARTS)
def test_kill_9_at_any_request_and_the_same_command_again_is_deployed_exactly_once(
    make_stage: Callable[[], OnlineStage], start: str, every: bool
) -> None:
    for boundary in boundaries(make_stage(), start, every=every):
        stage = make_stage()
        model = begin(stage, start)
        serving, wire = stage.open()
        wire.at = kill_at(boundary)
        guard(stage, wire)
        with pytest.raises(KilledError):
            stage.drive(serving, model)
        second, wire = stage.open()
        guard(stage, wire)
        require_one(stage, model, stage.drive(second, model))


def kill_at(boundary: int) -> Callable[[int, str], None]:
    def at(number: int, text: str) -> None:
        if number == boundary:
            raise KilledError

    return at


@EVERY
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("killed", [False, True], ids=["lost", "lost and killed"])
def test_a_lost_answer_at_any_request_is_deployed_exactly_once(
    make_stage: Callable[[], OnlineStage], start: str, killed: bool, every: bool
) -> None:
    """The request was done, nobody heard of it; then the process goes on, or is killed."""
    for boundary in boundaries(make_stage(), start, every=every):
        stage = make_stage()
        model = begin(stage, start)
        serving, wire = stage.open()
        wire.lost = {boundary}
        if killed:
            wire.at = kill_at(boundary + 1)
        guard(stage, wire)
        try:
            status = stage.drive(serving, model)
        except KilledError:
            second, wire = stage.open()
            guard(stage, wire)
            status = stage.drive(second, model)
        require_one(stage, model, status)


@pytest.mark.parametrize("start", STARTS)
def test_every_answer_lost_in_turn_is_deployed_exactly_once(
    make_stage: Callable[[], OnlineStage], start: str
) -> None:
    """Half of all answers are lost."""
    stage = make_stage()
    model = begin(stage, start)
    serving, wire = stage.open()
    wire.lost = set(range(0, 1000, 2))
    guard(stage, wire)
    require_one(stage, model, stage.drive(serving, model))


@EVERY
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("whole", [False, True], ids=["a step", "the whole way"])
def test_two_terminals_at_once_deploy_exactly_once(
    make_stage: Callable[[], OnlineStage], start: str, whole: bool, every: bool
) -> None:
    """At each request of the first, the second does a step, or goes its whole way.

    In the latter case a deployment may be put a second time, as it is: Azure then changes it in place, one
    machine after the other, while it goes on answering.
    """
    for boundary in boundaries(make_stage(), start, every=every):
        stage = make_stage()
        model = begin(stage, start)
        serving, wire = stage.open()
        second, _ = stage.open("second-home")
        wire.at = company_at(boundary, lambda: stage.drive(second, model, until=_any(whole)))  # noqa: B023
        guard(stage, wire, serving=("Succeeded", "Updating") if whole else ("Succeeded",))
        require_one(stage, model, stage.drive(serving, model))
        require_one(stage, model, stage.drive(second, model))


def company_at(boundary: int, come: Callable[[], object]) -> Callable[[int, str], None]:
    def at(number: int, text: str) -> None:
        if number == boundary:
            come()

    return at


def _any(whole: bool) -> Callable[[EndpointStatus], bool]:
    return lambda status: not whole or status.state is not EndpointState.STARTING


@pytest.mark.parametrize("start", STARTS)
def test_two_terminals_step_by_step_deploy_exactly_once(
    make_stage: Callable[[], OnlineStage], start: str
) -> None:
    """Before every request of the first comes a whole call of the second."""
    stage = make_stage()
    model = begin(stage, start)
    serving, wire = stage.open()
    second, _ = stage.open("second-home")
    wire.at = lambda _number, _text: second.deploy(model, wanted())
    guard(stage, wire)
    require_one(stage, model, stage.drive(serving, model))


def test_of_two_terminals_that_want_different_versions_one_is_told(
    make_stage: Callable[[], OnlineStage],
) -> None:
    """They do not undo each other for ever: who finds another's wish in place of its own stops."""
    for first_steps in range(8):
        stage = make_stage()
        one, two = stage.open()[0], stage.open("second-home")[0]
        for _ in range(first_steps):
            one.deploy(stage.v1, wanted())
            stage.pass_time()
        told: list[MaasError] = []
        ends: list[EndpointStatus] = []
        for _ in range(MOST_LOOKS):
            for serving, model in ((two, stage.v2), (one, stage.v1)):
                try:
                    ends.append(serving.deploy(model, wanted()))
                except ConflictError as error:
                    told.append(error)
                    break
            if told:
                break
            stage.pass_time()
        assert len(told) == 1, first_steps
        assert "by somebody else now" in told[0].message
        loser = model
        winner, serving = (stage.v2, two) if loser == stage.v1 else (stage.v1, one)
        require_one(stage, winner, stage.drive(serving, winner))


def test_deleted_by_another_terminal_it_is_told_or_made_anew_exactly_once(
    make_stage: Callable[[], OnlineStage],
) -> None:
    for boundary in boundaries(make_stage(), "from nothing", every=False):
        stage = make_stage()
        serving, wire = stage.open()
        second, _ = stage.open("second-home")

        def delete() -> None:
            with suppress(NotFoundError, ConflictError):
                second.delete(REF)  # noqa: B023

        wire.at = company_at(boundary, delete)
        with suppress(NotFoundError, ConflictError, UnavailableError):
            stage.drive(serving, stage.v1)
        stage.pass_time()
        require_one(stage, stage.v1, stage.drive(stage.open()[0], stage.v1))
