"""Curves as characters: braille dots where the terminal shows them, else asterisks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[int, float]
LOGARITHMIC_FROM = 20.0
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


@dataclass(frozen=True)
class Chart:
    """A drawn curve: equally long lines, top to bottom, the (line, column) of each mark, and the range."""

    lines: tuple[str, ...]
    marks: frozenset[tuple[int, int]]
    low: float
    high: float
    first: int
    last: int
    is_logarithmic: bool


def draw(
    points: Sequence[Point], marked: Sequence[Point], width: int, height: int, *, braille: bool, mark: str
) -> Chart | None:
    """Draw `points` as a line and `marked` as marks into width x height cells; None where there is nothing.

    Both share their axes; the values are spread by their logarithms where the highest is 20 times the lowest.
    Points are (step, value), ordered by step, with finite values.
    """
    everything = [*points, *marked]
    if not everything or width < 1 or height < 1:
        return None
    steps, values = [step for step, _ in everything], [value for _, value in everything]
    first, last, low, high = min(steps), max(steps), min(values), max(values)
    is_logarithmic = low > 0 and high / low >= LOGARITHMIC_FROM
    bottom, top = (math.log(low), math.log(high)) if is_logarithmic else (low, high)
    fine_width, fine_height = (2 * width, 4 * height) if braille else (width, height)

    def place(step: int, value: float, columns: int, rows: int) -> tuple[int, int]:
        across = (step - first) / (last - first) if last > first else 0.0
        value = math.log(value) if is_logarithmic else value
        up = value / 2 - bottom / 2, top / 2 - bottom / 2  # halves: the whole difference may not fit a float
        share = up[0] / up[1] if up[1] > 0 else 0.5
        return round((1 - share) * (rows - 1)), round(across * (columns - 1))

    dots = _line([place(*point, fine_width, fine_height) for point in points])
    cells = _braille_cells(dots, width, height) if braille else _plain_cells(dots, width, height)
    marks = frozenset(place(*point, width, height) for point in marked)
    for row, column in marks:
        cells[row][column] = mark
    return Chart(tuple("".join(line) for line in cells), marks, low, high, first, last, is_logarithmic)


def _line(places: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """The dots of a line through (row, column) places, ordered by column; one height a column, joined up."""
    heights: dict[int, list[int]] = {}
    for row, column in places:
        heights.setdefault(column, []).append(row)
    dots: set[tuple[int, int]] = set()
    before: tuple[int, int] | None = None
    for column, rows in heights.items():
        row = round(sum(rows) / len(rows))
        dots.update(_between(before, (row, column)) if before is not None else {(row, column)})
        before = (row, column)
    return dots


def _between(start: tuple[int, int], end: tuple[int, int]) -> set[tuple[int, int]]:
    """Dots from one place to the next, without a gap."""
    rows, columns = end[0] - start[0], end[1] - start[1]
    length = max(abs(rows), columns, 1)
    return {
        (start[0] + round(rows * at / length), start[1] + round(columns * at / length))
        for at in range(length + 1)
    }


def _braille_cells(dots: set[tuple[int, int]], width: int, height: int) -> list[list[str]]:
    patterns = [[0] * width for _ in range(height)]
    for row, column in dots:
        patterns[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    return [[chr(_BRAILLE + pattern) if pattern else " " for pattern in line] for line in patterns]


def _plain_cells(dots: set[tuple[int, int]], width: int, height: int) -> list[list[str]]:
    return [["*" if (row, column) in dots else " " for column in range(width)] for row in range(height)]
