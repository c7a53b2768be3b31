"""What a rehearsal concludes from the events of two runs: every way of going wrong is found and named."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.check import Check
from maas_client.verdict import Preemption, Verdict, judge

Events = list[dict[str, Any]]
ROWS, STEPS_AN_EPOCH = 6, 3


def run_of(steps: int, *, rows: int = ROWS, an_epoch: int = STEPS_AN_EPOCH, processes: int = 1) -> Events:
    """The events of a run left alone: each epoch takes all rows, in an order of its own."""
    events: Events = [
        {"event": "started", "processes": processes, "train_rows": rows, "resumed_from_step": 0}
    ]
    for step in range(1, steps + 1):
        epoch, place = divmod(step - 1, an_epoch)
        order = random.Random(epoch).sample(range(rows), rows)
        events.append(
            {
                "event": "step",
                "step": step,
                "epoch": round(step / an_epoch, 4),
                "loss": 3.0 / step,
                "rows": order[place::an_epoch],
            }
        )
    return events


def interrupted(straight: Events, losses: Sequence[tuple[int, int]]) -> tuple[Events, list[Preemption]]:
    """The same run where machines were lost after a step, and a checkpoint of an earlier one gone on from."""
    started, *steps = straight
    events: Events = [started]
    first = 0
    for reached, saved in losses:
        events += [*steps[first:reached], {**started, "resumed_from_step": saved}]
        first = saved
    told = [copy.deepcopy(event) for event in (*events, *steps[first:])]
    return told, [Preemption(reached, reached, saved, saved, 0.1) for reached, saved in losses]


def judged(straight: Events, other: Events, lost: list[Preemption], **more: Any) -> Verdict:
    return judge(straight, other, lost, **{"same_model": True, "grace_s": None, **more})


def failed(verdict: Verdict) -> Check:
    assert not verdict.is_proven
    (check,) = [check for check in verdict.checks if not check.ok]
    assert check.hint
    return check


@st.composite
def rehearsals(draw: st.DrawFn) -> tuple[Events, Events, list[Preemption]]:
    rows = draw(st.integers(1, 12))
    an_epoch = draw(st.integers(1, rows))
    straight = run_of(draw(st.integers(2, 20)), rows=rows, an_epoch=an_epoch)
    lost, saved = [], 0
    for reached in sorted(draw(st.sets(st.integers(1, len(straight) - 2), min_size=1, max_size=4))):
        saved = draw(st.integers(saved, reached))
        lost.append((reached, saved))
    return straight, *interrupted(straight, lost)


@settings(deadline=None)
@given(rehearsals())
def test_a_run_that_goes_on_from_its_checkpoints_is_proven(case: tuple[Any, Any, Any]) -> None:
    straight, other, lost = case
    verdict = judged(straight, other, lost)
    assert verdict.is_proven, verdict.checks
    assert [check.name for check in verdict.checks] == ["losses", "rows", "checkpoints", "model"]
    assert all(pair.difference == 0 for pair in verdict.pairs)
    assert sum(pair.times for pair in verdict.pairs) == sum(event["event"] == "step" for event in other)
    assert verdict.to_dict()["proven"]


@settings(deadline=None)
@given(rehearsals(), st.data())
def test_any_changed_loss_and_any_changed_row_is_found(
    case: tuple[Any, Any, Any], data: st.DataObject
) -> None:
    straight, other, lost = case
    step = data.draw(st.sampled_from([event for event in other if event["event"] == "step"]))
    if data.draw(st.booleans()):
        step["loss"] += 1e-12
        assert failed(judged(straight, other, lost)).name == "losses"
        return
    step["rows"] = step["rows"][1:]
    verdict = judged(straight, other, lost)
    counts = next(event for event in reversed(other) if event.get("step") == step["step"]) is step
    assert verdict.is_proven != counts  # of a step taken again, the last time counts
    assert not counts or failed(verdict).name == "rows"


@pytest.fixture
def straight() -> Events:
    return run_of(7)


def test_what_was_found_is_said_in_numbers(straight: Events) -> None:
    other, lost = interrupted(straight, [(3, 2), (6, 6)])
    found = {check.name: check.detail for check in judged(straight, other, lost).checks}
    assert found == {
        "losses": "7 steps equal to the last bit; 1 of them taken again",
        "rows": "no row was seen twice in an epoch; 2 whole epochs of 6 rows, none lost",
        "checkpoints": "each new machine went on from the declared output: step 2 (lost at 3), 6 (lost at 6)",
        "model": "both runs left the same model",
    }
    few = run_of(2)
    other, lost = interrupted(few, [(1, 0)])
    assert "not one whole epoch of 6 rows was trained" in judged(few, other, lost).checks[1].detail


def test_a_step_that_only_one_run_took(straight: Events) -> None:
    other, lost = interrupted(straight, [(3, 2)])
    check = failed(judged(straight, other[:-1], lost))
    assert (check.name, check.detail) == ("losses", "only one run took step 7")


def test_a_step_taken_again_with_another_loss(straight: Events) -> None:
    other, lost = interrupted(straight, [(3, 2)])
    next(event for event in other if event.get("step") == 3)["loss"] = 9.0
    assert failed(judged(straight, other, lost)).detail == "step 3, taken again, had another loss"


def test_a_loss_that_differs_is_shown_whole(straight: Events) -> None:
    other, lost = interrupted(straight, [(3, 2)])
    other[-1]["loss"] = 0.5
    assert failed(judged(straight, other, lost)).detail == (
        "step 7: 0.42857142857142855 left alone, 0.5 interrupted"
    )


@pytest.mark.parametrize(("difference", "is_proven"), [(9e-6, True), (1.1e-5, False)])
def test_sums_over_processes_may_round(difference: float, is_proven: bool) -> None:
    """So losses may differ by a little, and nothing is said of the models."""
    straight = run_of(7, processes=2)
    other, lost = interrupted(straight, [(3, 2)])
    other[-1]["loss"] += difference
    verdict = judged(straight, other, lost, same_model=False)
    assert verdict.is_proven == is_proven
    assert [check.name for check in verdict.checks] == ["losses", "rows", "checkpoints"]
    assert not is_proven or "equal to 1e-05 (largest difference 9e-06)" in verdict.checks[0].detail


def test_rows_that_both_runs_lose_or_see_twice(straight: Events) -> None:
    other, lost = interrupted(straight, [(3, 2)])
    for events in (straight, other):
        for event in (event for event in events if event.get("step") == 3):
            event["rows"] = event["rows"][:1]
    left = {row for event in straight[1:4] for row in event["rows"]}
    (gone,) = set(range(ROWS)) - left
    assert failed(judged(straight, other, lost)).detail == f"row {gone} was lost in epoch 1"
    for events in (straight, other):
        for event in (event for event in events if event.get("step") == 3):
            event["rows"] = events[1]["rows"]
    assert "was seen twice in epoch 1" in failed(judged(straight, other, lost)).detail


@pytest.mark.parametrize(
    ("preemption", "grace_s", "words"),
    [
        (Preemption(3, 3, 2, None, 0.1), None, "after the preemption at step 3 no machine went on"),
        (Preemption(3, 3, 2, 0, 0.1), None, "held a checkpoint of step 2, but step 0 was gone on from"),
        (
            Preemption(3, 4, 2, 2, 0.1),
            30.0,
            "asked to stop after step 4, the run kept a checkpoint of step 2",
        ),
    ],
)
def test_checkpoints_that_do_not_serve(
    straight: Events, preemption: Preemption, grace_s: float | None, words: str
) -> None:
    other, _ = interrupted(straight, [(3, 2)])
    check = failed(judged(straight, other, [preemption], grace_s=grace_s))
    assert check.name == "checkpoints"
    assert words in check.detail


@pytest.mark.parametrize(("seconds", "is_proven"), [(29.0, True), (31.0, False)])
def test_a_run_that_is_asked_must_end_in_time(straight: Events, seconds: float, is_proven: bool) -> None:
    other, _ = interrupted(straight, [(3, 3)])
    verdict = judged(straight, other, [Preemption(3, 3, 3, 3, seconds)], grace_s=30.0)
    assert verdict.is_proven == is_proven
    check = next(check for check in verdict.checks if check.name == "grace")
    assert check.detail == f"asked to stop, the run ended after {seconds:.1f} s; 30 s are given"


def test_another_model_is_found(straight: Events) -> None:
    other, lost = interrupted(straight, [(3, 2)])
    assert failed(judged(straight, other, lost, same_model=False)).detail == "the two models differ"
