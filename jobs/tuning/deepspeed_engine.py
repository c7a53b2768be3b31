"""ZeRO by DeepSpeed: the optimizer's state, the gradients and the parameters split over the processes.

DeepSpeed keeps what it splits in flat tensors, and so do its own checkpoints, pickled and for one number of
processes. Ours are made of the runs of each parameter that lie in the flat tensors.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuning.batches import Batch
from tuning.checkpoints import require_same_parameters
from tuning.config import Config
from tuning.distributed import Processes
from tuning.errors import InputError
from tuning.loss import SupervisedLoss
from tuning.optimization import make_optimizer
from tuning.pieces import WEIGHT, Piece, Stored
from tuning.strategies import tensors_of, to_save, trained_parameters
from tuning.zero_config import zero_config


@dataclass(frozen=True)
class _Run:
    """`count` numbers of a parameter from `start` on, which lie in a flat tensor from `place` on."""

    name: str
    start: int
    count: int
    flat: Tensor
    place: int

    def of(self, flat: Tensor) -> Tensor:
        """The run in a tensor like `flat`: the weights, or one of their moments."""
        return flat.detach().narrow(0, self.place, self.count)


class DeepSpeedZero:
    """A DeepSpeed engine around the model. Stage 1 splits the optimizer, 2 gradients too, 3 everything."""

    can_try_again = False

    def __init__(self, loss: SupervisedLoss, config: Config, processes: Processes, stage: int) -> None:
        deepspeed = _import_deepspeed(processes)
        self.model: Any = loss.model
        self.processes, self.stage, self._loss = processes, stage, loss
        trained = sum(value.numel() for _, value in trained_parameters(loss.model))
        self.engine_config = zero_config(
            config, stage, trained=trained, on_gpu=processes.device.type == "cuda"
        )
        optimizer = make_optimizer(loss.model, config.training)
        self._engine: Any = deepspeed.initialize(
            model=loss.model, optimizer=optimizer, config=self.engine_config
        )[0]
        self._gathered = deepspeed.zero.GatheredParameters
        self._zero: Any = self._engine.optimizer
        self.optimizer: Any = self._zero.optimizer  # ours, which now steps on the flat tensors

    def micro_batch(self, is_last: bool, /) -> AbstractContextManager[Any]:
        """Tell the engine where a step ends; stages 2 and 3 reduce gradients after each micro-batch."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        return nullcontext()

    def loss(self, batch: Batch) -> Tensor:
        """The summed loss of this process's batch."""
        self._loss.model = self._engine  # which notes what it needs for the backward pass
        try:
            loss: Tensor = self._loss(batch)
        finally:
            self._loss.model = self.model
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss; the factor undoes the averaging."""
        self._engine.backward(loss * self.processes.count, scale_wrt_gas=False)

    def exchange(self) -> None:
        """It happened in the backward passes."""

    def clip(self) -> float:
        """The norm of the gradients; it is in `step` that the engine scales them, as its config says."""
        if self.stage < 3:
            norm = float(self._zero.scaled_global_norm())
            return norm if norm >= 0 else math.inf  # -1 stands for what is no number
        norms = [float(norm) for norm in self._zero._get_norm_groups()]
        return math.hypot(*norms) if min(norms) >= 0 else math.inf

    def step(self) -> None:
        """Move the weights."""
        self._engine.step()

    def forget_gradients(self) -> None:
        """The engine's step does it."""

    def pieces(self) -> Iterator[Piece]:
        """The runs that lie in this process's flat tensors."""
        for run in self._runs():
            yield Piece(run.name, WEIGHT, run.start, run.of(run.flat))
            for kind, value in self.optimizer.state.get(run.flat, {}).items():
                if value.numel() == run.flat.numel():
                    yield Piece(run.name, kind, run.start, run.of(value))
                else:
                    yield Piece(run.name, kind, 0, value.clone())  # one for all runs

    def restore(self, stored: Stored) -> None:
        """Take weights and moments from a checkpoint. Raises FailedError if it belongs to another model."""
        require_same_parameters(stored, dict(trained_parameters(self.model)))
        for run in self._runs():
            run.of(run.flat).copy_(stored.read(run.name, WEIGHT, run.start, run.count))
            state = self.optimizer.state[run.flat]
            for kind in stored.moments(run.name):
                if kind == "step":
                    state[kind] = stored.read(run.name, kind).view(()).to(run.flat.device)
                    continue
                values = stored.read(run.name, kind, run.start, run.count)
                run.of(state.setdefault(kind, torch.zeros_like(run.flat))).copy_(values)
        if self.stage < 3:
            self._zero.update_lp_params()
            return
        for number in range(len(self._zero.fp32_partitioned_groups_flat)):
            self._zero._reassign_or_swap_out_partitioned_parameters(number)

    def _runs(self) -> Iterator[_Run]:
        """The parts of trained parameters that this process steps on."""
        for name, parameter in trained_parameters(self.model):
            value: Any = parameter
            if self.stage < 3:
                if (mapping := value._hp_mapping) is not None:
                    flat = self._zero.single_partition_of_fp32_groups[mapping.param_group_index]
                    place = mapping.hp_fragment_address
                    yield _Run(name, mapping.lp_fragment_address.start, place.numel, flat, place.start)
                continue
            group, place, size = self._zero.grad_position[self._zero.get_param_id(value)]
            start = self.processes.rank * size
            if (count := min(size, value.ds_numel - start)) > 0:  # the rest is padding
                yield _Run(name, start, count, self._zero.fp32_partitioned_groups_flat[group], place)

    def whole_weights(self) -> Mapping[str, Tensor] | None:
        """With stage 3 the model's state on the first process; gathered parameter by parameter."""
        if self.stage < 3:
            return None
        state: dict[str, Tensor] = {}
        for name, value in to_save(self.model):
            if not hasattr(value, "ds_id"):  # a buffer
                state[name] = value.detach().cpu()
                continue
            with self._gathered([value]):
                if self.processes.is_first:
                    state[name] = value.detach().to("cpu", copy=True)
        return state

    def holdings(self) -> Mapping[str, Iterable[Tensor]]:
        """The tensors that this process holds now; gradients on their way through a bucket are left out."""
        zero, parameters = self._zero, list(self.model.parameters())
        buckets = {_storage(buffer) for buffer in _buffers(zero.ipg_buckets.values())}
        gradients = [value.grad for value in parameters if value.grad is not None]
        if self.stage < 3:
            flats = zero.single_partition_of_fp32_groups
            gradients += [flat.grad for flat in flats if flat.grad is not None]
            gradients += [part for parts in zero.averaged_gradients.values() for part in parts or ()]
        else:
            flats = zero.fp32_partitioned_groups_flat
            gradients = [zero.grad_partitions_flat_buffer]
        return {
            "parameters": [getattr(value, "ds_tensor", value) for value in parameters],
            "gradients": [value for value in gradients if _storage(value) not in buckets],
            "optimizer": [*flats, *tensors_of(self.optimizer.state)],
        }


def _buffers(buckets: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors of DeepSpeed's buckets: a list of them, or one."""
    for bucket in buckets:
        if isinstance(bucket.buffer, Tensor):
            yield bucket.buffer
        else:
            yield from bucket.buffer or ()


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _import_deepspeed(processes: Processes) -> Any:
    """The library, told where it runs and kept from compiling. Raises InputError if it is not there."""
    where = {"DS_ACCELERATOR": processes.device.type, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    for name, value in {**where, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        os.environ.setdefault(name, value)
    for message in (".*is deprecated. Please use", ".*is_autocast_cpu_enabled"):
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise InputError(
            f"distributed.strategy zero1, zero2 and zero3 need DeepSpeed ({error}); install it: "
            'pip install "maas-client[deepspeed]"'
        ) from error
    # On a CPU it would compile a way through shared memory (50 s, a compiler) that only inference takes.
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed
