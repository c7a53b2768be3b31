"""The processes that train together: who am I, what do all of them know."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from tuning.config import DistributedConfig
from tuning.errors import InputError

PATIENCE = timedelta(minutes=30)  # the slowest thing that the others wait for is a checkpoint


@dataclass(frozen=True)
class Processes:
    """This process's place among `count` processes, and its device."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def sum(self, *values: float | torch.Tensor) -> list[float]:
        """Each value summed over all processes; every process must call it."""
        total = torch.stack(
            [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values]
        )
        if self.count > 1:
            dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def sum_table(self, table: torch.Tensor) -> list[list[float]]:
        """A table of numbers summed over all processes, row by row; every process must call it."""
        if self.count > 1:
            dist.all_reduce(table)
        rows: list[list[float]] = table.tolist()
        return rows

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier()

    def gather_rows(self, mine: list[list[int]]) -> list[list[int]]:
        """Put together the token lists that each process made of its share `rows[rank::count]`."""
        if self.count == 1:
            return mine
        counts, widths = (int(value) for value in self._largest(len(mine), max(map(len, mine), default=0)))
        table = torch.full((counts, self.count, widths), -1, dtype=torch.int64)
        for place, row in enumerate(mine):
            table[place, self.rank, : len(row)] = torch.tensor(row, dtype=torch.int64)
        table = table.to(self.device)
        dist.all_reduce(table, op=dist.ReduceOp.MAX)
        rows = table.flatten(0, 1)[: int(self.sum(len(mine))[0])].tolist()
        return [[token for token in row if token >= 0] for row in rows]

    def _largest(self, *values: int) -> list[int]:
        largest = torch.tensor(values, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return [int(value) for value in largest.tolist()]


def join(config: DistributedConfig) -> Processes:
    """Join the processes that torchrun started, or be the only one.

    Raises InputError if the config names another number of them.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if config.strategy == "none" and max(count, config.processes) > 1:
        raise InputError("distributed.strategy is none, but several processes run; accepted: ddp.")
    if config.processes != count:
        raise InputError(
            f"distributed.processes is {config.processes} but {count} runs; start it with "
            f"`python -m torch.distributed.run --standalone --nproc-per-node {config.processes} ...`."
        )
    if not torch.cuda.is_available():
        device = torch.device("cpu")
    else:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Processes(rank, count, device)


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
