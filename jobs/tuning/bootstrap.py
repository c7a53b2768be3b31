"""How sure a measured number is: bootstrap over the rows, paired where two models answered the same rows.

Rows are drawn anew many times with replacement; what a metric then ranges over is what other rows of the
same kind might have given. A metric is computed from sums over rows, so a draw is a product with a matrix of
counts, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tuning.scores import Scores
from tuning.tasks import Task

RESAMPLES = 2000
LEVEL = 0.95
_DRAWS_AT_ONCE = 1 << 22  # counts in memory at a time

Combine = Callable[[Any], Any]


def interval(task: Task, scores: Scores, seed: int) -> dict[str, float] | None:
    """{"value", "low", "high", "level"} of the task's metric; None without rows."""
    if not scores.parts:
        return None
    (parts,) = _tables(scores)
    drawn = [task.combine(counts @ parts) for counts in _draws(len(parts), seed)]
    return {"value": _whole(task.combine, parts), **_range(torch.cat(drawn))}


def paired_change(task: Task, before: Scores, after: Scores, seed: int) -> dict[str, float] | None:
    """{"difference", "low", "high", "level"}: after minus before, each draw taking both on the same rows.

    None where not both were measured.
    """
    if not before.parts or len(before.parts) != len(after.parts):
        return None
    first, second = _tables(before, after)
    drawn = [
        task.combine(counts @ second) - task.combine(counts @ first) for counts in _draws(len(first), seed)
    ]
    difference = _whole(task.combine, second) - _whole(task.combine, first)
    return {"difference": difference, **_range(torch.cat(drawn))}


def _tables(*scores: Scores) -> list[torch.Tensor]:
    return [torch.tensor(one.parts, dtype=torch.float64) for one in scores]


def _draws(rows: int, seed: int) -> Iterator[torch.Tensor]:
    """How often each row was drawn, (draws, rows), for RESAMPLES draws in blocks."""
    generator = torch.Generator().manual_seed(seed)
    left, most = RESAMPLES, max(1, _DRAWS_AT_ONCE // rows)
    while left:
        size = min(left, most)
        drawn = torch.randint(rows, (size, rows), generator=generator)
        yield torch.zeros(size, rows, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(1, dtype=torch.float64).expand(size, rows)
        )
        left -= size


def _range(values: torch.Tensor) -> dict[str, float]:
    """The middle part of the values that holds LEVEL of them."""
    tail = (1 - LEVEL) / 2
    low, high = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return {"low": low, "high": high, "level": LEVEL}


def _whole(combine: Combine, parts: torch.Tensor) -> float:
    return float(combine(parts.sum(0, keepdim=True)))


def summary(task: Task, before: Scores, after: Scores, seed: int) -> dict[str, Any]:
    """What a result says of a task's metric before and after: numbers, their difference, figures by label."""
    return {
        "metric": task.metric,
        "direction": task.direction,
        "before": before.metrics,
        "after": after.metrics,
        "change": paired_change(task, before, after, seed),
        "by_label": after.by_label,
    }
