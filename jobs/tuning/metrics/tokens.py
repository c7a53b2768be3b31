"""Loss, perplexity and accuracy over tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuning.metrics.sums import LARGEST_LOSS


def token_metrics(rows: Sequence[Sequence[float]]) -> dict[str, float]:
    """Mean over all tokens of rows that each give (summed loss, tokens, tokens guessed right)."""
    loss, tokens, right = (math.fsum(column) for column in zip(*rows, strict=True))
    mean = loss / tokens
    return {
        "loss": mean,
        "perplexity": math.exp(min(mean, LARGEST_LOSS)),
        "token_accuracy": right / tokens,
    }
