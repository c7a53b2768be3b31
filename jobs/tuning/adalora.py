"""AdaLoRA's part in each step: it keeps the matrices orthogonal and takes ranks where they matter least.

How much a number matters is a moving average over the steps, like AdamW's moments. It is kept among them, in
the optimizer's state, so that a checkpoint holds it and a resumed run takes the same ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

IMPORTANCE, VARIATION, KEPT = "importance", "variation", "kept"


class RankAllocation:
    """What AdaLoRA does around each step of `optimizer` with the adapter on a PEFT model."""

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
        self._tuner, self._optimizer = model.base_model, optimizer
        self._allocator = self._tuner.rankallocator
        self._config = model.peft_config["default"]

    def before(self) -> None:
        """Add the gradient of the orthogonality that AdaLoRA asks of its singular vectors."""
        named = [(name, value) for name, value in self._parameters() if "lora_E" not in name]
        vectors = [value for _, value in named]
        products = [value @ value.t() if "lora_A" in name else value.t() @ value for name, value in named]
        distance = torch.stack([_from_identity(product) for product in products]).mean()
        gradients = torch.autograd.grad(self._config.orth_reg_weight * distance, vectors)
        for value, gradient in zip(vectors, gradients, strict=True):
            assert value.grad is not None  # noqa: S101 - called between backward and the step
            value.grad.add_(gradient)

    def after(self, step: int) -> None:
        """Take ranks away as the schedule says; to be called while the gradients are there."""
        self._recall()
        self._tuner.update_and_allocate(step)
        self._keep()

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self._tuner.model.named_parameters():
            if value.requires_grad:
                yield name, value

    def _recall(self) -> None:
        """Give PEFT's allocator what the optimizer's state holds: after a resume it knows nothing."""
        pattern: dict[str, list[bool]] = {}
        for name, value in self._parameters():
            state = self._optimizer.state.get(value, {})
            if IMPORTANCE in state:
                self._allocator.exp_avg_ipt[name], self._allocator.exp_avg_unc[name] = (
                    state[IMPORTANCE],
                    state[VARIATION],
                )
                self._allocator.ipt.setdefault(name, torch.zeros_like(value))
            if KEPT in state:
                pattern[name] = state[KEPT].bool().view(-1).tolist()
        if pattern:
            self._config.rank_pattern = pattern

    def _keep(self) -> None:
        """Put what PEFT's allocator knows into the optimizer's state."""
        pattern = self._config.rank_pattern or {}
        for name, value in self._parameters():
            state = self._optimizer.state[value]
            if name in self._allocator.exp_avg_ipt:
                state[IMPORTANCE] = self._allocator.exp_avg_ipt[name]
                state[VARIATION] = self._allocator.exp_avg_unc[name]
            else:  # all ranks are given away
                state.pop(IMPORTANCE, None)
                state.pop(VARIATION, None)
            if name in pattern:
                state[KEPT] = torch.tensor(pattern[name], dtype=torch.float32)


def note_ranks(model: Any) -> None:
    """Tell the config of a model with AdaLoRA which ranks are left: only these are saved.

    The weights say it themselves, whichever step they are of: what was taken away has a singular value of 0.
    """
    config = model.peft_config["default"]
    if config.peft_type.value == "ADALORA":
        config.rank_pattern = {
            name: (value != 0).view(-1).tolist()
            for name, value in model.base_model.model.named_parameters()
            if ".lora_E." in name
        }


def _from_identity(matrix: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.matrix_norm(matrix - torch.eye(len(matrix), device=matrix.device))
    return distance
