"""Curves keep their size and do not depend on the portions in which points come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maas_client.dashboard import chart
from maas_client.dashboard.curve import BUCKETS, Curve

VALUES = st.floats(allow_nan=False, allow_infinity=False, width=32)


def test_a_million_steps_take_no_more_room_than_512_points() -> None:
    curve = Curve()
    for step in range(1_000_000):
        curve.add(step, float(step))
    assert BUCKETS // 2 <= len(curve) <= BUCKETS
    assert curve.points[0][0] == 0
    assert curve.points[-1][1] > 998_000
    values = [value for _, value in curve.points]
    assert values == sorted(values)


def test_points_are_averaged_over_the_stride() -> None:
    curve = Curve(stride=2)
    for step, value in ((0, 1.0), (1, 3.0), (2, 5.0)):
        curve.add(step, value)
    assert curve.points == [(0, 2.0), (2, 5.0)]


def test_rewinding_forgets_what_came_later() -> None:
    curve = Curve()
    for step in range(10):
        curve.add(step, float(step))
    copied = curve.copy()
    curve.rewind(4)
    assert [step for step, _ in curve.points] == [0, 1, 2, 3, 4]
    assert len(copied) == 10


@given(
    st.lists(st.tuples(st.integers(0, 10**7), VALUES), max_size=60), st.integers(1, 90), st.integers(1, 20)
)
def test_any_points_make_a_chart_of_exactly_the_size_asked(
    points: list[tuple[int, float]], width: int, height: int
) -> None:
    points.sort()
    for braille in (True, False):
        drawn = chart.draw(points, points[::3], width, height, braille=braille, mark="V")
        if not points:
            assert drawn is None
            continue
        assert drawn is not None
        assert [len(line) for line in drawn.lines] == [width] * height
        assert sum(line.count("V") for line in drawn.lines) == len(drawn.marks) > 0


def test_a_falling_line_falls() -> None:
    points = [(0, 3.0), (1, 2.0), (2, 1.0)]
    drawn = chart.draw(points, [], 3, 3, braille=False, mark="V")
    assert drawn is not None
    assert drawn.lines == ("*  ", " * ", "  *")
    assert not drawn.is_logarithmic


def test_values_far_apart_are_spread_by_their_logarithms() -> None:
    drawn = chart.draw([(0, 100.0), (1, 10.0), (2, 1.0)], [], 3, 3, braille=False, mark="V")
    assert drawn is not None
    assert drawn.lines == ("*  ", " * ", "  *")
    assert drawn.is_logarithmic
