"""The step events: how fast, how far, how long still; not so often that telling costs anything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from tuning.batches import Plan
from tuning.checkpoints import Progress
from tuning.device import memory_used_bytes
from tuning.distributed import Processes
from tuning.events import EventLog

SHORTEST_GAP_S = 0.2
SPIKE, USUAL_STEPS = 100.0, 20


class StepLog:
    """Writes step events: the first, the last, and every `every` steps, or if that is None every 0.2 s."""

    def __init__(self, events: EventLog, processes: Processes, plan: Plan, *, every: int | None) -> None:
        self.events, self.processes, self.plan, self.every = events, processes, plan, every
        self._written_at = 0.0
        self._seconds = self._tokens = 0.0  # since the last event
        self._steps_timed = 0
        self._seconds_timed = 0.0

    def add(self, progress: Progress, *, seconds: float, tokens: int, **facts: Any) -> None:
        """Take note of a finished step, and write an event if one is due."""
        self._seconds += seconds
        self._tokens += tokens
        self._steps_timed += 1
        self._seconds_timed += seconds
        if not self._is_due(progress.step):
            return
        self.events.write(
            "step",
            step=progress.step,
            epoch=round(progress.step / self.plan.steps_an_epoch, 4),
            **facts,
            tokens_per_s=round(self._tokens / max(self._seconds, 1e-9), 1),
            tokens_seen=progress.tokens_seen,
            memory_bytes=memory_used_bytes(self.processes.device),
            eta_s=round((self.plan.steps - progress.step) * self._seconds_timed / self._steps_timed, 1),
        )
        self._written_at = time.monotonic()
        self._seconds = self._tokens = 0.0

    def _is_due(self, step: int) -> bool:
        if step == self.plan.steps or self._steps_timed == 1:
            return True
        if self.every is not None:
            return step % self.every == 0
        return time.monotonic() - self._written_at >= SHORTEST_GAP_S


class Spikes:
    """Tells once when the gradient norm leaps far above what it was in the steps before."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell: Callable[[str], None] | None = tell
        self._norms: deque[float] = deque(maxlen=USUAL_STEPS)

    def look(self, step: int, norm: float) -> None:
        """Take note of a step's gradient norm."""
        usual = median(self._norms) if len(self._norms) == USUAL_STEPS else norm
        if self._tell and norm > SPIKE * usual:
            self._tell(
                f"The gradients explode: their norm is {norm:.4g} at step {step} and was {usual:.4g}. "
                "They are scaled down to training.max_grad_norm; lower training.learning_rate if that recurs."
            )
            self._tell = None
        self._norms.append(norm)
