"""From the sums of what rows contribute to a metric: (draws, parts) tensors in, one number a draw out.

Written with the tensors' own arithmetic, so that nothing heavy loads with the table of tasks.
"""

from __future__ import annotations

from typing import Any

LARGEST_LOSS = 700.0  # beyond it exp() is no number


def share(sums: Any) -> Any:
    """(hits, rows): the share of hits, or the mean of what is summed up."""
    return sums[:, 0] / sums[:, 1]


def f1(sums: Any) -> Any:
    """(right, found, expected): F1 over all of them."""
    return 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]).clamp(min=1)


def perplexity(sums: Any) -> Any:
    """(loss, tokens, ...): the exponential of the mean loss of a token."""
    return (sums[:, 0] / sums[:, 1]).clamp(max=LARGEST_LOSS).exp()
