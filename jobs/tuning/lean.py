"""The same layers with less work, for training in fp32 on a CPU.

A small model's step on a CPU is half matrix products and half elementwise passes over memory. The layers
that make most of both are given a forward of their own, with the passes written out in tuning/gradients.py:
linear layers, PEFT's LoRA on them, RMSNorm, and Phi-3's attention and gated MLP with their fused projections.
A layer is taken only if its new forward gives the numbers of the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tuning.gradients import GatedSilu, Linear, LoraLinear, RmsNorm, RotatedHeads

TOLERANCE = 1e-5
PROBE_TOKENS = 4

Forward = Callable[..., Any]


def make_lean(model: nn.Module) -> int:
    """Give every layer that has a lean form its lean forward; returns how many have one now."""
    forms = (_lean_linear, _lean_lora, _lean_norm, _lean_mlp, _lean_attention)
    return sum(any(form(part) for form in forms) for part in model.modules())


def _lean_linear(layer: nn.Module) -> bool:
    """A linear layer without bias."""
    if type(layer) is not nn.Linear or layer.bias is not None:
        return False

    def forward(x: Tensor) -> Tensor:
        return _apply(Linear, x, layer.weight)

    return _replace_forward(layer, forward, layer.in_features)


def _lean_lora(layer: nn.Module) -> bool:
    """PEFT's plain LoRA on a linear layer without bias and dropout, with the one adapter named `default`."""
    base, adapters = getattr(layer, "base_layer", None), getattr(layer, "lora_A", None)
    if not (isinstance(base, nn.Linear) and isinstance(adapters, nn.ModuleDict)) or base.bias is not None:
        return False
    parts: Any = layer
    if list(adapters) != ["default"] or not isinstance(parts.lora_dropout["default"], nn.Identity):
        return False
    a, b, scaling = parts.lora_A["default"], parts.lora_B["default"], float(parts.scaling["default"])
    original = layer.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or parts.disable_adapters or parts.merged:
            return original(x, *args, **kwargs)
        return _apply(LoraLinear, x, base.weight, a.weight, b.weight, scaling)

    return _replace_forward(layer, forward, base.in_features)


def _lean_norm(norm: nn.Module) -> bool:
    """RMSNorm as Llama, Phi-3 and their kin write it, known by its name and its epsilon."""
    epsilon, weight = getattr(norm, "variance_epsilon", None), getattr(norm, "weight", None)
    if epsilon is None or not isinstance(weight, Tensor) or not type(norm).__name__.endswith("RMSNorm"):
        return False

    def forward(hidden_states: Tensor) -> Tensor:
        return _apply(RmsNorm, hidden_states, norm.weight, epsilon)

    return _replace_forward(norm, forward, weight.shape[-1])


def _lean_mlp(mlp: nn.Module) -> bool:
    """An MLP whose gate and up projection are one."""
    parts: Any = mlp
    if not all(hasattr(mlp, name) for name in ("gate_up_proj", "down_proj", "activation_fn")):
        return False

    def forward(hidden_states: Tensor) -> Tensor:
        return parts.down_proj(_apply(GatedSilu, parts.gate_up_proj(hidden_states)))  # type: ignore[no-any-return]

    return _replace_forward(mlp, forward, getattr(parts.gate_up_proj, "in_features", 0))


def _lean_attention(attention: nn.Module) -> bool:
    """Attention whose query, key and value projection are one, and whose heads are turned as a whole."""
    parts: Any = attention
    if not all(hasattr(attention, name) for name in ("qkv_proj", "o_proj", "head_dim", "scaling", "config")):
        return False
    config, original = parts.config, attention.forward
    if config._attn_implementation != "sdpa" or config.attention_dropout:
        return False

    def forward(
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        cos, sin = position_embeddings
        if past_key_values is not None or cos.shape[-1] != parts.head_dim:
            return original(  # type: ignore[no-any-return]
                hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
            )
        heads = config.num_attention_heads, config.num_key_value_heads
        qkv: Any = _apply(RotatedHeads, parts.qkv_proj(hidden_states), cos, sin, *heads)
        mixed, _ = sdpa_attention_forward(attention, *qkv, attention_mask, scaling=parts.scaling, **kwargs)
        return parts.o_proj(mixed.flatten(-2)), None

    angles = torch.randn(1, PROBE_TOKENS, parts.head_dim // 2, generator=_generator()).repeat(1, 1, 2)
    return _replace_forward(attention, forward, config.hidden_size, (angles.cos(), angles.sin()), None)


def _apply(function: Any, *arguments: Any) -> Tensor:
    """`function.apply`, typed."""
    out: Tensor = function.apply(*arguments)
    return out


def _replace_forward(layer: nn.Module, forward: Forward, width: int, *more: Any) -> bool:
    """Put `forward` in place if it computes what the layer computes, on numbers of ordinary size."""
    if any(parameter.dtype != torch.float32 for parameter in layer.parameters()):
        return False
    probe = torch.randn(1, PROBE_TOKENS, width, generator=_generator())
    with torch.no_grad():
        old, new = layer(probe, *more), forward(probe, *more)
    if isinstance(old, tuple):
        old, new = old[0], new[0]
    if not torch.allclose(old, new, atol=TOLERANCE):
        return False
    layer.forward = forward
    return True


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
