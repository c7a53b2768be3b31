"""What a run's events say about how far it is: a digest of fixed size, however many events there were."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from maas_client.dashboard.curve import Curve
from maas_client.dashboard.wording import describe, number, one_line, whole
from maas_client.run import Event

NOTES = 40
METRICS = 24
LARGEST_DRAWN = 1e30


@dataclass(frozen=True)
class Note:
    """An event worth telling, as one line. `at` is unix seconds, None where the event had no time."""

    at: float | None
    text: str


@dataclass
class Progress:
    """How far a run is and how it goes. Losses are per token in nats, `memory_bytes` as the run measured it.

    `at` is the unix time of the newest event, `eta_s` the seconds left as estimated then.
    """

    steps_total: int | None = None
    step: int = 0
    epoch: float | None = None
    epochs: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_s: float | None = None
    tokens_seen: float | None = None
    memory_bytes: float | None = None
    eta_s: float | None = None
    at: float | None = None
    is_finished: bool = False
    validation: tuple[int, float] | None = None
    losses: Curve = field(default_factory=Curve)
    validations: Curve = field(default_factory=Curve)
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def fraction(self) -> float | None:
        """Share of all steps that are done, 0 to 1; None while the number of steps is not known."""
        if self.is_finished:
            return 1.0
        return min(1.0, self.step / self.steps_total) if self.steps_total else None

    def eta_now_s(self, now: float) -> float | None:
        """Seconds left, counted down from the newest estimate; None where that is over or was never made."""
        if self.eta_s is None or self.is_finished:
            return None
        left = self.eta_s - max(0.0, now - (now if self.at is None else self.at))
        return left if left > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; a curve is a list of [step, value]."""
        names = (
            "steps_total",
            "step",
            "epoch",
            "epochs",
            "loss",
            "learning_rate",
            "grad_norm",
            "tokens_per_s",
        )
        more = ("tokens_seen", "memory_bytes", "eta_s", "is_finished", "fraction")
        return {
            **{name: _finite(getattr(self, name)) for name in (*names, *more)},
            "losses": [list(point) for point in self.losses.points],
            "validations": [list(point) for point in self.validations.points],
            "before": {name: _finite(value) for name, value in self.before.items()},
            "after": {name: _finite(value) for name, value in self.after.items()},
            "events": [{"time": note.at, "text": note.text} for note in self.notes],
        }


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def with_events(progress: Progress, events: Iterable[Event]) -> Progress:
    """The digest after more events; the given one is left as it is. Facts of a wrong type are passed over."""
    made = replace(progress, losses=progress.losses.copy(), validations=progress.validations.copy())
    for event in events:
        _take(made, event)
    return made


def _take(progress: Progress, event: Event) -> None:
    at = number(event, "time")
    at = at if at is not None and math.isfinite(at) else None
    progress.at = progress.at if at is None else at
    kind = event.get("event")
    if kind == "step":
        _take_step(progress, event)
        return
    if kind == "started":
        _take_start(progress, event)
    elif kind == "validation":
        _take_validation(progress, event)
    elif kind == "evaluation":
        _take_evaluation(progress, event)
    elif kind in ("finished", "stopped", "failed"):
        progress.is_finished = kind == "finished"
        progress.eta_s = None
    progress.notes = (*progress.notes, Note(at, describe(event)))[-NOTES:]


def _take_start(progress: Progress, event: Event) -> None:
    """A run starts, or goes on from a checkpoint: then what came after the checkpoint did not happen."""
    step = max(0, whole(event, "resumed_from_step") or 0)
    progress.steps_total = max(0, whole(event, "steps_total") or 0) or None
    progress.epochs = number(event, "epochs")
    progress.step = step
    progress.is_finished = False
    progress.eta_s = None
    progress.losses.rewind(step)
    progress.validations.rewind(step)
    if progress.validation is not None and progress.validation[0] > step:
        progress.validation = None


def _take_step(progress: Progress, event: Event) -> None:
    step = max(progress.step, whole(event, "step") or 0)
    progress.step = step
    for name in (
        "epoch",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens_per_s",
        "tokens_seen",
        "memory_bytes",
        "eta_s",
    ):
        value = number(event, name)
        if value is not None:
            setattr(progress, name, value)
    loss = number(event, "loss")
    if loss is not None and abs(loss) < LARGEST_DRAWN:
        progress.losses.add(step, loss)


def _take_validation(progress: Progress, event: Event) -> None:
    step, loss = whole(event, "step"), number(event, "loss")
    step = progress.step if step is None or step < 0 else step
    if loss is None:
        return
    progress.validation = (step, loss)
    if abs(loss) < LARGEST_DRAWN:
        progress.validations.add(step, loss)


def _take_evaluation(progress: Progress, event: Event) -> None:
    metrics = event.get("metrics")
    if not isinstance(metrics, Mapping):
        return
    found = {
        one_line(str(name)): value
        for name in list(metrics)[:METRICS]
        if (value := number(metrics, name)) is not None
    }
    if event.get("when") == "before":
        progress.before = found
    else:
        progress.after = found
