"""From rows of tokens to batches: who trains on what in which step, and how rows share a tensor.

Everything here is a pure function of the rows, the config, the step and the process, so that a run can be
taken up at any step, and so that one process and several train on the same rows in the same step.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import torch

from tuning.config import TrainingConfig

IGNORED = -100  # the label of a token that carries no loss
ROUND_TO = 8
LITTLE_PADDING = 1.02  # tokens that are read for each token of a row


@dataclass(frozen=True, slots=True)
class TokenRow:
    """The tokens of one row and their labels (the token or IGNORED): int32 tensors of shape (length,)."""

    ids: torch.Tensor
    labels: torch.Tensor

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.ids)

    @property
    def weight(self) -> int:
        """Tokens that carry loss, of which a step's loss is the mean.

        The first token of a row has nothing before it that could predict it.
        """
        return int((self.labels[1:] != IGNORED).sum())


class Item(Protocol):
    """What a step is made of: a row, or a pair of rows."""

    @property
    def length(self) -> int:
        """Tokens."""

    @property
    def weight(self) -> int:
        """What it counts for in the mean that is a step's loss."""


@dataclass(frozen=True)
class Batch:
    """Rows laid out in a tensor: `input_ids` and `position_ids` (lines, width).

    `predicts` (lines, width) is true where a token's successor carries loss; `targets` are these successors.
    `ends` are the ends of the rows (and of padding), lines one after another; the first is 0. `longest` is
    the length of the longest row.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    ends: torch.Tensor
    longest: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; from pinned memory it travels while the device computes."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can read by itself."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **tensors)


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Spread items over bins of `capacity`, the longest first, each into the fullest that has room.

    Returns the item numbers of each bin. No length may be above capacity.
    """
    bins: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # room left -> bins
    rooms: list[int] = []  # the keys of with_room, sorted
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        place = bisect_left(rooms, lengths[item])
        if place == len(rooms):
            bins.append([])
            number, room = len(bins) - 1, capacity
        else:
            room = rooms[place]
            number = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[place]
        bins[number].append(item)
        left = room - lengths[item]
        if left not in with_room:
            insort(rooms, left)
        with_room.setdefault(left, []).append(number)
    return bins


def lines_for(lengths: Sequence[int]) -> tuple[int, list[list[int]]]:
    """(width of lines, the item numbers of each line): as wide as the longest item, or up to half as much
    again where that takes fewer tokens in all.
    """
    narrowest = _rounded(max(lengths))
    tried = []
    for width in range(narrowest, narrowest * 3 // 2 + 1, _rounded(narrowest // 16 + 1)):
        bins = pack(lengths, width)
        tried.append((len(bins) * width, width, bins))
        if tried[-1][0] <= LITTLE_PADDING * sum(lengths):
            break
    _, width, bins = min(tried, key=lambda one: one[:2])
    return width, bins


def _rounded(length: int) -> int:
    return -(-length // ROUND_TO) * ROUND_TO


def lay_out(rows: Sequence[TokenRow], pad_id: int) -> Batch:
    """Put rows side by side into a tensor wide enough for the longest one, or wider for less padding.

    Positions start again at 0 with each row; from that transformers isolates the rows from each other (a jump
    in `position_ids` without an attention mask begins a new document). Padding is a document of its own.
    """
    width, bins = lines_for([len(row.ids) for row in rows])
    ids = torch.full((len(bins), width), pad_id)
    positions = torch.empty((len(bins), width), dtype=torch.int64)
    successors = torch.full((len(bins), width), IGNORED)
    counting = torch.arange(width)
    ends = [0]
    for line, members in enumerate(bins):
        start = 0
        for row in (rows[member] for member in members):
            end = start + len(row.ids)
            ids[line, start:end] = row.ids
            positions[line, start:end] = counting[: end - start]
            successors[line, start : end - 1] = row.labels[1:]
            start = end
            ends.append(line * width + end)
        positions[line, start:] = counting[: width - start]
        if start < width:
            ends.append((line + 1) * width)
    predicts = successors != IGNORED
    longest = max(end - start for start, end in pairwise(ends))
    return Batch(
        ids, positions, predicts, successors[predicts], torch.tensor(ends, dtype=torch.int32), longest
    )


class Plan:
    """Which rows are trained on in each step, the same for every process.

    A step takes `batch_size * gradient_accumulation * processes` units: rows, or with packing groups of rows
    that fit into `max_length` tokens (where a row is a pair, into `sequences` times as many). Units are
    shuffled anew for each epoch.
    """

    def __init__(
        self, rows: Sequence[Item], training: TrainingConfig, processes: int, sequences: int = 1
    ) -> None:
        self.lengths = [row.length for row in rows]
        self.weights = [row.weight for row in rows]
        self.seed = training.seed
        capacity = sequences * training.max_length
        self.units = self._group(capacity) if training.packing else [[row] for row in range(len(rows))]
        self.processes = processes
        self.shares = training.gradient_accumulation * processes
        self.units_a_step = training.batch_size * self.shares
        self.steps_an_epoch = math.ceil(len(self.units) / self.units_a_step)
        wanted = math.ceil(training.epochs * self.steps_an_epoch)
        self.steps = min(wanted, training.max_steps or wanted)
        self._shuffled: tuple[int, list[list[int]]] = (-1, [])

    def _group(self, capacity: int) -> list[list[int]]:
        """Rows in groups of at most `capacity` tokens; the seed decides which of equal length meet."""
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed} pack").shuffle(order)
        bins = pack([self.lengths[row] for row in order], capacity)
        return [[order[place] for place in members] for members in bins]

    def rows_of_step(self, step: int) -> list[list[int]]:
        """The units (lists of row numbers) of a step; steps count from 0."""
        epoch, place = divmod(step, self.steps_an_epoch)
        if self._shuffled[0] != epoch:
            units = list(self.units)
            random.Random(f"{self.seed} epoch {epoch}").shuffle(units)
            self._shuffled = (epoch, units)
        return self._shuffled[1][place * self.units_a_step : (place + 1) * self.units_a_step]

    def tokens_of_step(self, step: int) -> int:
        """Tokens in a step, over all processes; padding does not count."""
        return sum(self.lengths[row] for unit in self.rows_of_step(step) for row in unit)

    def targets_of_step(self, step: int) -> int:
        """What the loss of a step is the mean of, over all processes: tokens that carry loss, or pairs."""
        return sum(self.weights[row] for unit in self.rows_of_step(step) for row in unit)

    def rows_used(self) -> set[int]:
        """The rows that any step takes."""
        return {row for step in range(self.steps) for unit in self.rows_of_step(step) for row in unit}

    def shares_of_step(self, step: int, rank: int) -> Iterator[list[int]]:
        """The row numbers of a process's micro-batches; in an epoch's last step some may be empty."""
        units = self.rows_of_step(step)
        for share in range(rank, self.shares, self.processes):
            yield [row for unit in units[share :: self.shares] for row in unit]


def owners_of_targets(rows: Sequence[TokenRow], owners: Sequence[int] | None = None) -> torch.Tensor:
    """The number of the row (or its owner) that each target of `lay_out(rows)` belongs to."""
    numbers = range(len(rows)) if owners is None else owners
    numbered = [
        TokenRow(row.ids, torch.where(row.labels == IGNORED, IGNORED, number))
        for number, row in zip(numbers, rows, strict=True)
    ]
    return lay_out(numbered, 0).targets


def without_loss(row: TokenRow) -> TokenRow:
    """The same tokens with no label: keeps a process in step that has no row of its own left."""
    return TokenRow(row.ids, torch.full_like(row.labels, IGNORED))
