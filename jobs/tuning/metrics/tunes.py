"""How well generated tunes are formed: the share that can be read, and of their bars the full ones."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.metrics.abc_notation import read_tune


def tune_scores(tunes: Sequence[str], are_cut: Sequence[bool]) -> dict[str, float]:
    """`parsed`, and `full_bars`: bars within a part as long as the meter, over all of them (0 where none)."""
    read = [read_tune(tune, is_cut=is_cut) for tune, is_cut in zip(tunes, are_cut, strict=True)]
    parsed = [tune for tune in read if not tune.problem]
    bars = sum(tune.bars for tune in parsed)
    return {
        "parsed": len(parsed) / len(read),
        "full_bars": sum(tune.full_bars for tune in parsed) / max(1, bars),
    }
