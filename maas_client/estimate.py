"""What a run is expected to take, as a plan shows it: memory on each device, time, and how they are known.

What nobody knows is a sentence that says why, never a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

GIB = 1 << 30
Interval = tuple[float, float]
"""(least, most)."""
RESIDENT = ("parameters", "gradients", "optimizer")
"""The parts of memory that do not depend on the batch."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device when most is taken, and the parts that make them.

    `device` is `GPU` or `process`; `available` are its bytes, None where unknown, of which the share `usable`
    may be taken. `offloaded` bytes lie in the machine's own memory. Micro-batches are cut into
    `micro_batch_parts`; `recomputes`: activations are made again in the backward pass. `smallest` is the
    smallest GPU size of Azure that would do, None where none does. `at_least`: the model's widths are
    unknown, and only what lies between steps is counted; then `smallest` is None, too.
    """

    device: str
    peak: int
    parts: Mapping[str, int]
    precision: str
    micro_batch_parts: int
    recomputes: bool
    offloaded: int = 0
    available: int | None = None
    usable: float = 1.0
    smallest: str | None = None
    at_least: bool = False

    @property
    def fits(self) -> bool:
        """Whether the device has room for it, as far as that is known."""
        return self.available is None or self.peak <= self.usable * self.available

    @property
    def resident(self) -> int:
        """What stays on the device from step to step, whatever the batch."""
        return sum(self.parts[name] for name in RESIDENT)

    def __str__(self) -> str:
        room = "" if self.available is None else f" of {size(self.available)}"
        parts = ", ".join(f"{name} {size(each)}" for name, each in self.parts.items() if each)
        if self.at_least:
            unknown = "activations are unknown, as the model's widths are"
            return f"at least {size(self.peak)}{room} a {self.device} ({self.precision}): {parts}; {unknown}"
        cut = f", micro-batches in {self.micro_batch_parts} parts" if self.micro_batch_parts > 1 else ""
        how = f"{self.precision}{cut}, activations {'recomputed' if self.recomputes else 'kept'}"
        smallest = f"; smallest Azure size: {self.smallest or 'none in the catalog'}"
        return f"about {size(self.peak)}{room} a {self.device} ({how}): {parts}{smallest}"


@dataclass(frozen=True)
class Time:
    """How long the steps take, from least to most: `tokens` in all of them, tokens a second, hours, dollars.

    `basis` says how this was estimated, `source` where the GPU's peak was read. `dollars` None: the price is
    unknown.
    """

    tokens: Interval
    tokens_a_second: Interval
    hours: Interval
    basis: str
    source: str
    dollars: Interval | None = None

    def __str__(self) -> str:
        low, high = self.hours
        unit, scale = ("hours", 1.0) if high >= 1 else ("minutes", 60.0)
        span, speed = _between((low * scale, high * scale)), _between(self.tokens_a_second)
        tokens = _between((self.tokens[0] / 1e6, self.tokens[1] / 1e6))
        return (
            f"{span} {unit} for {tokens} M tokens at {speed} tokens/s ({self.basis}); evaluation comes on top"
        )


@dataclass(frozen=True)
class Estimate:
    """Memory and time; each a sentence where it is unknown."""

    memory: Memory | str
    time: Time | str

    def lines(self) -> Iterator[tuple[str, str]]:
        """(heading, words) for people."""
        for heading, known in (("memory", self.memory), ("time", self.time)):
            yield heading, f"unknown: {known}" if isinstance(known, str) else str(known)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; what is unknown is `{"unknown": why}`."""
        return {
            heading: {"unknown": known} if isinstance(known, str) else asdict(known)
            for heading, known in (("memory", self.memory), ("time", self.time))
        }


def size(count: float) -> str:
    """`1.5 GiB`, `20 MiB`."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"


def dollars_between(interval: Interval) -> str:
    """`$4.10 to $11.00`, `less than $0.01`."""
    low, high = (f"${each:,.2f}" for each in interval)
    return "less than $0.01" if interval[1] < 0.01 else f"{low} to {high}"


def _between(interval: Interval) -> str:
    low, high = map(_two_digits, interval)
    return low if low == high else f"{low} to {high}"


def _two_digits(value: float) -> str:
    """As exact as an estimate is: `0.012`, `1.2`, `12`, `12,000`."""
    return f"{float(f'{value:.2g}'):,.10g}"
