"""What a check found: the report, its numbers and how they are added up in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """A bad row: its line (1-based), the reason, and the short name under which such rows are counted."""

    line: int
    reason: str
    kind: str


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of the good rows. `source` says who counted, `error` how far it may be off ("" = exact).

    `supervised` counts the tokens that carry loss; None where they are only estimated.
    """

    source: str
    error: str
    total: int = 0
    minimum: int = 0
    mean: float = 0.0
    p50: int = 0
    p95: int = 0
    maximum: int = 0
    supervised: int | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Everything that `maas data check` says about a file.

    `bad_kinds` counts every bad row, `problems` holds the first of them. `over_long` counts good rows that
    are longer than `max_length` tokens and are cut in training; `duplicates` counts rows that repeat an
    earlier row, and `duplicate_lines` gives the first of them as (line, line of the first such row).
    """

    file: str
    size_bytes: int
    byte_order_mark: bool
    task: str
    format: str
    rows: int
    good: int
    bad: int
    roles: dict[str, int]
    tokens: TokenCounts
    max_length: int | None
    over_long: int
    over_long_lines: tuple[int, ...]
    duplicates: int
    duplicate_lines: tuple[tuple[int, int], ...]
    bad_kinds: dict[str, int]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return asdict(self)


@dataclass(slots=True)
class Histogram:
    """How often each whole number occurred; exact, and small however long the file is."""

    counts: Counter[int] = field(default_factory=Counter)

    def token_counts(self, source: str, error: str, supervised: int | None) -> TokenCounts:
        """The distribution of the numbers, percentiles by nearest rank."""
        if not self.counts:
            return TokenCounts(source, error, supervised=supervised)
        ordered = sorted(self.counts.items())
        rows = self.counts.total()
        total = sum(value * count for value, count in ordered)
        return TokenCounts(
            source=source,
            error=error,
            total=total,
            minimum=ordered[0][0],
            mean=round(total / rows, 1),
            p50=_percentile(ordered, rows, 50),
            p95=_percentile(ordered, rows, 95),
            maximum=ordered[-1][0],
            supervised=supervised,
        )


def _percentile(ordered: list[tuple[int, int]], rows: int, percent: int) -> int:
    rank = -(-rows * percent // 100)
    reached = 0
    for value, count in ordered:
        reached += count
        if reached >= rank:
            return value
    return ordered[-1][0]
