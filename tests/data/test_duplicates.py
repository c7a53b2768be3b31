"""Counting repeats: the same with and without the disk."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.data.duplicates import DuplicateCounter

HASHES = st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-5, 5), max_size=200)


@given(hashes=HASHES, buffered=st.sampled_from([3, 50, 1000]))
def test_repeats_are_counted_wherever_they_lie(hashes: list[int], buffered: int) -> None:
    with DuplicateCounter(buffered_rows=buffered) as counter:
        for start in range(0, len(hashes), 7):
            counter.add(hashes[start : start + 7])
        repeats, repeated = counter.count()
    assert repeats == len(hashes) - len(set(hashes))
    assert repeated == {value for value, count in Counter(hashes).items() if count > 1}


@pytest.mark.parametrize("most", [0, 5])
def test_only_so_many_repeated_hashes_are_kept(most: int) -> None:
    values = [random.Random(1).getrandbits(62) + number for number in range(100)]
    with DuplicateCounter() as counter:
        counter.add(values * 2)
        repeats, repeated = counter.count(most=most)
    assert (repeats, len(repeated)) == (100, most)
