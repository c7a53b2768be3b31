"""What scoring a model gives: numbers, answers, and what each row contributes to the main metric."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scores:
    """Metrics by name, and the answer to each row ("" where none was asked for).

    `parts` holds for each row what the task's `combine` sums up to the main metric; `by_label` has a row of
    figures for each label, where the task has labels.
    """

    metrics: dict[str, float]
    answers: list[str]
    parts: list[list[float]] = field(default_factory=list)
    by_label: dict[str, dict[str, float]] = field(default_factory=dict)
