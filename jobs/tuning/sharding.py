"""What each process holds under each distributed strategy: the formula of ZeRO, in bytes.

Only the standard library is imported: what `maas plan` says and what the script measures are held to the same
numbers (tests/jobs/test_strategies_memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

FP32_BYTES = 4
PARTS = ("parameters", "gradients", "optimizer")

SPLIT: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "ddp": frozenset(),
    "zero1": frozenset({"optimizer"}),
    "zero2": frozenset({"optimizer", "gradients"}),
    "zero3": frozenset(PARTS),
    "fsdp": frozenset(PARTS),
}
"""Of which parts each process holds only its share; of the others it holds a copy."""

OFFLOADS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "none": {},
    "ddp": {},
    "zero1": {"optimizer": frozenset({"optimizer"})},
    "zero2": {"optimizer": frozenset({"optimizer", "gradients"})},
    "zero3": {"optimizer": frozenset({"optimizer", "gradients"}), "all": frozenset(PARTS)},
    "fsdp": {"all": frozenset(PARTS)},
}
"""What each strategy may put into the machine's own memory instead of the GPU's, by the word of `offload`."""

SHARDS_MODEL = frozenset(name for name, parts in SPLIT.items() if "parameters" in parts)
"""Strategies whose processes hold parts of one model, so that all must call it together."""

NEEDS_GROUP = frozenset({"zero1", "zero2", "zero3", "fsdp"})
"""Strategies whose libraries want a process group even for one process."""

_KEEPS_A_COPY = frozenset({"zero1", "zero2", "zero3"})
"""DeepSpeed steps on a copy of each process's share, beside the parameters that the model computes with."""


@dataclass(frozen=True)
class Held:
    """Bytes that one process holds between steps, and of gradients just before a step."""

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it; activations, buffers and libraries come on top."""
        return sum(astuple(self))

    def on_device(self, strategy: str, offload: str) -> int:
        """What of it stays in the GPU's memory."""
        away = OFFLOADS[strategy].get(offload, frozenset())
        return sum(getattr(self, part) for part in PARTS if part not in away)


def held_by_each(
    strategy: str,
    processes: int,
    *,
    trained: int,
    frozen_bytes: int = 0,
    moments: int = 2,
) -> Held:
    """What each of `processes` holds of a model with `trained` numbers (in fp32) and frozen ones beside them.

    `moments` are the numbers that the optimizer keeps for each trained one. Padding (less than a number a
    process and parameter) is left out.
    """
    copies = moments + (strategy in _KEEPS_A_COPY)
    whole = {
        "parameters": frozen_bytes + FP32_BYTES * trained,
        "gradients": FP32_BYTES * trained,
        "optimizer": FP32_BYTES * trained * copies,
    }
    return Held(**{part: -(-size // _parts(strategy, processes, part)) for part, size in whole.items()})


def _parts(strategy: str, processes: int, part: str) -> int:
    return processes if part in SPLIT[strategy] else 1
