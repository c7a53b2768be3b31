"""What people see of a plan, of checks, of metrics and of a finished journey."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maas_client.cli.pages import Page, Table

if TYPE_CHECKING:
    from maas_client.check import Check
    from maas_client.journey import Journey
    from maas_client.plan import Plan

_LONGEST_DETAIL = 120
_MARKS = {True: "ok", False: "MISSING", None: "unknown"}


def plan_view(plan: Plan, checks: Sequence[Check] = ()) -> Page:
    """The run, its command, its cost, every step, what may go wrong, and what the service said."""
    steps = Table(
        {"": "left", "what": "left", "detail": "left"},
        [[step.verb, step.what, _shortened(step.detail)] for step in plan.steps],
    )
    lines = [
        f"run       {plan.run_id}",
        f"target    {plan.target}",
        *([f"command   {plan.job.command}"] if plan.job.command else []),
        f"cost      {plan.cost}",
        *(f"{heading:8}  {words}" for heading, words in (plan.estimate.lines() if plan.estimate else ())),
    ]
    answers: list[str | Table] = ["", checks_view(checks)] if checks else []
    return Page(*lines, "", steps, *(f"warning: {one}" for one in plan.warnings), *answers)


def checks_view(checks: Sequence[Check]) -> Table:
    """A row for each thing that was looked at: what was found, and what to try where it is not fine."""
    rows = [[_MARKS[one.ok], one.name, one.detail, "" if one.ok else one.hint] for one in checks]
    return Table({"": "left", "CHECK": "left", "FOUND": "left", "TRY": "left"}, rows)


def _shortened(detail: str) -> str:
    """A detail that fits a table; `-o json` has it whole."""
    return detail if len(detail) <= _LONGEST_DETAIL else f"{detail[: _LONGEST_DETAIL - 4]} ..."


def metrics_view(result: Mapping[str, Any]) -> Page:
    """Metrics side by side (before and after training, or those of one scoring), and how sure they are."""
    before, after = result.get("before") or {}, result.get("after") or result.get("metrics") or {}
    if before:
        rows = [[name, _number(before.get(name, "")), _number(after[name])] for name in after]
        table = Table({"METRIC": "left", "BEFORE": "right", "AFTER": "right"}, rows)
    else:
        table = Table({"METRIC": "left", "VALUE": "right"}, [[name, _number(after[name])] for name in after])
    warnings = [f"warning: {one}" for one in result.get("warnings") or ()]
    return Page(table, *_certainty(result), *warnings)


def _certainty(result: Mapping[str, Any]) -> Iterator[str]:
    """The range of the task's metric, or of its change, had other rows of the same kind been held out."""
    change, interval, metric = result.get("change"), result.get("interval"), result.get("metric")
    if change:
        by, low, high = (_signed(change[key]) for key in ("difference", "low", "high"))
        yield f"{metric} changed by {by} ({change['level']:.0%} interval: {low} to {high})"
    elif interval:
        value, low, high = (_number(interval[key]) for key in ("value", "low", "high"))
        yield f"{metric} {value} ({interval['level']:.0%} interval: {low} to {high})"


def journey_view(journey: Journey) -> Page:
    """The end of a journey: the measured improvement, the version, the endpoint and its answer."""
    parts: list[str | Table] = [f"Run {journey.run.id} succeeded."]
    if any(journey.result.get(key) for key in ("before", "after", "metrics")):
        parts += metrics_view(journey.result).parts
    if journey.model is not None:
        parts.append(f"Registered {journey.model.ref}")
    if journey.endpoint is not None:
        endpoint = journey.endpoint
        parts.append(f"Endpoint {endpoint.ref.name} is {endpoint.state} at {endpoint.url}")
    if journey.sample is not None and journey.answer is not None:
        parts.append(f"  asked      {journey.sample['prompt']}")
        parts.append(f"  answered   {journey.answer.text}")
        if expected := journey.sample.get("expected"):
            parts.append(f"  expected   {expected}")
    return Page(*parts)


def _signed(value: float) -> str:
    return ("-" if value < 0 else "+") + _number(abs(value))


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
