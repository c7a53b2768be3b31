"""Following: each line and event once, through pages and failures; and waiting for endpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import NotFoundError, ServiceError, StillRunningError, UnavailableError
from maas_client.following import Sight, follow, wait_until_ready
from maas_client.run import RunRef, RunState
from tests.dashboard.stage import Doors, Part, Stage, set_up

REF = EndpointRef("local", "card")


class Watch:
    """A clock that only sleeping moves; `when` maps the n-th sleep to what then happens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.when: dict[int, object] = {}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        happens = self.when.get(len(self.slept))
        if callable(happens):
            happens()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return set_up(tmp_path)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def run(
    stage: Stage, state: RunState = RunState.RUNNING, *, lines: int = 0, events: int = 0
) -> tuple[RunRef, Part]:
    record = stage.add("card", state)
    part = stage.play.parts[record.id]
    part.lines = [f"line {number}" for number in range(lines)]
    part.events = [{"event": "step", "step": number} for number in range(events)]
    return record.ref, part


def read(sights: list[Sight]) -> tuple[list[str], list[int]]:
    return [line for one in sights for line in one.lines], [
        event["step"] for one in sights for event in one.events
    ]


def test_a_finished_run_is_drained_page_by_page_without_sleeping(stage: Stage, watch: Watch) -> None:
    stage.play.page_size = 3
    ref, _ = run(stage, RunState.SUCCEEDED, lines=8, events=5)
    sights = list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert read(sights) == ([f"line {number}" for number in range(8)], list(range(5)))
    assert watch.slept == []
    assert sights[-1].status.state is RunState.SUCCEEDED


def test_lines_that_come_later_come_once_and_the_last_words_are_not_lost(stage: Stage, watch: Watch) -> None:
    ref, part = run(stage, lines=2)

    def end() -> None:
        part.lines += ["late", "last"]
        part.becomes(RunState.FAILED)

    watch.when = {1: lambda: part.lines.append("more"), 3: end}
    sights = list(follow(stage.play, ref, poll_s=2.0, sleep=watch.sleep, clock=watch.clock))
    assert read(sights)[0] == ["line 0", "line 1", "more", "late", "last"]
    assert [sight.lines for sight in sights] == [("line 0", "line 1"), ("more",), (), ("late", "last")]
    assert watch.slept == [2.0, 2.0, 2.0]
    assert sights[-1].status.state is RunState.FAILED


@pytest.mark.parametrize("failing_call", range(1, 7))
def test_a_failure_at_any_call_loses_and_repeats_nothing(
    stage: Stage, watch: Watch, failing_call: int
) -> None:
    stage.play.page_size = 2
    ref, part = run(stage, RunState.SUCCEEDED, lines=4, events=4)
    call, made = part.call, 0

    class Flaky(Part):
        def call(self, name: str) -> None:
            nonlocal made
            made += 1
            if made == failing_call:
                raise UnavailableError("away")
            call(name)

    stage.play.parts[ref.id] = Flaky(part.status, part.lines, part.events)
    sights = list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert read(sights) == ([f"line {number}" for number in range(4)], list(range(4)))
    assert len(watch.slept) == 1


def test_a_service_that_stays_away_is_given_up_after_20_looks(stage: Stage, watch: Watch) -> None:
    ref, part = run(stage)
    part.failures = 1000
    with pytest.raises(UnavailableError):
        list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert part.calls == ["status"] * 20
    assert len(watch.slept) == 19


def test_failures_are_counted_in_a_row(stage: Stage, watch: Watch) -> None:
    ref, part = run(stage, lines=1)
    part.failures = 19

    def away_again() -> None:
        part.failures = 19

    watch.when = {20: away_again, 41: lambda: part.becomes(RunState.SUCCEEDED)}
    sights = list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert sights[-1].status.state is RunState.SUCCEEDED
    assert read(sights)[0] == ["line 0"]


def test_a_run_that_takes_too_long_is_still_running(stage: Stage, watch: Watch) -> None:
    ref, _ = run(stage, lines=1)
    sights: list[Sight] = []
    looks = follow(stage.play, ref, poll_s=1.0, timeout_s=3.0, sleep=watch.sleep, clock=watch.clock)
    with pytest.raises(StillRunningError, match="running after 3 s") as caught:
        sights.extend(looks)
    assert read(sights)[0] == ["line 0"]
    assert watch.slept == [1.0, 1.0, 1.0]
    assert caught.value.hint == f"maas watch {ref.id}"


def test_a_run_that_stays_unknown_is_given_up_after_20_looks(stage: Stage, watch: Watch) -> None:
    ref, part = run(stage, lines=1)
    part.becomes(RunState.UNKNOWN)
    part.status = replace(part.status, message="job.json cannot be read.")
    with pytest.raises(ServiceError, match=r"cannot be learned: job\.json cannot be read\.$") as caught:
        list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert part.calls.count("status") == 20
    assert ref.id in caught.value.hint


def test_an_unknown_run_is_not_tried_again(stage: Stage, watch: Watch) -> None:
    with pytest.raises(NotFoundError):
        list(follow(stage.play, RunRef("local", "nobody-1"), sleep=watch.sleep, clock=watch.clock))
    assert watch.slept == []


def doors(state: EndpointState, message: str = "") -> Doors:
    return Doors((EndpointStatus(REF, state, state.value, 0.0, "card:1", Billing.FREE, message=message),))


def test_an_endpoint_is_waited_for(watch: Watch) -> None:
    served = doors(EndpointState.STARTING)

    def ready() -> None:
        served.statuses = (replace(served.statuses[0], state=EndpointState.READY),)

    watch.when = {3: ready}
    status = wait_until_ready(served, REF, poll_s=1.0, sleep=watch.sleep, clock=watch.clock)
    assert status.state is EndpointState.READY
    assert watch.slept == [1.0, 1.0, 1.0]


def test_an_endpoint_that_failed_says_why(watch: Watch) -> None:
    with pytest.raises(ServiceError, match=r"Endpoint card is failed: No memory\.") as caught:
        wait_until_ready(doors(EndpointState.FAILED, "No memory."), REF, sleep=watch.sleep, clock=watch.clock)
    assert "maas endpoints delete card" in caught.value.hint
    assert watch.slept == []


def test_an_endpoint_that_never_answers_is_still_starting(watch: Watch) -> None:
    with pytest.raises(StillRunningError, match="not ready after 5 s"):
        wait_until_ready(
            doors(EndpointState.STARTING),
            REF,
            timeout_s=5.0,
            poll_s=1.0,
            sleep=watch.sleep,
            clock=watch.clock,
        )
    assert watch.slept == [1.0] * 5


def test_a_deployment_of_several_steps_goes_on_until_its_model_answers(watch: Watch) -> None:
    served = doors(EndpointState.STARTING)
    asked: list[str] = []
    told: list[EndpointState] = []

    def go_on() -> EndpointStatus:
        asked.append("deploy")
        return served.statuses[0]

    def becomes(model: str) -> None:
        served.statuses = (replace(served.statuses[0], state=EndpointState.READY, model=model),)

    watch.when = {2: lambda: becomes("card:2")}
    status = wait_until_ready(
        served,
        REF,
        go_on=go_on,
        model="card:2",
        watch=lambda one: told.append(one.state),
        poll_s=1.0,
        sleep=watch.sleep,
        clock=watch.clock,
    )
    assert status.model == "card:2"
    assert asked == ["deploy"] * 3
    assert told == [EndpointState.STARTING, EndpointState.STARTING, EndpointState.READY]
    with pytest.raises(ServiceError, match=r"Endpoint card still serves card:2, not card:3\.$"):
        wait_until_ready(served, REF, model="card:3", sleep=watch.sleep, clock=watch.clock)


def test_an_endpoint_whose_service_is_away_is_looked_at_20_times(watch: Watch) -> None:
    def away() -> EndpointStatus:
        raise UnavailableError("Away.")

    with pytest.raises(UnavailableError):
        wait_until_ready(
            doors(EndpointState.READY), REF, go_on=away, poll_s=1.0, sleep=watch.sleep, clock=watch.clock
        )
    assert watch.slept == [1.0] * 19


def test_an_endpoint_that_stays_unknown_is_given_up(watch: Watch) -> None:
    with pytest.raises(ServiceError, match="Endpoint card is unknown: no word"):
        wait_until_ready(
            doors(EndpointState.UNKNOWN, "no word"), REF, poll_s=1.0, sleep=watch.sleep, clock=watch.clock
        )
    assert watch.slept == [1.0] * 19
