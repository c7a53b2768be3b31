"""Following: each line and event once, through pages and failures; and waiting for endpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import (
    AccessDeniedError,
    NotFoundError,
    ServiceError,
    StillRunningError,
    UnavailableError,
)
from maas_client.following import Sight, follow, pause_s, wait_until_ready
from maas_client.run import LogPage, RunRef, RunState
from tests.dashboard.stage import Doors, Part, Play, Stage, set_up

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


def service_run(stage: Stage, state: RunState = RunState.RUNNING, *, lines: int = 0) -> tuple[RunRef, Part]:
    """A run of a service: the same, under another backend's name."""
    ref, part = run(stage, state, lines=lines)
    return replace(ref, backend="azureml"), part


def test_a_service_is_asked_less_often_while_nothing_happens(stage: Stage, watch: Watch) -> None:
    ref, part = service_run(stage, lines=1)
    watch.when = {30: lambda: part.lines.append("news"), 33: lambda: part.becomes(RunState.SUCCEEDED)}
    sights = list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert read(sights)[0] == ["line 0", "news"]
    assert watch.slept[:2] == [3.0, 3.0 * 1.3]
    assert watch.slept[29] == 15.0
    assert watch.slept[30] == 3.0
    assert watch.slept == [pause_s("azureml", quiet) for quiet in [*range(30), 0, 1, 2]]
    assert pause_s("local", 1000) == 0.5


def test_a_service_may_be_away_for_an_hour(stage: Stage, watch: Watch) -> None:
    ref, part = service_run(stage, lines=2)
    part.failures = 1_000_000

    def back() -> None:
        if watch.now > 3500 and part.failures:
            part.failures = 0
            part.becomes(RunState.SUCCEEDED)

    watch.when = dict.fromkeys(range(1, 1000), back)
    sights = list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert read(sights)[0] == ["line 0", "line 1"]
    part.failures = 1_000_000
    watch.now, watch.when, watch.slept = 0.0, {}, []
    with pytest.raises(UnavailableError):
        list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert 3600 <= watch.now < 3700


class Refusing(Part):
    """A run that may not be looked at for a while."""

    refusals = 0

    def call(self, name: str) -> None:
        super().call(name)
        if self.refusals:
            self.refusals -= 1
            raise AccessDeniedError("No.")


@pytest.mark.parametrize(("refusals", "goes_on"), [(4, True), (5, False)])
def test_a_watch_that_went_well_outlasts_some_refusals(
    stage: Stage, watch: Watch, refusals: int, goes_on: bool
) -> None:
    ref, part = service_run(stage, lines=1)
    refusing = Refusing(part.status, part.lines, part.events)
    stage.play.parts[ref.id] = refusing
    watch.when = {
        2: lambda: setattr(refusing, "refusals", refusals),
        7: lambda: refusing.becomes(RunState.SUCCEEDED),
    }
    looks = follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock)
    if goes_on:
        assert list(looks)[-1].status.state is RunState.SUCCEEDED
    else:
        with pytest.raises(AccessDeniedError):
            list(looks)


def test_a_watch_that_is_refused_at_once_ends_at_once(stage: Stage, watch: Watch) -> None:
    ref, part = service_run(stage)
    refusing = Refusing(part.status)
    refusing.refusals = 1
    stage.play.parts[ref.id] = refusing
    with pytest.raises(AccessDeniedError):
        list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert watch.slept == []


def test_a_service_that_asks_for_time_gets_it(stage: Stage, watch: Watch) -> None:
    ref, part = service_run(stage, RunState.SUCCEEDED)
    asked = iter([40.0, 7200.0])

    class Busy(Part):
        def call(self, name: str) -> None:
            wait_s = next(asked, None)
            if wait_s is not None:
                busy = UnavailableError("Too many requests.")
                busy.retry_after_s = wait_s
                raise busy

    stage.play.parts[ref.id] = Busy(part.status)
    list(follow(stage.play, ref, sleep=watch.sleep, clock=watch.clock))
    assert watch.slept == [40.0, 60.0]


def test_a_time_limit_holds_while_the_service_is_away(stage: Stage, watch: Watch) -> None:
    ref, part = service_run(stage)
    part.failures = 1_000_000
    with pytest.raises(UnavailableError):
        list(follow(stage.play, ref, timeout_s=60.0, sleep=watch.sleep, clock=watch.clock))
    assert watch.now < 100


def test_an_ended_run_whose_log_is_late_is_not_asked_without_a_pause(stage: Stage, watch: Watch) -> None:
    ref, part = service_run(stage, RunState.SUCCEEDED, lines=1)
    pages = iter([LogPage((), "0"), LogPage((), "0"), LogPage(("line 0",), None)])

    class Late(Play):
        def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
            return next(pages)

    sights = list(follow(Late(parts={ref.id: part}), ref, sleep=watch.sleep, clock=watch.clock))
    assert read(sights)[0] == ["line 0"]
    assert len(watch.slept) == 2


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
