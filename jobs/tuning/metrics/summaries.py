"""ROUGE of summaries, by rouge-score: F-measures of shared words, word pairs and the longest common run."""

from __future__ import annotations

import re
from collections.abc import Sequence

KINDS = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rouge_l"}


class Words:
    """Words of any script in lower case; the library's own tokenizer drops every letter beyond a to z."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return re.findall(r"[^\W_]+", text.lower())


def summary_scores(
    expected: Sequence[str], answers: Sequence[str]
) -> tuple[dict[str, float], list[list[float]]]:
    """(mean ROUGE-L, ROUGE-1 and ROUGE-2; (ROUGE-L, 1) of each row)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(KINDS), tokenizer=Words())
    scores = [scorer.score(true, answer) for true, answer in zip(expected, answers, strict=True)]
    means = {
        name: sum(score[kind].fmeasure for score in scores) / len(scores) for kind, name in KINDS.items()
    }
    return dict(sorted(means.items(), reverse=True)), [[score["rougeL"].fmeasure, 1.0] for score in scores]
