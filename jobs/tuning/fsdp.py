"""FSDP2 of PyTorch: parameters, gradients and moments split over the processes, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.nn.utils import clip_grad_norm_

from tuning.batches import Batch
from tuning.checkpoints import require_same_parameters
from tuning.config import Config
from tuning.distributed import Processes
from tuning.loss import SupervisedLoss
from tuning.optimization import make_optimizer
from tuning.pieces import WEIGHT, Piece, Stored
from tuning.strategies import tensors_of, to_save, trained_parameters


class FullySharded:
    """Each process holds a share of the rows of every tensor; a block is gathered while it computes."""

    can_try_again = False

    def __init__(self, loss: SupervisedLoss, config: Config, processes: Processes) -> None:
        self.model, self.processes, self._loss = loss.model, processes, loss
        self.max_norm = config.training.max_grad_norm
        mesh = init_device_mesh(processes.device.type, (processes.count,))
        away = config.distributed.offload == "all" and processes.device.type == "cuda"
        policy = CPUOffloadPolicy() if away else OffloadPolicy()
        for block in [*blocks(loss.model), loss.model]:
            fully_shard(block, mesh=mesh, offload_policy=policy)
        self.optimizer = make_optimizer(loss.model, config.training)
        self._trained: dict[str, Any] = dict(trained_parameters(loss.model))

    def micro_batch(self, _is_last: bool, /) -> AbstractContextManager[Any]:
        """Gradients are reduced after each micro-batch, so that no process ever holds all of them."""
        return nullcontext()

    def loss(self, batch: Batch) -> Tensor:
        """The summed loss of this process's batch."""
        loss: Tensor = self._loss(batch)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss; the factor undoes the averaging."""
        (loss * self.processes.count).backward()  # type: ignore[no-untyped-call]

    def exchange(self) -> None:
        """It happened in the backward passes."""

    def clip(self) -> float:
        """Scale the gradients down; returns their norm before, over all processes."""
        norm: Any = clip_grad_norm_(self._trained.values(), self.max_norm)
        return float(norm.full_tensor())

    def step(self) -> None:
        """Move the weights."""
        self.optimizer.step()

    def forget_gradients(self) -> None:
        """Make ready for the next step."""
        self.optimizer.zero_grad(set_to_none=True)

    def pieces(self) -> Iterator[Piece]:
        """The rows that this process holds."""
        for name, parameter in self._trained.items():
            start = self._start(parameter)
            yield Piece(name, WEIGHT, start, parameter.to_local())
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if kind == "step":
                    yield Piece(name, kind, 0, value)
                else:
                    yield Piece(name, kind, start, value.to_local())

    def restore(self, stored: Stored) -> None:
        """Take weights and moments from a checkpoint. Raises FailedError if it belongs to another model."""
        require_same_parameters(stored, self._trained)
        with torch.no_grad():
            for name, parameter in self._trained.items():
                self._fill(parameter, stored, name, WEIGHT)
                state: dict[str, Any] = {}
                for kind in stored.moments(name):
                    if kind == "step":
                        state[kind] = stored.read(name, kind).view(()).to(parameter.device)
                    else:
                        state[kind] = torch.zeros_like(parameter)
                        self._fill(state[kind], stored, name, kind)
                if state:
                    self.optimizer.state[parameter] = state

    def _fill(self, value: Any, stored: Stored, name: str, kind: str) -> None:
        local = value.to_local()
        if local.numel():
            values = stored.read(name, kind, self._start(value), local.numel())
            local.copy_(values.view_as(local))

    def _start(self, value: Tensor) -> int:
        """Where this process's rows begin in the flattened tensor: as torch.chunk cuts it."""
        rows = value.shape[0]
        first = min(self.processes.rank * -(-rows // self.processes.count), rows)
        return first * (value.numel() // max(rows, 1))

    def whole_weights(self) -> Mapping[str, Tensor] | None:
        """The model's state on the first process, gathered parameter by parameter."""
        state: dict[str, Tensor] = {}
        for name, value in to_save(self.model):
            whole: Any = value.detach()
            if hasattr(whole, "full_tensor"):
                whole = whole.to(self.processes.device).full_tensor()
            if self.processes.is_first:
                state[name] = whole.cpu()
        return state

    def holdings(self) -> Mapping[str, Iterable[Tensor]]:
        """The tensors that this process holds now."""
        parameters: list[Any] = list(self.model.parameters())
        gradients = [value.grad for value in parameters if value.grad is not None]
        return {
            "parameters": map(_local, parameters),
            "gradients": map(_local, gradients),
            "optimizer": map(_local, tensors_of(self.optimizer.state)),
        }


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that transformers says are not to be split: they are gathered one at a time."""
    names = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    return [part for part in model.modules() if type(part).__name__ in names]


def _local(value: Any) -> Tensor:
    """What this process holds of a tensor."""
    local: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return local
