"""What is measured for each task: one table of tasks, their scoring and their main metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.evaluation import HeldOut, Scorer, Scores

TEXT_SAMPLES = 20  # continuations to show where nothing is measured on them


@dataclass(frozen=True)
class Task:
    """`metric` is the one number to look at, `direction` its better side; `score` measures all of them."""

    metric: str
    direction: Literal["max", "min"]
    score: Callable[[Scorer, Sequence[HeldOut]], Scores]


def _score_classification(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    answers = scorer.chosen_labels(rows)
    pairs = [(held.label or "", answer) for held, answer in zip(rows, answers, strict=True)]
    accuracy = sum(expected == answer for expected, answer in pairs) / len(pairs)
    return Scores({"accuracy": accuracy, "macro_f1": macro_f1(pairs), **scorer.losses(rows)}, answers)


def _score_chat(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    answers = scorer.answers(rows)
    asked = [(held.expected, answer) for held, answer in zip(rows, answers, strict=True) if held.expected]
    exact = sum(expected == answer for expected, answer in asked) / max(1, len(asked))
    return Scores({**scorer.losses(rows), "exact_match": exact}, answers)


def _score_text(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    shown = scorer.answers(rows[:TEXT_SAMPLES])
    return Scores(scorer.losses(rows), shown + [""] * (len(rows) - len(shown)))


TASKS = {
    "classification": Task("accuracy", "max", _score_classification),
    "chat": Task("perplexity", "min", _score_chat),
    "text-generation": Task("perplexity", "min", _score_text),
}


def macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    """The mean F1 of all labels that occur in (expected, answered) pairs."""
    labels = {label for pair in pairs for label in pair}
    return sum(_f1(pairs, label) for label in labels) / len(labels)


def _f1(pairs: Sequence[tuple[str, str]], label: str) -> float:
    hits = sum(expected == label == answer for expected, answer in pairs)
    found = sum((expected == label) + (answer == label) for expected, answer in pairs)
    return 2 * hits / found
