"""The same layers with fewer passes over memory.

A small model's step on a CPU is half matrix products and half elementwise passes; on a GPU these passes keep
a large model's step from the peak. The layers that make most of them are given forward and backward written
out (tuning/handwritten.py) or another kernel's: RMSNorm, PEFT's LoRA on a linear layer, and the attention and
the feed-forward part of Phi-3 and its kin. A layer is taken only if its new forward gives the numbers of the
old one; where it is called in a way that the new one does not know, the old one answers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuning import handwritten

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
# A line as short as this costs less with one mask for all its rows than row by row.
SHORT_LINE = 256
OTHER_KIND = (AttributeError, IndexError, ImportError, RuntimeError, TypeError, ValueError)
"""What a layer raises that only has the right names, or a kernel that does not run here."""


@dataclass(frozen=True)
class Parts:
    """The operations that lean layers are made of; without `rms_norm` norms stay as they are."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor] | None = handwritten.rms_norm
    swiglu: Callable[[Tensor], Tensor] = handwritten.swiglu


def make_lean(model: nn.Module, parts: Parts | None = None, autocast: Callable[[], Any] = nullcontext) -> int:
    """Give every layer that has a lean form its lean forward; returns how many have one now.

    `autocast` is the number format in which the layers will be called.
    """
    work = _Work(parts or Parts(), autocast)
    kinds = (work.lean_norm, work.lean_lora, work.lean_feed_forward, work.lean_attention)
    was_training = model.training
    model.eval()  # dropout inside would make every comparison fail
    layers = reversed(list(model.modules()))  # inner ones first: outer ones are compared with these in place
    count = sum(any(kind(layer) for kind in kinds) for layer in layers)
    model.train(was_training)
    return count


@dataclass(frozen=True)
class _Work:
    parts: Parts
    autocast: Callable[[], AbstractContextManager[Any]]

    def lean_norm(self, norm: Any) -> bool:
        """RMSNorm as Llama, Phi-3 and their kin write it, known by its name and its epsilon."""
        epsilon, weight = getattr(norm, "variance_epsilon", None), getattr(norm, "weight", None)
        rms_norm = self.parts.rms_norm
        if epsilon is None or rms_norm is None or not isinstance(weight, Tensor):
            return False
        if not type(norm).__name__.endswith("RMSNorm"):
            return False

        def forward(hidden_states: Tensor) -> Tensor:
            return rms_norm(hidden_states, norm.weight, epsilon)

        return self._replace(norm, forward, weight, (4, weight.shape[-1]))

    def lean_lora(self, layer: Any) -> bool:
        """PEFT's plain LoRA on a linear layer without bias and dropout, its adapter named `default`."""
        base, adapters = getattr(layer, "base_layer", None), getattr(layer, "lora_A", None)
        if type(base) is not nn.Linear or not isinstance(adapters, nn.ModuleDict) or base.bias is not None:
            return False
        if list(adapters) != ["default"] or not isinstance(layer.lora_dropout["default"], nn.Identity):
            return False
        if layer.lora_variant or layer.lora_B["default"].bias is not None:
            return False  # DoRA and its kin: equal only at first
        a, b, scaling = layer.lora_A["default"], layer.lora_B["default"], float(layer.scaling["default"])
        original = layer.forward

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            weight = base.weight
            if args or kwargs or layer.disable_adapters or layer.merged or x.dtype != weight.dtype:
                out: Tensor = original(x, *args, **kwargs)
                return out
            return handwritten.lora_linear(x, weight, a.weight.to(x.dtype), b.weight.to(x.dtype), scaling)

        return self._replace(layer, forward, base.weight, (4, base.in_features))

    def lean_feed_forward(self, part: Any) -> bool:
        """A feed-forward part whose first layer makes gate and values side by side (Phi-3)."""
        if not (layers := _layers(part, "gate_up_proj", "down_proj")) or _drops_out(part):
            return False
        into, out_of = layers
        swiglu = self.parts.swiglu

        def forward(hidden_states: Tensor) -> Tensor:
            out: Tensor = out_of(swiglu(into(hidden_states)))
            return out

        return self._replace(part, forward, _like(into), (4, into.in_features))

    def lean_attention(self, part: Any) -> bool:
        """Attention with one projection for queries, keys and values (Phi-3), without a cache."""
        kv_heads = getattr(part, "num_key_value_heads", None)
        if not (layers := _layers(part, "qkv_proj", "o_proj")) or kv_heads is None:
            return False
        projection, out_of = layers
        if getattr(part, "attention_dropout", None) != 0.0 or _drops_out(part):
            return False
        heads, original = part.config.num_attention_heads, part.forward

        def forward(
            hidden_states: Tensor,
            position_embeddings: tuple[Tensor, Tensor],
            attention_mask: Tensor | None = None,
            past_key_values: Any = None,
            **kwargs: Any,
        ) -> tuple[Tensor, Tensor | None]:
            if past_key_values is not None or part.config._attn_implementation == "eager":
                out: tuple[Tensor, Tensor | None] = original(
                    hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
                )
                return out
            qkv = projection(hidden_states)
            q, k, v = handwritten.split_and_rotate(qkv, *position_embeddings, heads, kv_heads)
            mixed = _attend(part, q, k, v, attention_mask, **kwargs)
            return out_of(mixed.reshape(*hidden_states.shape[:-1], -1)), None

        width, like = int(part.head_dim) // 2 * 2, _like(projection)
        angles = _numbers(like, 1, 4, width // 2).repeat(1, 1, 2)
        rotation = (angles.cos(), angles.sin())
        return self._replace(part, forward, like, (1, 4, projection.in_features), rotation, None)

    def _replace(
        self, layer: Any, forward: Callable[..., Any], like: Tensor, shape: tuple[int, ...], *more: Any
    ) -> bool:
        """Put `forward` in place if its outputs and gradients are the layer's, for numbers in that shape.

        `like` is a tensor in the format in which the layer is called.
        """
        if like.dtype not in TOLERANCE or "forward" in vars(layer):
            return False  # another format, or a layer that is lean already
        numbers = _numbers(like, *shape).requires_grad_()
        try:
            expected = self._outcome(layer, numbers, *more)
            found = self._outcome(forward, numbers, *more)
        except OTHER_KIND:
            return False
        tolerance = TOLERANCE[expected[0].dtype]
        if not all(is_near(one, other, tolerance) for one, other in zip(found, expected, strict=True)):
            return False
        layer.forward = forward
        return True

    def _outcome(self, call: Callable[..., Any], numbers: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
        """What a layer makes of numbers, and the gradient on these of something that follows from it."""
        with torch.enable_grad(), self.autocast():
            out = call(numbers, *more)
        out = out[0] if isinstance(out, tuple) else out
        (gradient,) = torch.autograd.grad(out, numbers, _numbers(out, *out.shape, seed=1))
        return out.detach(), gradient


def is_near(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether two tensors of one format differ by no more than a share of their size."""
    if found.dtype != expected.dtype:
        return False
    return bool((found - expected).norm() <= tolerance * expected.norm())


def _attend(part: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any) -> Tensor:
    """Attention, (lines, tokens, heads, width), by the mask or, on a CPU, row by row where that is cheaper.

    Row by row it can be where the loss says where rows end (`cu_seq_lens_q`).
    """
    ends, longest = kwargs.get("cu_seq_lens_q"), kwargs.get("max_length_q") or 0
    window = getattr(part.config, "sliding_window", None)
    is_long = mask is not None and q.shape[2] > SHORT_LINE and longest <= (window or longest)
    if ends is not None and is_long and q.device.type == "cpu":
        groups = part.num_key_value_groups
        k, v = repeat_kv(k, groups), repeat_kv(v, groups)
        return handwritten.attend_by_row(q, k, v, ends.tolist(), float(part.scaling))
    attend = ALL_ATTENTION_FUNCTIONS[part.config._attn_implementation]
    out: Tensor = attend(
        part, q, k, v, mask, dropout=0.0, scaling=part.scaling, sliding_window=window, **kwargs
    )[0]
    return out


def _layers(part: nn.Module, *names: str) -> list[Any]:
    """The layers of these names inside another one; none if one is missing."""
    found = [getattr(part, name, None) for name in names]
    return found if all(isinstance(layer, nn.Module) for layer in found) else []


def _like(layer: Any) -> Tensor:
    """A tensor in the format of a linear layer's inputs; packed weights name another one for these."""
    weight: Tensor = layer.weight
    base = getattr(layer, "base_layer", layer)
    computes_in = getattr(base, "compute_dtype", None)
    return weight if computes_in is None else weight.new_empty(0, dtype=computes_in)


def _drops_out(part: nn.Module) -> bool:
    """Whether a layer drops something out between its own parts."""
    return any(isinstance(child, nn.Dropout) and child.p > 0 for child in part.children())


def _numbers(like: Tensor, *shape: int, seed: int = 0) -> Tensor:
    """The same random numbers of ordinary size each time, in the format and on the device of a tensor."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(like)
