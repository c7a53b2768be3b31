"""How a training is spread over processes: one table, and the one way that copies the whole model to each.

A strategy takes the loss with its model, makes the optimizer, and knows where the parts of both are: for a
step, for a checkpoint, for the finished model, and for counting bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tuning.batches import Batch
from tuning.checkpoints import require_same_parameters
from tuning.config import Config
from tuning.distributed import Processes
from tuning.loss import SupervisedLoss
from tuning.optimization import make_optimizer
from tuning.pieces import WEIGHT, Piece, Stored

BUCKET_BYTES = 64 << 20


class Strategy(Protocol):
    """What the loop asks of a way to spread a training; all processes make the same calls in one order."""

    @property
    def model(self) -> nn.Module:
        """The model inside the loss."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What moves the weights; its param_groups take the learning rate."""

    can_try_again: bool
    """Whether a step may be begun anew after memory did not suffice in the middle of it."""

    def micro_batch(self, is_last: bool, /) -> AbstractContextManager[Any]:
        """Around forward and backward of a micro-batch; some exchange gradients with a step's last one."""

    def loss(self, batch: Batch) -> Tensor:
        """The summed loss of this process's batch."""

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient; over processes and micro-batches gradients are summed, not averaged."""

    def exchange(self) -> None:
        """After a step's last micro-batch: exchange the gradients that have not been exchanged yet."""

    def clip(self) -> float:
        """Scale gradients down to training.max_grad_norm; returns their norm before, over all processes."""

    def step(self) -> None:
        """Move the weights."""

    def forget_gradients(self) -> None:
        """Make ready for the next step."""

    def pieces(self) -> Iterator[Piece]:
        """What this process writes of trained weights and moments; all processes write everything."""

    def restore(self, stored: Stored) -> None:
        """Take weights and moments from a checkpoint. Raises FailedError if it belongs to another model."""

    def whole_weights(self) -> Mapping[str, Tensor] | None:
        """The model's state, on the first process, where the model is split; None where it is whole."""

    def holdings(self) -> Mapping[str, Iterable[Tensor]]:
        """The tensors that this process holds now: `parameters`, `gradients` and `optimizer`."""


class Replicated:
    """Each process holds everything, and adds up the gradients of all of them.

    That happens after a step's backward passes, when all processes know that memory sufficed: inside of the
    last one, as DistributedDataParallel does it, those that had enough would wait for the others forever.
    """

    can_try_again = True

    def __init__(self, loss: SupervisedLoss, config: Config, processes: Processes) -> None:
        self.model, self.processes, self.max_norm = loss.model, processes, config.training.max_grad_norm
        self.optimizer: torch.optim.Optimizer = make_optimizer(loss.model, config.training)
        self._trained = dict(trained_parameters(loss.model))
        self._loss = loss
        for parameter in self._trained.values():
            processes.agree(parameter.data)

    def micro_batch(self, _is_last: bool, /) -> AbstractContextManager[Any]:
        """Nothing is exchanged here."""
        return nullcontext()

    def loss(self, batch: Batch) -> Tensor:
        """The summed loss of this process's batch."""
        loss: Tensor = self._loss(batch)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def exchange(self) -> None:
        """Add up the gradients of all processes, some megabytes at a time."""
        if self.processes.count == 1:
            return
        for together in in_buckets(map(_gradient, self._trained.values()), BUCKET_BYTES):
            flat = torch.cat([gradient.flatten() for gradient in together])
            dist.all_reduce(flat)
            start = 0
            for gradient in together:
                gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
                start += gradient.numel()

    def clip(self) -> float:
        """Scale the gradients down; returns their norm before."""
        return float(clip_grad_norm_(self._trained.values(), self.max_norm))

    def step(self) -> None:
        """Move the weights."""
        self.optimizer.step()

    def forget_gradients(self) -> None:
        """Make ready for the next step."""
        self.optimizer.zero_grad(set_to_none=True)

    def pieces(self) -> Iterator[Piece]:
        """Everything, from the first process."""
        if not self.processes.is_first:
            return
        for name, parameter in self._trained.items():
            yield Piece(name, WEIGHT, 0, parameter)
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                yield Piece(name, kind, 0, value)

    def restore(self, stored: Stored) -> None:
        """Take weights and moments from a checkpoint. Raises FailedError if it belongs to another model."""
        require_same_parameters(stored, self._trained)
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(stored.read(name, WEIGHT).view_as(parameter))
                kinds = {kind: stored.read(name, kind) for kind in stored.moments(name)}
                if kinds:
                    self.optimizer.state[parameter] = {
                        kind: shaped_like(parameter, kind, value) for kind, value in kinds.items()
                    }

    def whole_weights(self) -> None:
        """The model holds everything."""
        return

    def holdings(self) -> Mapping[str, Iterable[Tensor]]:
        """The tensors that this process holds now."""
        parameters = list(self.model.parameters())
        return {
            "parameters": parameters,
            "gradients": [parameter.grad for parameter in parameters if parameter.grad is not None],
            "optimizer": tensors_of(self.optimizer.state),
        }


def _gradient(parameter: nn.Parameter) -> Tensor:
    """A parameter's gradient; nothing where this process had no use for it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def in_buckets(gradients: Iterable[Tensor], size_bytes: int) -> Iterator[list[Tensor]]:
    """Tensors in groups of about so many bytes, and of one format."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        is_full = sum(one.nbytes for one in bucket) + gradient.nbytes > size_bytes
        if bucket and (is_full or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are trained, by name."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def shaped_like(parameter: Tensor, kind: str, value: Tensor) -> Tensor:
    """A moment as the optimizer keeps it: beside its parameter, and in its shape where the sizes agree."""
    value = value.to(parameter.device)
    if kind == "step":
        return value.view(())
    return value.view_as(parameter) if value.numel() == parameter.numel() else value


def tensors_of(states: Mapping[Any, Mapping[str, Any]]) -> list[Tensor]:
    """The tensors in an optimizer's state."""
    return [value for state in states.values() for value in state.values() if isinstance(value, Tensor)]


def to_save(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a finished model by name, without those of an adapter's base."""
    is_adapter, saved = hasattr(model, "peft_config"), set(model.state_dict())
    for name, value in (*model.named_parameters(), *model.named_buffers(remove_duplicate=False)):
        is_base = isinstance(value, nn.Parameter) and not value.requires_grad
        if name in saved and not (is_adapter and is_base):
            yield name, value


def _zero(stage: int) -> Callable[..., Strategy]:
    def build(loss: SupervisedLoss, config: Config, processes: Processes) -> Strategy:
        from tuning.deepspeed_engine import DeepSpeedZero  # DeepSpeed costs seconds to import

        return DeepSpeedZero(loss, config, processes, stage)

    return build


def _fsdp(loss: SupervisedLoss, config: Config, processes: Processes) -> Strategy:
    from tuning.fsdp import FullySharded

    return FullySharded(loss, config, processes)


STRATEGIES: Mapping[str, Callable[[SupervisedLoss, Config, Processes], Strategy]] = {
    "none": Replicated,
    "ddp": Replicated,
    "zero1": _zero(1),
    "zero2": _zero(2),
    "zero3": _zero(3),
    "fsdp": _fsdp,
}
"""What makes each strategy. The config names the precision that was chosen, not `auto`."""
