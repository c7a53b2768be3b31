"""Accuracy and F1 of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Pairs = Sequence[tuple[str, str]]
"""(expected, answered) labels."""


def accuracy(pairs: Pairs) -> float:
    """The share of right answers."""
    return sum(expected == answer for expected, answer in pairs) / len(pairs)


def macro_f1(pairs: Pairs) -> float:
    """The mean F1 of all labels that occur."""
    table = label_table(pairs)
    return sum(row["f1"] for row in table.values()) / len(table)


def label_table(pairs: Pairs) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and expected rows of every label that occurs."""
    expected = Counter(pair[0] for pair in pairs)
    answered = Counter(pair[1] for pair in pairs)
    right = Counter(pair[0] for pair in pairs if pair[0] == pair[1])
    return {
        label: {
            "precision": right[label] / max(1, answered[label]),
            "recall": right[label] / max(1, expected[label]),
            "f1": 2 * right[label] / (expected[label] + answered[label]),
            "rows": expected[label],
        }
        for label in sorted(expected.keys() | answered.keys())
    }
