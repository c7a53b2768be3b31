"""Operations with forward and backward written out: fewer passes over memory, less kept between the two.

Autograd makes a pass over memory for every operation and keeps what each of them read. Written out, an
operation writes where its result is wanted, and only what cannot be made again cheaply is kept.
tuning/lean.py puts these operations into a model's layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """y = w * x / rms(x), over the last dimension."""
    return _apply(_RmsNorm, x, weight, epsilon)


class _RmsNorm(Function):
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
        return scaled.mul_(inverse).addcmul_(x, along_x, value=-1), for_weight, None


def lora_linear(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """y = x W' + s (x A') B' with a frozen W, as three matrix products."""
    return _apply(_LoraLinear, x, weight, a, b, scaling)


class _LoraLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.t()
        ctx.save_for_backward(flat, weight, a, b, low)
        ctx.scaling, ctx.shape = scaling, x.shape
        return (flat @ weight.t()).addmm_(low, b.t(), alpha=scaling).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, a, b, low = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        for_low = (grad @ b).mul_(ctx.scaling)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = (grad @ weight).addmm_(for_low, a).view(ctx.shape)
        return for_x, None, for_low.t() @ flat, (grad.t() @ low).mul_(ctx.scaling), None


def swiglu(gate_and_up: Tensor) -> Tensor:
    """y = silu(gate) * up, of two halves that lie side by side."""
    return _apply(_SwiGlu, gate_and_up)


class _SwiGlu(Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, dim=-1)
        for_both = torch.empty_like(both)
        for_gate, for_up = for_both.chunk(2, dim=-1)
        torch.mul(functional.silu(gate), grad, out=for_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=for_gate)
        return for_both


def split_and_rotate(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, ...]:
    """Queries, keys and values, (lines, heads, tokens, width), of a fused projection, positions rotated in.

    `cos` and `sin`, (lines, tokens, rotated width), belong to the tokens' positions.
    """
    split: tuple[Tensor, ...] = _SplitAndRotate.apply(qkv, cos, sin, heads, kv_heads)  # type: ignore[no-untyped-call]
    return split


class _SplitAndRotate(Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int) -> Any:
        turned = heads + kv_heads
        qkv = qkv.view(*qkv.shape[:-1], turned + kv_heads, -1)
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        ctx.save_for_backward(cos, sin)
        ctx.shape, ctx.heads, ctx.turned = qkv.shape, heads, turned
        out = torch.empty_like(qkv)  # values, too, so that attention keeps nothing of the projection
        _rotate(qkv[..., :turned, :], cos, sin, out[..., :turned, :])
        out[..., turned:, :] = qkv[..., turned:, :]
        parts = torch.split_with_sizes(out, [heads, kv_heads, kv_heads], dim=-2)
        return tuple(part.transpose(1, 2) for part in parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        for_q, for_k, for_v = (grad.transpose(1, 2) for grad in grads)
        out = for_q.new_empty(ctx.shape)
        _rotate(for_q, cos, -sin, out[..., : ctx.heads, :])
        _rotate(for_k, cos, -sin, out[..., ctx.heads : ctx.turned, :])
        out[..., ctx.turned :, :] = for_v
        return out.flatten(-2), None, None, None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Turn the pairs (x[i], x[i + half]) by angles whose cosines and sines both halves repeat."""
    width = cos.shape[-1]
    half = width // 2
    cos, sin = cos[..., :half], sin[..., :half]
    left, right = x[..., :half], x[..., half:width]
    torch.mul(left, cos, out=out[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out[..., half:width]).addcmul_(left, sin)
    if width < x.shape[-1]:
        out[..., width:] = x[..., width:]


def attend_by_row(q: Tensor, k: Tensor, v: Tensor, ends: Sequence[int], scale: float) -> Tensor:
    """Causal attention on a CPU, each row on its own: what lies in other rows of a line costs nothing.

    `q`, `k` and `v` are (lines, heads, tokens, width); `ends` are the rows' ends (the first is 0), lines one
    after another. Returns (lines, tokens, heads, width).
    """
    return _apply(_AttendByRow, q, k, v, ends, scale)


class _AttendByRow(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, ends: Sequence[int], scale: float) -> Tensor:
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3])
        ctx.places = list(_places(ends, q.shape[2]))
        sums = []
        for line, tokens in ctx.places:
            part, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q[line, :, tokens], k[line, :, tokens], v[line, :, tokens], 0.0, True, scale=scale
            )
            out[line, tokens] = part.transpose(1, 2)
            sums.append(logsumexp)
        ctx.save_for_backward(q, k, v, out, *sums)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *sums = ctx.saved_tensors
        grads = [part.new_empty(len(part), part.shape[2], part.shape[1], part.shape[3]) for part in (q, k, v)]
        for (line, tokens), logsumexp in zip(ctx.places, sums, strict=True):
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad[line, tokens].transpose(1, 2),
                *(part[line, :, tokens] for part in (q, k, v)),
                out[line, tokens].transpose(1, 2),
                logsumexp,
                0.0,
                True,
                scale=ctx.scale,
            )
            for whole, part in zip(grads, parts, strict=True):
                whole[line, tokens] = part.transpose(1, 2)
        return (*(whole.transpose(1, 2) for whole in grads), None, None)


def _places(ends: Sequence[int], width: int) -> list[tuple[slice, slice]]:
    """(line, tokens) of each row."""
    places = []
    for start, end in pairwise(ends):
        line, first = divmod(start, width)
        places.append((slice(line, line + 1), slice(first, first + end - start)))
    return places


def _apply(function: Any, *arguments: Any) -> Tensor:
    """`function.apply`, typed."""
    out: Tensor = function.apply(*arguments)
    return out
