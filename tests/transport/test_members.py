"""Members of JSON, however a service writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.transport.members import as_number, mapping_at, member, number_at, text_at, time_at

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("aAbB"), inner, max_size=3),
    max_leaves=8,
)


def test_names_are_found_in_any_case_and_the_exact_one_first() -> None:
    assert member({"Properties": {"STATUS": 1}}, "properties", "status") == 1
    assert member({"Status": 1, "status": 2}, "status") == 2
    assert member({"a": None}, "a", "b") is None


@given(body=JSON)
def test_nothing_is_too_strange(body: Any) -> None:
    assert isinstance(text_at(body, "a", "b"), str)
    assert mapping_at(body, "a") is not None
    assert time_at(body, "a") is None or isinstance(time_at(body, "a"), float)
    assert number_at(body, "a") is None or isinstance(number_at(body, "a"), float)


@given(number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15))
def test_a_number_may_be_written_as_text(number: float) -> None:
    assert as_number(number) == as_number(f" {number} ") == float(number)


@pytest.mark.parametrize("value", [None, True, "", "x", "nan", "inf", float("nan"), [], {}, 10**400])
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert as_number(value) is None


@given(
    moment=st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1)),
    more=st.sampled_from(["", "Z", "+00:00"]),
)
def test_times_have_up_to_seven_digits_and_may_lack_their_zone(moment: datetime, more: str) -> None:
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}5{more}"
    assert time_at({"Made": text}, "made") == moment.replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "", "soon", "9999-99-99T00:00:00Z"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert time_at({"made": text}, "made") is None
