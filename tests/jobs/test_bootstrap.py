"""Bootstrap intervals: as wide as theory says, paired, repeatable, and of every task's metric."""

from __future__ import annotations

import random

import pytest

from tuning.bootstrap import interval, paired_change
from tuning.scores import Scores
from tuning.tasks import TASKS

ACCURACY = TASKS["classification"]


def scores(parts: list[list[float]]) -> Scores:
    return Scores({}, [], parts)


def hits(rows: int, share: float, seed: int = 1) -> list[list[float]]:
    draw = random.Random(seed)
    return [[float(draw.random() < share), 1.0] for _ in range(rows)]


def test_the_interval_of_a_share_has_the_width_of_theory() -> None:
    found = interval(ACCURACY, scores(hits(400, 0.7)), seed=3)
    assert found is not None
    share = found["value"]
    half_width = 1.96 * (share * (1 - share) / 400) ** 0.5
    assert found["high"] - share == pytest.approx(half_width, rel=0.12)
    assert share - found["low"] == pytest.approx(half_width, rel=0.12)
    assert found["level"] == 0.95


def test_a_change_is_paired_row_by_row() -> None:
    before = hits(200, 0.5)
    after = [[max(hit, float(place < 20)), 1.0] for place, (hit, _) in enumerate(before)]
    paired = paired_change(ACCURACY, scores(before), scores(after), seed=3)
    shuffled = random.Random(5).sample(after, len(after))
    apart = paired_change(ACCURACY, scores(before), scores(shuffled), seed=3)
    assert paired is not None
    assert apart is not None
    assert paired["difference"] == pytest.approx(apart["difference"])
    assert paired["high"] - paired["low"] < 0.6 * (apart["high"] - apart["low"])
    assert paired["low"] > 0 > apart["low"]


def test_the_same_seed_gives_the_same_interval() -> None:
    draw = random.Random(2)
    parts, task = scores([[draw.random(), 1.0] for _ in range(50)]), TASKS["summarization"]
    assert interval(task, parts, seed=3) == interval(task, parts, seed=3)
    assert interval(task, parts, seed=3) != interval(task, parts, seed=4)


def test_nothing_changed_is_nothing() -> None:
    parts = scores(hits(50, 0.6))
    same = paired_change(ACCURACY, parts, parts, seed=3)
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0, "level": 0.95}


PARTS = {
    "perplexity": [[4.0, 2.0, 1.0], [9.0, 3.0, 1.0], [1.0, 5.0, 4.0]],
    "accuracy": [[1.0, 1.0], [0.0, 1.0]],
    "f1": [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [2.0, 2.0, 3.0]],
    "rouge_l": [[0.4, 1.0], [0.9, 1.0]],
}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_metric_has_an_interval_around_its_value(task: str) -> None:
    from tuning.metrics.translations import translation_scores

    translations = translation_scores(["a b c", "d e f"], ["a b x", "d e f"])[1]
    parts = PARTS["rouge_l"] if task == "qa" else PARTS.get(TASKS[task].metric, translations)
    found = interval(TASKS[task], scores(parts), seed=1)
    assert found is not None
    assert found["low"] <= found["value"] <= found["high"]


def test_without_rows_there_is_no_interval() -> None:
    assert interval(ACCURACY, scores([]), seed=1) is None
    assert paired_change(ACCURACY, scores([]), scores(hits(5, 0.5)), seed=1) is None
