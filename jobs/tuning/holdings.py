"""Bytes of parameters, gradients and optimizer state that each process holds, counted from its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from tuning.device import memory_held_bytes, memory_used_bytes
from tuning.distributed import Processes
from tuning.events import EventLog
from tuning.sharding import PARTS


class Holder(Protocol):
    """Whatever can say which tensors it holds now: a strategy."""

    @property
    def model(self) -> nn.Module:
        """The model with all its parameters."""

    def holdings(self) -> Mapping[str, Iterable[Tensor]]:
        """The tensors of each of PARTS."""


class Holdings:
    """Looks at one step twice, as its last gradient arrives and before the weights move, and keeps the most.

    Call `look` before a step's weights move and `report_once` when they have.
    """

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._gradients = 0
        first = next(value for value in holder.model.parameters() if value.requires_grad)
        register: Any = first.register_post_accumulate_grad_hook
        self._hook = register(lambda _: self.look())

    def look(self) -> None:
        """Count the gradients that are there now."""
        if self._hook is not None:
            self._gradients = max(self._gradients, _bytes(self._holder.holdings())["gradients"])

    def report_once(self, events: EventLog, processes: Processes) -> None:
        """Write the event `memory` once: bytes of each part, in all and at the peak, of each process."""
        if self._hook is None:
            return
        self._hook.remove()
        self._hook = None
        held = {**_bytes(self._holder.holdings()), "gradients": self._gradients}
        device = processes.device
        whole = [memory_held_bytes(device), memory_used_bytes(device)]
        rows = processes.gather([*(held[part] for part in PARTS), *whole])
        names = [*(f"{part}_bytes" for part in PARTS), "now_bytes", "peak_bytes"]
        facts = {name: [row[place] for row in rows] for place, name in enumerate(names)}
        events.write("memory", **facts)


def _bytes(holdings: Mapping[str, Iterable[Tensor]]) -> dict[str, int]:
    """Bytes of each part; memory that two tensors share counts once, for the part that comes first."""
    seen: set[int] = set()
    sizes = dict.fromkeys(PARTS, 0)
    for part in PARTS:
        for tensor in holdings[part]:
            if tensor.numel() and tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                sizes[part] += tensor.numel() * tensor.element_size()
    return sizes
