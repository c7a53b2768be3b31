"""The loss: cross-entropy on the tokens that carry it, and only there does the output head run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from tuning.batches import Batch
from tuning.footprint import tokens_a_chunk

HeadLoss = Callable[[nn.Linear, Tensor, Tensor], Tensor]
"""(output head, hidden states, targets) -> summed loss, without all logits in memory at once."""


class SupervisedLoss(nn.Module):
    """A causal language model as a module that returns the summed loss of a batch.

    The hidden states of tokens that predict nothing never reach the output head: with a vocabulary of tens of
    thousands and a short answer to a long prompt, that is most of the arithmetic and memory of a small
    model's step. `head_loss` takes the place of head and cross-entropy. `tells_documents`: attention is told
    where rows end, besides by their positions.
    """

    def __init__(
        self, model: nn.Module, *, head_loss: HeadLoss | None = None, tells_documents: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.head_loss = head_loss
        self.tells_documents = tells_documents

    def forward(self, batch: Batch) -> Tensor:
        """The sum (not the mean) of the loss over the batch's targets, in float32."""
        if self.head_loss is None:
            return functional.cross_entropy(self.logits(batch), batch.targets, reduction="sum")
        with self._head_gives_loss(self.head_loss, batch.targets):
            loss: Tensor = self._call(batch)
        return loss

    def logits(self, batch: Batch) -> Tensor:
        """Float32 logits for the batch's targets, (targets, vocabulary)."""
        return self._call(batch).float()

    def _call(self, batch: Batch) -> Tensor:
        """What the model says for the tokens that predict something."""
        documents: dict[str, Any] = {}
        if self.tells_documents:
            documents = {f"cu_seq_lens_{side}": batch.ends for side in "qk"}
            documents |= {f"max_length_{side}": batch.longest for side in "qk"}
        output: Any = self.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            logits_to_keep=batch.predicts,
            use_cache=False,
            **documents,
        )
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def _head_gives_loss(self, head_loss: HeadLoss, targets: Tensor) -> Iterator[None]:
        """Let the output head return the summed loss instead of logits."""
        head: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        head.forward = lambda hidden: head_loss(head, hidden.reshape(-1, hidden.shape[-1]), targets)
        try:
            yield
        finally:
            del head.forward


def usable_head_loss(model: Any, wanted: HeadLoss, device: torch.device) -> HeadLoss | None:
    """`wanted` if the model's loss with it is the loss without it; None for a head that is no plain layer.

    Some models do more with logits than the head makes of hidden states: these keep their own way.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or "forward" in vars(head):
        return None
    ids = torch.arange(16, device=device)[None] % head.out_features
    ends = torch.tensor([0, 16], dtype=torch.int32, device=device)
    batch = Batch(ids, ids, torch.ones_like(ids, dtype=torch.bool), ids[0].flip(0), ends, 16)
    tolerance = 1e-4 if head.weight.dtype == torch.float32 else 2e-2
    with torch.no_grad():
        plain = SupervisedLoss(model)(batch)
        fused = SupervisedLoss(model, head_loss=wanted)(batch)
    hidden = torch.randn(16, head.in_features, device=device, dtype=head.weight.dtype, requires_grad=True)
    with torch.enable_grad():
        losses = (plain_head_loss(head, hidden, batch.targets), wanted(head, hidden, batch.targets))
    expected, found = (torch.autograd.grad(loss, hidden)[0] for loss in losses)
    is_same = torch.allclose(plain, fused, rtol=tolerance)
    return wanted if is_same and (found - expected).norm() <= tolerance * expected.norm() else None


def plain_head_loss(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy on all logits at once."""
    return functional.cross_entropy(head(hidden).float(), targets, reduction="sum")


def chunked_head_loss(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of a linear head, some tokens at a time: their logits become gradients where they lie."""
    if head.bias is not None:
        return plain_head_loss(head, hidden, targets)
    loss: Tensor = _ChunkedHeadLoss.apply(hidden, head.weight, targets)
    return loss


class _ChunkedHeadLoss(Function):
    """The gradients are made with the loss, so that a chunk's logits are needed once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        trains_input, trains_weight, _ = ctx.needs_input_grad
        for_hidden = torch.empty_like(hidden) if trains_input else None
        for_weight = torch.zeros_like(weight, dtype=torch.float32) if trains_weight else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), size := tokens_a_chunk(len(weight), hidden.device.type)):
            part, wanted = hidden[start : start + size], targets[start : start + size, None]
            logits = (part @ weight.t()).float()
            total = logits.logsumexp(-1, keepdim=True)
            loss += (total - logits.gather(1, wanted)).sum()
            grad = logits.sub_(total).exp_()
            grad.scatter_add_(1, wanted, grad.new_full(wanted.shape, -1.0))
            if for_hidden is not None:
                for_hidden[start : start + size] = grad.to(part.dtype) @ weight
            if for_weight is not None:
                for_weight += grad.t().to(part.dtype) @ part
        ctx.made = (for_hidden, for_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        made, ctx.made = ctx.made, None
        return (*(None if part is None else part.mul_(grad) for part in made), None)
