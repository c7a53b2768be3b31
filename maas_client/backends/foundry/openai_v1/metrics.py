"""Metrics of a job as events: from what it tells while it trains, and from its results file in the end."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maas_client.backends.foundry.openai_v1.wire import Job, JobEvent
from maas_client.run import Event, RunState
from maas_client.transport.members import as_number

_MESSAGE = re.compile(
    r"step (?P<step>\d+)(?:/(?P<total>\d+))?:.*?training loss=(?P<train>-?[\d.]+(?:e-?\d+)?)"
    r"(?:.*?validation loss=(?P<valid>-?[\d.]+(?:e-?\d+)?))?",
    re.IGNORECASE,
)
_EXTRA = {
    "train_mean_token_accuracy": "token_accuracy",
    "train_accuracy": "token_accuracy",
}
_VALID_LOSSES = ("full_valid_loss", "valid_loss")
_VALID_ACCURACIES = ("full_valid_mean_token_accuracy", "valid_mean_token_accuracy", "valid_accuracy")


@dataclass
class Given:
    """How far metrics were given: the last step with a training loss, and the last that was validated."""

    step: int = -1
    validated: int = -1
    started: bool = False

    def to_list(self) -> list[Any]:
        """JSON-ready data."""
        return [self.step, self.validated, self.started]


def metrics_of(event: JobEvent) -> Mapping[str, Any]:
    """The metrics in an event: its data, or what its message says."""
    if "step" in event.data:
        return event.data
    found = _MESSAGE.search(event.message)
    if found is None:
        return {}
    named = {
        "step": found["step"],
        "total_steps": found["total"],
        "train_loss": found["train"],
        "valid_loss": found["valid"],
    }
    return {name: value for name, value in named.items() if value is not None}


def events_of(metrics: Mapping[str, Any], at: float, given: Given) -> Iterator[Event]:
    """One step's metrics as events; `given` goes on with them. What was given already is left out."""
    step = as_number(metrics.get("step"))
    if step is None:
        return
    number = int(step)
    if not given.started:
        given.started = True
        total = as_number(metrics.get("total_steps"))
        yield {"event": "started", "time": at, **({"steps_total": int(total)} if total else {})}
    loss = _first(metrics, ("train_loss",))
    if loss is not None and number > given.step:
        given.step = number
        more = {
            ours: value
            for name, ours in _EXTRA.items()
            if (value := as_number(metrics.get(name))) is not None
        }
        yield {"event": "step", "time": at, "step": number, "loss": loss, **more}
    held_out = _first(metrics, _VALID_LOSSES)
    if held_out is not None and number > given.validated:
        given.validated = number
        accuracy = _first(metrics, _VALID_ACCURACIES)
        more = {} if accuracy is None else {"token_accuracy": accuracy}
        yield {"event": "validation", "time": at, "step": number, "loss": held_out, **more}


def end_of(job: Job, given: Given, seen_at: float) -> Iterator[Event]:
    """The event that ends a run."""
    at = job.finished_at if job.finished_at and job.finished_at >= job.created_at else seen_at
    steps = {"steps": given.step} if given.step > 0 else {}
    if job.state is RunState.SUCCEEDED:
        yield {"event": "finished", "time": at, **steps}
    elif job.state is RunState.FAILED:
        yield {"event": "failed", "time": at, "message": job.error_message or job.error_code}
    elif job.state is RunState.CANCELED:
        yield {"event": "stopped", "time": at, "reason": "a pause" if job.is_paused else "a cancel", **steps}


def read_rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of results.csv, by step; columns without a number are left out."""
    text = content.decode("utf-8-sig", errors="replace")
    rows = []
    for row in csv.DictReader(io.StringIO(text)):
        found = {name: value for name, text in row.items() if name and (value := as_number(text)) is not None}
        if "step" in found:
            rows.append(found)
    return sorted(rows, key=lambda each: each["step"])


def last_values(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The last value of each metric that is worth telling."""
    found: dict[str, float] = {}
    for row in rows:
        for ours, names in (
            ("train_loss", ("train_loss",)),
            ("loss", _VALID_LOSSES),
            ("token_accuracy", _VALID_ACCURACIES),
        ):
            if (value := _first(row, names)) is not None:
                found[ours] = value
    return found


def _first(metrics: Mapping[str, Any], names: Iterable[str]) -> float | None:
    """The first of some metrics that was measured: losses and accuracies are never below 0."""
    values = (as_number(metrics.get(name)) for name in names)
    return next((value for value in values if value is not None and value >= 0), None)
