"""Forward and backward passes written out, for fp32 on a CPU: the fewest products and passes over memory.

PyTorch composes a layer's gradients of general steps: that of a slice, for one, is zeros and a sum. These
functions know the whole layer, write each result where it belongs, and keep only what backward needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import silu

from tuning.device import onednn_multiplies_faster, onednn_product


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W', by the faster of the two libraries that PyTorch has for it, in full fp32 with both."""
    return onednn_product(x, weight) if onednn_multiplies_faster() else x @ weight.t()


class Linear(Function):
    """y = x W', with the gradient of W only if it is trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return for_x, None
        return for_x, product(grad.flatten(0, -2).t(), x.flatten(0, -2).t())


class LoraLinear(Function):
    """y = x W' + s (x A') B' with a frozen W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        low = product(x, a).mul_(scaling)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling = scaling
        return product(x, weight).add_(product(low, b))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        for_low = product(grad, b.t()).mul_(ctx.scaling)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = product(grad, weight.t()).add_(product(for_low, a.t()))
        for_a = product(for_low.flatten(0, -2).t(), x.flatten(0, -2).t())
        for_b = product(low.flatten(0, -2).t(), grad.flatten(0, -2).t()).t()  # 3 times faster than low last
        return for_x, None, for_a, for_b, None


class RmsNorm(Function):
    """y = w * x / rms(x), over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean_square.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        out: Tensor = (x * inverse).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        for_weight = None
        if ctx.needs_input_grad[1]:
            for_weight = (grad * x).mul_(inverse).flatten(0, -2).sum(0)
        scaled = grad * weight
        along_x = (scaled * x).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(x.shape[-1])
        return torch.addcmul(scaled.mul_(inverse), x, along_x, value=-1), for_weight, None


class GatedSilu(Function):
    """y = silu(gate) * up, of an x that holds gate and up side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, dim=-1)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        for_x = torch.empty_like(x)
        (gate, up), (for_gate, for_up) = x.chunk(2, dim=-1), for_x.chunk(2, dim=-1)
        torch.mul(silu(gate), grad, out=for_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=for_gate)
        return for_x


class RotatedHeads(Function):
    """Queries, keys and values, each (rows, heads, tokens, width), of an x (rows, tokens, all heads * width)
    that holds them side by side; queries and keys are turned by the angles of their positions (RoPE).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, queries: int, keys: int) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        ctx.sizes = queries, keys, keys
        heads = x.view(*x.shape[:-1], queries + 2 * keys, -1)
        turned, values = torch.split(heads, [queries + keys, keys], dim=-2)
        out = _turn(turned, cos, sin, torch.empty(turned.shape, dtype=x.dtype))
        query, key = torch.split(out, [queries, keys], dim=-2)
        return query.transpose(1, 2), key.transpose(1, 2), values.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        query, key, value = (grad.transpose(1, 2) for grad in grads)
        out = torch.empty(*query.shape[:2], sum(ctx.sizes), query.shape[-1], dtype=query.dtype)
        for_query, for_key, for_value = torch.split(out, ctx.sizes, dim=-2)
        _turn(query, cos, sin, for_query, back=True)
        _turn(key, cos, sin, for_key, back=True)
        for_value.copy_(value)
        return out.flatten(-2), None, None, None, None


def _turn(heads: Tensor, cos: Tensor, sin: Tensor, out: Tensor, *, back: bool = False) -> Tensor:
    """Turn the pairs (i, i + width/2) of (rows, tokens, heads, width) by their angles, or back."""
    half = heads.shape[-1] // 2
    sin = sin[..., None, :half]
    torch.mul(heads, cos.unsqueeze(-2), out=out)
    out[..., :half].addcmul_(heads[..., half:], sin, value=1 if back else -1)
    out[..., half:].addcmul_(heads[..., :half], sin, value=-1 if back else 1)
    return out
