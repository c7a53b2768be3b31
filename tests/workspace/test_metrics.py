"""Metrics as events: each value once, those of a step together, whatever the pages are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.dashboard.progress import Progress, with_events
from maas_client.errors import UnavailableError, UsageError
from maas_client.run import Event
from maas_client.workspace.metrics import read_metrics
from tests.workspace.wired import NOW, Wired


def row(metric: str, step: int, value: Any, at: float) -> dict[str, Any]:
    moment = datetime.fromtimestamp(NOW + at, UTC)
    return {
        "metricId": f"{metric}-{step}",
        "createdUtc": f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
        "step": step,
        "data": {metric: value},
    }


def log(wired: Wired, metric: str, step: int, value: Any, at: float) -> None:
    wired.metrics.setdefault(metric, []).append(row(metric, step, value, at))


def read(wired: Wired, after: str | None = None, *, ended: bool = False) -> tuple[list[Event], str | None]:
    page = read_metrics(wired.workspace, "card-1", after, ended=ended)
    return list(page.events), page.next


def test_the_values_of_a_step_come_together_when_the_next_one_begins() -> None:
    wired = Wired()
    log(wired, "train_loss", 1, 2.5, 0.0)
    log(wired, "learning_rate", 1, 0.01, 0.1)
    wired.now = NOW + 1
    events, cursor = read(wired)
    assert events == []
    log(wired, "train_loss", 2, 2.25, 1.0)
    events, cursor = read(wired, cursor)
    assert events == [{"event": "step", "step": 1, "loss": 2.5, "learning_rate": 0.01, "time": NOW + 0.1}]
    log(wired, "learning_rate", 2, 0.02, 1.1)
    events, cursor = read(wired, cursor, ended=True)
    assert events == [{"event": "step", "step": 2, "loss": 2.25, "learning_rate": 0.02, "time": NOW + 1.1}]
    assert cursor is None


def test_the_newest_step_is_not_waited_for_for_ever() -> None:
    wired = Wired()
    log(wired, "loss", 1, 2.5, 0.0)
    wired.now = NOW + 60
    events, cursor = read(wired)
    assert [event["step"] for event in events] == [1]
    assert read(wired, cursor)[0] == []


def test_a_validation_is_an_event_of_its_own() -> None:
    wired = Wired()
    log(wired, "loss", 5, 2.5, 0.0)
    log(wired, "eval_loss", 5, 2.0, 0.1)
    log(wired, "grad_norm", 5, 1.0, 0.2)
    events, _ = read(wired, ended=True)
    assert [(event["event"], event["loss"]) for event in events] == [("step", 2.5), ("validation", 2.0)]
    assert events[0]["grad_norm"] == 1.0
    progress = with_events(Progress(), events)
    assert (progress.step, progress.loss, progress.validation) == (5, 2.5, (5, 2.0))


def test_steps_that_are_taken_again_are_given_again() -> None:
    wired = Wired()
    for at, step in enumerate([1, 2, 3, 2, 3, 4]):
        log(wired, "train_loss", step, float(at), float(at))
    events, _ = read(wired, ended=True)
    assert [(event["step"], event["loss"]) for event in events] == [
        (1, 0.0),
        (2, 1.0),
        (3, 2.0),
        (2, 3.0),
        (3, 4.0),
        (4, 5.0),
    ]


def test_a_name_of_ours_and_the_same_of_others_are_kept_apart() -> None:
    wired = Wired()
    log(wired, "loss", 3, 1.0, 0.0)
    log(wired, "train_loss", 3, 9.0, 0.5)
    assert read(wired, ended=True)[0] == [
        {"event": "step", "step": 3, "loss": 1.0, "train_loss": 9.0, "time": NOW + 0.5}
    ]


def test_tables_images_and_broken_rows_are_passed_over() -> None:
    wired = Wired()
    for value in ("aml://artifactId/x", None, True, [1], {"a": 1}):
        log(wired, "loss", 1, value, 0.0)
    wired.metrics["loss"] += [
        {"createdUtc": None, "step": 1, "data": {"loss": 1.0}},
        {"data": None, "createdUtc": ""},
    ]
    log(wired, "loss", 2, 1.5, 1.0)
    assert [event["step"] for event in read(wired, ended=True)[0]] == [2]


def test_a_run_that_reported_nothing_has_no_events() -> None:
    wired = Wired(trouble=lambda request: httpx.Response(404) if "/metric/" in request.url.path else None)
    events, cursor = read(wired)
    assert events == []
    assert cursor is not None
    assert read(wired, cursor, ended=True) == ([], None)


def test_names_in_the_services_other_form_are_read() -> None:
    wired = Wired()
    log(wired, "loss", 1, 2.5, 0.0)

    def older(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/list"):
            return httpx.Response(
                200, json={"Value": [{"metricKey": {"name": "loss"}}, {"name": None}, None]}
            )
        return None

    wired.trouble = older
    assert len(read(wired, ended=True)[0]) == 1


def test_only_what_is_new_is_asked_for() -> None:
    wired = Wired()
    for step in range(100):
        log(wired, "loss", step, 1.0, float(step))
    wired.now = NOW + 1000
    cursor = read(wired)[1]
    log(wired, "loss", 100, 1.0, 900.0)
    before = wired.count("/full")
    events, _ = read(wired, cursor)
    assert [event["step"] for event in events] == [100]
    assert wired.count("/full") == before + 1


@pytest.mark.parametrize("cursor", ["yesterday", "", "met1.", "met1.!!", "met1.bnVsbA", "log1.W10"])
def test_a_foreign_cursor_is_an_error(cursor: str) -> None:
    with pytest.raises(UsageError, match="not a cursor"):
        read(Wired(), cursor)


def test_the_cursor_of_another_run_is_an_error() -> None:
    cursor = read_metrics(Wired().workspace, "card-2", None, ended=False).next
    with pytest.raises(UsageError):
        read(Wired(), cursor)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=40),
    looks=st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 5, 60]), st.booleans()), max_size=12),
    page_size=st.integers(1, 60),
    same_time=st.booleans(),
)
def test_every_value_comes_once(
    steps: list[int], looks: list[tuple[int, int, bool]], page_size: int, same_time: bool
) -> None:
    """Values are reported in any rhythm, looked at in any other, and the service is away now and then."""
    wired, cursor, got = Wired(page_size=page_size), None, []
    reported = 0

    def report(count: int) -> None:
        nonlocal reported
        for _ in range(min(count, len(steps) - reported)):
            step, at = sum(steps[: reported + 1]), 0.0 if same_time else float(reported)
            log(wired, "loss", step, float(reported), at)
            log(wired, "lr", step, 0.5, at)
            reported += 1

    for count, seconds, away in looks:
        report(count)
        wired.now += seconds
        wired.trouble = (lambda _: httpx.Response(500)) if away else None
        try:
            events, cursor = read(wired, cursor)
        except UnavailableError:
            continue
        got += events
    report(len(steps))
    wired.trouble = None
    for _ in range(200):
        events, cursor = read(wired, cursor, ended=True)
        got += events
        if cursor is None:
            break
    assert sorted(event["loss"] for event in got if "loss" in event) == [float(n) for n in range(len(steps))]
    assert sum(1 for event in got if "learning_rate" in event) == len(steps)
    assert cursor is None


def test_a_metric_cannot_take_the_place_of_a_fact() -> None:
    wired = Wired()
    for name in ("step", "time", "event"):
        log(wired, name, 4, 77.0, 0.0)
    assert read(wired, ended=True)[0] == [
        {
            "event": "step",
            "step": 4,
            "time": NOW,
            "metric step": 77.0,
            "metric time": 77.0,
            "metric event": 77.0,
        }
    ]
