"""The loss: cross-entropy on the tokens that carry it, and only there does the output head run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tuning.batches import Batch


class SupervisedLoss(nn.Module):
    """A causal language model as a module that returns the summed loss of a batch.

    The hidden states of tokens that predict nothing never reach the output head: with a vocabulary of tens of
    thousands and a short answer to a long prompt, that is most of the arithmetic and memory of a small
    model's step.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        """The sum (not the mean) of the loss over the batch's targets, in float32."""
        return functional.cross_entropy(self.logits(batch), batch.targets, reduction="sum")

    def logits(self, batch: Batch) -> torch.Tensor:
        """Float32 logits for the batch's targets, (targets, vocabulary)."""
        output: Any = self.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            logits_to_keep=batch.predicts,
            use_cache=False,
        )
        return output.logits.float()  # type: ignore[no-any-return]
