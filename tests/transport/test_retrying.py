"""Waits are bounded, jittered, and never shorter than what the service asked for."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.transport.retrying import RetryPolicy, retry_after_s

NOW = 1_800_000_000.0
CHANCES = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10**9))
def test_seconds_are_taken_as_they_are(seconds: int) -> None:
    assert retry_after_s({"retry-after": f" {seconds} "}, NOW) == seconds


@given(st.integers(-(10**6), 10**6))
def test_a_date_is_a_distance_from_now(offset: int) -> None:
    headers = {"retry-after": formatdate(NOW + offset, usegmt=True)}
    assert retry_after_s(headers, NOW) == max(0, offset)


@given(st.integers(0, 10**6), st.integers(-(10**6), 10**6))
def test_a_wrong_clock_here_does_no_harm(offset: int, skew: int) -> None:
    headers = {"retry-after": formatdate(NOW + offset, usegmt=True), "date": formatdate(NOW, usegmt=True)}
    assert retry_after_s(headers, NOW + skew) == offset


@given(st.text(max_size=30))
def test_any_text_gives_a_wait_or_none(text: str) -> None:
    wait = retry_after_s({"retry-after": text, "date": text}, NOW)
    assert wait is None or wait >= 0


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1e3", "12 s", "Mon, 99 Foo 2026", "--1", "٣"])
def test_nonsense_is_no_wait(text: str) -> None:
    assert retry_after_s({"retry-after": text}, NOW) is None


def test_milliseconds_win_and_negative_is_zero() -> None:
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}, NOW) == 0.25
    assert retry_after_s({"retry-after": "-5"}, NOW) == 0


POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 12),
    total_s=st.floats(0, 1000),
    base_s=st.floats(0.01, 5),
    cap_s=st.floats(0.01, 60),
)


@given(POLICIES, st.integers(1, 2000), st.floats(0, 2000), CHANCES)
def test_a_wait_is_within_the_bounds(
    policy: RetryPolicy, failures: int, spent_s: float, chance: float
) -> None:
    wait = policy.wait_s(failures, asked_s=None, spent_s=spent_s, random=lambda: chance)
    if failures >= policy.attempts:
        assert wait is None
    if wait is not None:
        assert 0 <= wait <= min(policy.cap_s, policy.base_s * 2 ** min(failures - 1, 60))
        assert spent_s + wait <= policy.total_s


@given(POLICIES, st.floats(0, 500), CHANCES)
def test_a_wait_is_never_shorter_than_asked(policy: RetryPolicy, asked_s: float, chance: float) -> None:
    wait = policy.wait_s(1, asked_s=asked_s, spent_s=0, random=lambda: chance)
    assert wait is None or asked_s <= wait <= asked_s + policy.base_s
    if asked_s > policy.total_s:
        assert wait is None


@given(st.integers(1, 11))
def test_jitter_is_full(failures: int) -> None:
    policy = RetryPolicy(attempts=100, total_s=1e9)
    waits = [policy.wait_s(failures, asked_s=None, spent_s=0, random=lambda c=c: c) for c in (0.0, 0.5)]
    assert waits[0] == 0
    assert waits[1] == min(20.0, 0.5 * 2 ** (failures - 1)) / 2
