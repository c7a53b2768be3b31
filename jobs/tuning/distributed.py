"""The processes that train together: who am I, what do all of them know."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, rendezvous  # type: ignore[attr-defined]

from tuning.config import DistributedConfig
from tuning.errors import FailedError, InputError, StoppedError
from tuning.events import EventLog, say
from tuning.liveness import DONE, STOPPED, Liveness
from tuning.sharding import NEEDS_GROUP, SPLIT

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # the slowest thing that the others wait for is a checkpoint
LOST_SIGNS = ("closed by peer", "reset by peer", "broken pipe", "timed out", "gloo", "nccl", "socket")


@dataclass(frozen=True)
class Processes:
    """This process's place among `count` processes, and its device."""

    rank: int
    count: int
    device: torch.device
    liveness: Liveness | None = None

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

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier()

    def gather(self, value: T) -> list[T]:
        """What each process gave, in order; every process must call it."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def share_out(self, work: Callable[[], list[T]]) -> list[T]:
        """What each process makes of its share `rows[rank::count]`, put together in the order of the rows."""
        shares = self.together(work)
        return [shares[place % self.count][place // self.count] for place in range(sum(map(len, shares)))]

    def agree(self, choice: torch.Tensor) -> torch.Tensor:
        """What the first process chose, for all: rounding must not make them go different ways."""
        if dist.is_initialized():
            dist.broadcast(choice, src=0)
        return choice

    def together(self, work: Callable[[], T]) -> list[T]:
        """Let each process do its part of something; returns what each made.

        Where one fails all raise: that one its error, the others FailedError with its words; where one was
        asked to stop, all raise StoppedError.
        """
        made, error = None, None
        try:
            made = work()
        except Exception as caught:  # noqa: BLE001 - the others must hear of it before it goes on
            error = caught
        stop = (error.signal_number, error.step) if isinstance(error, StoppedError) else None
        told = self.gather((made, None if error is None else str(error) or type(error).__name__, stop))
        if error is not None:
            raise error
        for rank, (_, words, stop) in enumerate(told):
            if stop is not None:
                raise StoppedError(*stop)
            if words is not None:
                raise FailedError(f"Process {rank} of {self.count} failed: {words}")
        return [value for value, _, _ in told]  # type: ignore[misc]

    def report_losses_to(self, events: EventLog) -> None:
        """Write it to the events when this process ends because another one is gone and it hangs itself."""

        def tell(sentence: str) -> None:
            say(f"error: {sentence}")
            with suppress(OSError):
                events.write("failed", message=sentence)

        if self.liveness is not None:
            self.liveness.tell = tell

    def blame(self, error: Exception) -> Exception:
        """The error, or what lies behind it: another process that failed, vanished or was asked to stop."""
        if self.liveness is None or isinstance(error, InputError | FailedError):
            return error
        if isinstance(error, StoppedError):  # a launcher stops the others, too, when one was killed
            wait_s = self.liveness.pace.grace_s if self.liveness.is_any_dead() else 0.0
            gone = self.liveness.who_is_gone(wait_s)
            return FailedError(gone) if gone else error
        if not _is_lost_connection(error):
            return error
        if gone := self.liveness.who_is_gone():
            return FailedError(gone)
        return StoppedError(signal.SIGTERM, 0) if self.liveness.others_stopped() else error

    def leave(self, error: Exception | None = None) -> None:
        """Tell the others how this process ends, and leave the process group."""
        if self.liveness is not None:
            if error is not None:  # a group that lost a process may be waited for in vain
                code = getattr(error, "exit_code", 1)
                timer = threading.Timer(self.liveness.pace.grace_s, os._exit, [code])
                timer.daemon = True
                timer.start()
            stopped = isinstance(error, StoppedError)
            self.liveness.end(STOPPED if stopped else DONE if error is None else str(error) or repr(error))
            if error is not None:
                return
        if dist.is_initialized():
            dist.destroy_process_group()


def join(config: DistributedConfig) -> Processes:
    """Join the processes that torchrun or Azure ML started, or be the only one.

    Raises InputError if the config names another number of them, or their environment is incomplete.
    """
    count, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    if config.strategy == "none" and max(count, config.processes) > 1:
        accepted = ", ".join(name for name in SPLIT if name != "none")
        raise InputError(f"distributed.strategy is none, but several processes run; accepted: {accepted}.")
    if config.processes != count:
        raise InputError(
            f"distributed.processes is {config.processes} but {count} runs; start it with "
            f"`python -m torch.distributed.run --standalone --nproc-per-node {config.processes} ...`."
        )
    device = _device()
    os.environ.setdefault("DS_ACCELERATOR", device.type)  # wherever DeepSpeed is installed, libraries load it
    if count > 1:
        return Processes(rank, count, device, _meet(rank, count, device))
    if config.strategy in NEEDS_GROUP:
        dist.init_process_group(_backend(device), store=HashStore(), rank=0, world_size=1)
    return Processes(rank, count, device)


def _meet(rank: int, count: int, device: torch.device) -> Liveness:
    """Make the process group where the launcher says that all meet."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise InputError(
                f"WORLD_SIZE is {count} but {name} is not set; torchrun sets it, and so does Azure ML's "
                "PyTorch distribution."
            )
    if not 0 <= rank < count:
        raise InputError(f"RANK is {rank}; accepted: 0 to {count - 1}, for WORLD_SIZE is {count}.")
    store, _, _ = next(rendezvous("env://", rank, count, timeout=PATIENCE))
    dist.init_process_group(_backend(device), store=store, rank=rank, world_size=count, timeout=PATIENCE)
    return Liveness(PrefixStore("maas", store.clone()), rank, count)


def _backend(device: torch.device) -> str:
    """NCCL between GPUs, Gloo for what lies in the machines' own memory."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place, gpus = _number("LOCAL_RANK", 0), torch.cuda.device_count()
    if place >= gpus:
        raise InputError(
            f"This machine has {gpus} GPU{'s' if gpus > 1 else ''}, but its process {place + 1} wants one of "
            "its own; set distributed.processes to the number of GPUs."
        )
    device = torch.device("cuda", place)
    torch.cuda.set_device(device)
    return device


def _number(name: str, default: int) -> int:
    """A whole number of the launcher's environment. Raises InputError."""
    text = os.environ.get(name, "")
    with suppress(ValueError):
        return int(text) if text else default
    raise InputError(f"The environment variable {name} is {text!r}; accepted: a whole number.")


def _is_lost_connection(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in LOST_SIGNS)
    )
