"""What changes while runs go on, one line a change: for logs, pipes and continuous integration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from maas_client.dashboard.wording import amount, describe, duration, figure, number, one_line, whole
from maas_client.run import Event, RunState, RunStatus

_TOLD = {"started", "validation", "evaluation", "stopped"}


@dataclass
class _Told:
    """What was told of a run: its state, and how many tenths of its steps."""

    state: RunState | None = None
    steps_total: int | None = None
    tenths: int = 0


@dataclass
class LineLog:
    """Turns looks at runs into lines: each state, tenth of the steps, validation and evaluation once."""

    _runs: dict[str, _Told] = field(default_factory=dict)

    def lines(self, run_id: str, status: RunStatus, events: Sequence[Event]) -> list[str]:
        """The lines that a look is worth, without a line end; the final state comes after all events."""
        told = self._runs.setdefault(run_id, _Told())
        texts = [] if status.state.is_final else _new_state(told, status)
        for event in events:
            texts += _event(told, event)
        return [f"{run_id}: {text}" for text in texts]

    def end(self, run_id: str, status: RunStatus) -> list[str]:
        """The line with the final state, once."""
        return [f"{run_id}: {text}" for text in _new_state(self._runs.setdefault(run_id, _Told()), status)]


def _new_state(told: _Told, status: RunStatus) -> list[str]:
    if status.state is told.state:
        return []
    told.state = status.state
    reason = f" ({status.reason})" if status.reason else ""
    message = f": {one_line(status.message)}" if status.message else ""
    return [f"{status.state}{reason}{message}"]


def _event(told: _Told, event: Event) -> list[str]:
    kind = event.get("event")
    if kind == "step":
        return _step(told, event)
    if kind == "started":
        told.steps_total = whole(event, "steps_total")
        told.tenths = _tenths(whole(event, "resumed_from_step") or 0, told.steps_total)
    return [describe(event)] if kind in _TOLD else []


def _step(told: _Told, event: Event) -> list[str]:
    step = whole(event, "step") or 0
    tenths = _tenths(step, told.steps_total)
    if tenths <= told.tenths:
        return []
    told.tenths = tenths
    words = [f"{tenths * 10} %", f"step {step:,} of {told.steps_total:,}"]
    for name, text in (("loss", "loss {}"), ("tokens_per_s", "{} tokens/s"), ("eta_s", "ETA {}")):
        value = number(event, name)
        if value is not None and (value > 0 or name == "loss"):
            words.append(
                text.format({"loss": figure, "tokens_per_s": amount, "eta_s": duration}[name](value))
            )
    return [", ".join(words)]


def _tenths(step: int, steps_total: int | None) -> int:
    return min(10, 10 * step // steps_total) if steps_total and steps_total > 0 else 0
