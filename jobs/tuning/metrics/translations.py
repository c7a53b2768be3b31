"""chrF and BLEU of translations, by sacrebleu, on its scale of 0 to 100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def translation_scores(
    expected: Sequence[str], answers: Sequence[str]
) -> tuple[dict[str, float], list[list[float]]]:
    """(chrF and BLEU over all rows; what each row contributes to chrF)."""
    from sacrebleu.metrics import BLEU, CHRF

    metrics = {
        "chrf": CHRF().corpus_score(answers, [expected]).score,
        "bleu": BLEU(force=True).corpus_score(answers, [expected]).score,  # force: tokenized text is fine
    }
    counts = CHRF()._extract_corpus_statistics(answers, [expected])
    return metrics, [[float(count) for count in row] for row in counts]


def chrf(sums: Any) -> Any:
    """chrF from sums of the rows' contributions, (draws, parts) -> (draws,)."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    return sums.new_tensor([metric._compute_score_from_stats(row).score for row in sums.long().tolist()])
