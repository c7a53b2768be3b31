"""Held-out rows that were trained on: what is measured on them is memory, not skill."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuning.chatrows import Example
from tuning.rows import Row

LINES = 5  # examples to name
_STOPS = re.compile(r"[\s.,;:!?'\"()\[\]]+")


@dataclass(frozen=True)
class Contamination:
    """Held-out rows that repeat a training row: word for word, or in all but case, blanks and punctuation.

    `held_out` is the number of held-out rows; `lines` names the first (held-out line, training line).
    """

    exact: int = 0
    normalized: int = 0
    held_out: int = 0
    lines: tuple[tuple[int, int], ...] = ()

    @property
    def rows(self) -> int:
        """All that repeat a training row."""
        return self.exact + self.normalized

    @property
    def is_total(self) -> bool:
        """Whether nothing is left to measure on."""
        return bool(self.held_out) and self.rows == self.held_out

    def sentence(self) -> str:
        """The finding in words."""
        pairs = ", ".join(f"{held} = {train}" for held, train in self.lines)
        return (
            f"{self.rows} of {self.held_out} held-out rows are among the training rows too "
            f"({self.exact} word for word; lines {pairs}): what is measured on them says little."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)


def find_repeats(train: Sequence[Row], held_out: Sequence[Row]) -> Contamination:
    """Look for the held-out rows among the training rows."""
    exact, loose = _by_text(train, _whole_text), _by_text(train, _loose_text)
    pairs: list[tuple[int, int]] = []
    counts = {"exact": 0, "normalized": 0}
    for row in held_out:
        place = exact.get(_whole_text(row.example))
        kind = "exact" if place is not None else "normalized"
        if place is None:
            place = loose.get(_loose_text(row.example))
        if place is not None:
            counts[kind] += 1
            pairs.append((row.line, place))
    return Contamination(held_out=len(held_out), lines=tuple(pairs[:LINES]), **counts)


def _by_text(rows: Sequence[Row], text_of: Callable[[Example], int]) -> dict[int, int]:
    """The first line of each text, by its hash."""
    lines: dict[int, int] = {}
    for row in rows:
        lines.setdefault(text_of(row.example), row.line)
    return lines


def _whole_text(example: Example) -> int:
    """The hash of all that a row says; the weight of a turn does not matter."""
    turns = [(turn.role, turn.content, turn.tool_calls) for turn in example.messages]
    return hash(json.dumps([example.text, turns, example.tools]))


def _loose_text(example: Example) -> int:
    """The hash of a row's texts without their case, blanks and stops; tool calls stay as they are."""
    words = [_STOPS.sub(" ", part.casefold()).strip() or part for part in _texts(example)]
    calls = [turn.tool_calls for turn in example.messages if turn.tool_calls]
    return hash(json.dumps([words, calls]))


def _texts(example: Example) -> list[str]:
    return [example.text] if example.text is not None else [turn.content for turn in example.messages]
