"""F1 of named entities, by seqeval: right is only what has the right borders and the right label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuning.entities import Entity, MarkedText, to_tags


def span_scores(
    expected: Sequence[MarkedText], found: Sequence[Sequence[Entity]]
) -> tuple[dict[str, float], dict[str, dict[str, float]], list[list[float]]]:
    """(precision, recall and F1; the same by label; (right, found, expected) of each row).

    seqeval counts tags; a tag here is that of a character, so that no tokenization has a say.
    """
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as measure

    true, answered = [], []
    for marked, entities in zip(expected, found, strict=True):
        length = max([len(marked.text), *(entity.end for entity in entities)])
        true.append(to_tags(length, marked.entities))
        answered.append(to_tags(length, entities))
    precision, recall, f1, _ = measure(true, answered, average="micro", zero_division=0)
    scores = {"f1": float(f1), "precision": float(precision), "recall": float(recall)}
    pairs = [(set(get_entities(a)), set(get_entities(b))) for a, b in zip(true, answered, strict=True)]
    parts = [[float(len(a & b)), float(len(b)), float(len(a))] for a, b in pairs]
    labels = sorted({entity[0] for a, b in pairs for entity in a | b})
    return scores, _by_label(labels, measure, true, answered), parts


def _by_label(labels: Sequence[str], measure: Any, true: Any, answered: Any) -> dict[str, dict[str, float]]:
    if not labels:
        return {}
    columns = measure(true, answered, average=None, zero_division=0)
    names = ("precision", "recall", "f1", "entities")
    return {
        label: {name: float(value) for name, value in zip(names, values, strict=True)}
        for label, *values in zip(labels, *columns, strict=True)
    }
