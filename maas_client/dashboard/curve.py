"""A curve over training steps that stays small however long the run is."""

from __future__ import annotations

from dataclasses import dataclass, field

BUCKETS = 512


@dataclass
class _Bucket:
    """The points of `stride` neighboring steps: their sum and how many they are."""

    index: int
    total: float
    count: int


@dataclass
class Curve:
    """Values by step, averaged over `stride` steps; the stride doubles when more than 512 would be kept.

    The same points give the same curve, in however many portions they come.
    """

    stride: int = 1
    _buckets: list[_Bucket] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._buckets)

    @property
    def points(self) -> list[tuple[int, float]]:
        """(first step of the bucket, average value), oldest first."""
        return [(bucket.index * self.stride, bucket.total / bucket.count) for bucket in self._buckets]

    def add(self, step: int, value: float) -> None:
        """Take in a point. A step before the newest one belongs to the newest bucket."""
        index = step // self.stride
        newest = self._buckets[-1] if self._buckets else None
        if newest is not None and index <= newest.index:
            newest.total += value
            newest.count += 1
            return
        self._buckets.append(_Bucket(index, value, 1))
        while len(self._buckets) > BUCKETS:
            self._halve()

    def rewind(self, step: int) -> None:
        """Forget what came after `step`: the run went on from there."""
        self._buckets = [bucket for bucket in self._buckets if bucket.index * self.stride <= step]

    def copy(self) -> Curve:
        """An independent copy."""
        copies = [_Bucket(bucket.index, bucket.total, bucket.count) for bucket in self._buckets]
        return Curve(self.stride, copies)

    def _halve(self) -> None:
        """Double the stride and merge buckets that now share their steps."""
        self.stride *= 2
        merged: list[_Bucket] = []
        for bucket in self._buckets:
            index = bucket.index // 2
            if merged and merged[-1].index == index:
                merged[-1].total += bucket.total
                merged[-1].count += bucket.count
            else:
                merged.append(_Bucket(index, bucket.total, bucket.count))
        self._buckets = merged
