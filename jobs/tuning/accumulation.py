"""The gradients of a step, micro-batch by micro-batch; where memory ends, with smaller ones for the same sum.

A loss is a sum over supervised tokens, so it does not matter how a step's rows are spread over micro-batches:
these may be halved at any time, and the run goes on with the losses that it would have had.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuning.allocator import give_back_freed_memory
from tuning.batches import Batch, Plan
from tuning.distributed import Processes
from tuning.errors import FailedError
from tuning.events import say, write_json
from tuning.failures import is_out_of_memory

if TYPE_CHECKING:
    from tuning.run import Run

PARTS_FILE = "microbatches.json"


class MicroBatches:
    """A process's batches of each step, each micro-batch of the plan in `parts` parts.

    `make` lays out rows by their numbers; for none it makes a batch without loss. `ahead`: a thread does so
    for the next step meanwhile, in memory from which a GPU fetches by itself.
    """

    def __init__(
        self, plan: Plan, processes: Processes, make: Callable[[Sequence[int]], Batch], *, ahead: bool
    ) -> None:
        self.plan, self.processes, self.make = plan, processes, make
        self.parts = 1
        self._thread = ThreadPoolExecutor(1, "batches") if ahead else None
        self._next: tuple[tuple[int, int], Future[list[Batch]]] | None = None

    def of_step(self, step: int) -> list[Batch]:
        """The batches of a step; every process gets the same number."""
        if self._thread is None:
            return self._made(step, self.parts)
        ready, wanted = self._next, (step, self.parts)
        if ready is None or ready[0] != wanted:
            ready = self._begin(self._thread, *wanted)
        is_last = step + 1 == self.plan.steps
        self._next = None if is_last else self._begin(self._thread, step + 1, self.parts)
        return ready[1].result()

    def _begin(
        self, thread: ThreadPoolExecutor, step: int, parts: int
    ) -> tuple[tuple[int, int], Future[list[Batch]]]:
        return (step, parts), thread.submit(lambda: [one.pinned() for one in self._made(step, parts)])

    def _made(self, step: int, parts: int) -> list[Batch]:
        return [self.make(portion) for portion in self._portions(step, parts)]

    def _portions(self, step: int, parts: int) -> Iterator[list[int]]:
        """The rows' numbers of each batch: a micro-batch's rows are dealt out, the longest first."""
        for share in self.plan.shares_of_step(step, self.processes.rank):
            if parts == 1:
                yield share
                continue
            dealt = sorted(share, key=lambda number: -self.plan.lengths[number])
            for part in range(parts):
                if (portion := dealt[part::parts]) or self.processes.count > 1:
                    yield portion

    def rows_of_step(self, step: int) -> list[int]:
        """The numbers of the rows that all processes take in a step; every process must call it."""
        mine = [number for portion in self._portions(step, self.parts) for number in portion]
        return sorted(number for share in self.processes.gather(mine) for number in share)

    def is_row_by_row(self, step: int) -> bool:
        """Whether no batch of the step has two rows."""
        return all(len(portion) < 2 for portion in self._portions(step, self.parts))


def accumulate(run: Run, step: int, targets: int) -> Tensor:
    """Put the gradients of a step's mean loss into the parameters; returns this process's summed loss.

    `targets` are the step's tokens that carry loss. Where memory does not suffice in a process all halve
    their micro-batches, and the output remembers it. Raises FailedError where that is not possible any more.
    """
    while True:
        torch.manual_seed(hash((run.config.training.seed, step, run.processes.rank)))  # dropout, as before
        loss_sum = _try(lambda: _sum_up(run, step, targets))
        short, is_stuck = _agree(run, step, is_short=loss_sum is None)
        if loss_sum is not None and not short:
            run.strategy.exchange()
            return loss_sum
        _halve(run, step, is_stuck=is_stuck)


def _sum_up(run: Run, step: int, targets: int) -> Tensor:
    batches, device = run.batches.of_step(step), run.processes.device
    loss_sum = torch.zeros((), device=device)
    for number, batch in enumerate(batches, 1):
        with run.strategy.micro_batch(number == len(batches)):
            with run.autocast():
                loss = run.strategy.loss(batch.to(device))
            run.strategy.backward(loss / targets)
        loss_sum += loss.detach()
    return loss_sum


def _try(work: Callable[[], Tensor]) -> Tensor | None:
    """The work's result, or None where memory did not suffice for it."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None  # outside of `except`: the error held what the work had made


def _agree(run: Run, step: int, *, is_short: bool) -> tuple[bool, bool]:
    """(is any process short of memory, can one of these not halve its micro-batches any more)."""
    if is_short and not run.strategy.can_try_again and run.processes.count > 1:
        return True, False  # the others wait inside of a pass over the model
    stuck = is_short and run.batches.is_row_by_row(step)
    short, is_stuck = run.processes.sum(is_short, stuck)
    return short > 0, is_stuck > 0


def _halve(run: Run, step: int, *, is_stuck: bool) -> None:
    if is_stuck:
        raise FailedError(
            f"There is not enough memory for step {step + 1}, not even with one row at a time; lower "
            "training.max_length, set training.gradient_checkpointing to true, or take method qlora."
        )
    give_back_freed_memory()
    run.batches.parts *= 2
    write_json(run.files.output / PARTS_FILE, {"parts": run.batches.parts, "since_step": step + 1})
    what = f"micro-batches are cut into {run.batches.parts} parts from here on, with the same losses"
    if not run.strategy.can_try_again:
        raise FailedError(
            f"There is not enough memory for step {step + 1}; {what}: run the same command again."
        )
    run.strategy.forget_gradients()
    gc.collect()
    if run.processes.device.type == "cuda":
        torch.cuda.empty_cache()
    run.events.write("out_of_memory", step=step + 1, parts=run.batches.parts)
    if run.processes.is_first:
        say(f"There is not enough memory for step {step + 1}; {what}.")


def parts_from_here(output: Path, wanted: int) -> int:
    """Into how many parts micro-batches are cut: as an earlier start of the run came to do, else as wanted.

    Sums over other parts round otherwise, so a run that goes on keeps its parts.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        return max(1, int(json.loads((output / PARTS_FILE).read_text(encoding="utf-8"))["parts"]))
    if (output / "checkpoints").is_dir():
        return 1
    if wanted > 1:
        write_json(output / PARTS_FILE, {"parts": wanted, "since_step": 1})
    return wanted
