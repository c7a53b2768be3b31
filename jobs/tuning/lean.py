"""The same layers with fewer passes over memory, for training in fp32 on a CPU.

A small model's step on a CPU is half matrix products and half elementwise passes. Two of the layers that make
most of these passes are given forward and backward written out: RMSNorm, and PEFT's LoRA on a linear layer
(the low-rank product is added inside the matrix product, and so are its gradients). A layer is taken only if
its new forward gives the numbers of the old one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

TOLERANCE = 1e-5


class _RmsNorm(Function):
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


class _LoraLinear(Function):
    """y = x W' + s (x A') B' with a frozen W, as three matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.t()
        ctx.save_for_backward(flat, weight, a, b, low)
        ctx.scaling, ctx.shape = scaling, x.shape
        return torch.addmm(flat @ weight.t(), low, b.t(), alpha=scaling).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, a, b, low = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        for_low = (grad @ b).mul_(ctx.scaling)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = torch.addmm(grad @ weight, for_low, a).view(ctx.shape)
        return for_x, None, for_low.t() @ flat, (grad.t() @ low).mul_(ctx.scaling), None


def make_lean(model: nn.Module) -> int:
    """Give every layer that has a lean form its lean forward; returns how many have one now."""
    return sum(_lean_norm(part) or _lean_lora(part) for part in model.modules())


def _lean_norm(norm: nn.Module) -> bool:
    """RMSNorm as Llama, Phi-3 and their kin write it, known by its name and its epsilon."""
    epsilon, weight = getattr(norm, "variance_epsilon", None), getattr(norm, "weight", None)
    if epsilon is None or not isinstance(weight, Tensor) or not type(norm).__name__.endswith("RMSNorm"):
        return False

    def forward(hidden_states: Tensor) -> Tensor:
        return _apply(_RmsNorm, hidden_states, norm.weight, epsilon)

    return _replace_forward(norm, forward, weight.shape[-1], weight.dtype)


def _lean_lora(layer: nn.Module) -> bool:
    """PEFT's plain LoRA on a linear layer without bias and dropout, with the one adapter named `default`."""
    base, adapters = getattr(layer, "base_layer", None), getattr(layer, "lora_A", None)
    if not (isinstance(base, nn.Linear) and isinstance(adapters, nn.ModuleDict)) or base.bias is not None:
        return False
    parts: Any = layer
    if list(adapters) != ["default"] or not isinstance(parts.lora_dropout["default"], nn.Identity):
        return False
    if (
        parts.lora_variant or parts.lora_B["default"].bias is not None
    ):  # DoRA and its kin: equal only at first
        return False
    a, b, scaling = parts.lora_A["default"], parts.lora_B["default"], float(parts.scaling["default"])
    original = layer.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or parts.disable_adapters or parts.merged:
            return original(x, *args, **kwargs)
        return _apply(_LoraLinear, x, base.weight, a.weight, b.weight, scaling)

    return _replace_forward(layer, forward, base.in_features, base.weight.dtype)


def _apply(function: Any, *arguments: Any) -> Tensor:
    """`function.apply`, typed."""
    out: Tensor = function.apply(*arguments)
    return out


def _replace_forward(layer: nn.Module, forward: Any, width: int, dtype: torch.dtype) -> bool:
    """Put `forward` in place if it computes what the layer computes, on numbers of ordinary size."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(4, width, generator=generator)
    with torch.no_grad():
        if dtype != torch.float32 or not torch.allclose(layer(probe), forward(probe), atol=TOLERANCE):
            return False
    layer.forward = forward
    return True
