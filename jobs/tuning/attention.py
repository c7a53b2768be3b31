"""Attention over rows that lie side by side, by PyTorch's flash kernels: other rows cost nothing.

transformers knows it as `packed`. The loss says where rows end (`cu_seq_lens_q`), so no mask is made, which
for long lines would be larger than the activations. Where nobody says it, or a kernel does not do what is
asked, a mask is made of what is known, the rows' ends or the tokens' positions: no row ever sees another.
Whoever calls the model with a mask or a cache gets masked attention as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuning.handwritten import attend_by_row

PACKED = "packed"
KINDS = frozenset({"full_attention", "sliding_attention"})
WIDEST_HEAD, HEADS_STEP = 256, 8
"""Flash kernels take heads of up to so many numbers, in multiples of so many."""
PLAIN_ONLY = ("softcap", "s_aux", "position_bias")
"""Arguments of some models' attention that neither kernel here knows."""


def use_packed_attention(model: Any) -> None:
    """Let a model of transformers, or PEFT's model around one, attend so."""
    ALL_ATTENTION_FUNCTIONS.register(PACKED, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, _mask)
    _base(model).set_attn_implementation(PACKED)


def use_masked_attention(model: Any) -> None:
    """Let a model attend as it did before `use_packed_attention`."""
    _base(model).set_attn_implementation("sdpa")


def why_not_packed(model: Any, device: torch.device, autocast: Callable[[], Any]) -> str | None:
    """What speaks against packed attention in a model, None if nothing does.

    The flash kernels are tried on `device` with heads of the model's width; a model that is there itself is
    asked for logits in the number format `autocast`, which must be those of before.
    """
    config = _base(model).config.get_text_config()
    if config._attn_implementation != "sdpa":
        return f"the model computes its attention its own way ({config._attn_implementation})"
    kinds = set(getattr(config, "layer_types", None) or ()) - KINDS
    if kinds or getattr(config, "attention_chunk_size", None):
        return f"the model has attention of another kind ({', '.join(sorted(kinds)) or 'in chunks'})"
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    if device.type == "cuda" and (width > WIDEST_HEAD or width % HEADS_STEP):
        return f"flash kernels do not take heads of {width} numbers"
    if device.type == "cuda" and not _flash_is_right(heads, width, device):
        return "flash kernels do not run here"
    if next(model.parameters()).device.type == device.type and not _logits_stay(model, device, autocast):
        return "the model's logits would change"
    return None


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **more: Any) -> Any:
    """No mask where there is neither padding nor a cache: `_attend` knows then who sees whom."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **more)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    position_ids: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Of queries, keys and values, (lines, heads, tokens, width), to (lines, tokens, heads, width)."""
    is_masked = attention_mask is not None or query.shape[2] != key.shape[2]
    is_plain = not dropout and all(more.get(name) is None for name in PLAIN_ONLY)
    if is_masked or cu_seq_lens_q is None or not is_plain:
        if not is_masked:
            attention_mask = _who_sees_whom(query, cu_seq_lens_q, position_ids, sliding_window)
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return out
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window and sliding_window < max_length_q else None
    if query.device.type != "cpu":
        return _flash(query, key, value, cu_seq_lens_q, max_length_q, scale, window), None
    if window is not None:
        mask = _who_sees_whom(query, cu_seq_lens_q, position_ids, window)
        windowed: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, scaling=scale)
        return windowed
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    return attend_by_row(query, key, value, cu_seq_lens_q.tolist(), scale), None


def _who_sees_whom(
    query: Tensor, ends: Tensor | None, position_ids: Tensor | None, window: int | None
) -> Tensor | None:
    """(lines, 1, tokens, tokens): the tokens before, of the same row; None where each line is one row.

    Raises ValueError where neither ends nor positions are told: rows could not be told apart.
    """
    lines, _, tokens, _ = query.shape
    places = torch.arange(lines * tokens, device=query.device)
    if ends is not None:
        rows = torch.bucketize(places, ends[1:].long(), right=True).view(lines, tokens)
    elif position_ids is not None and position_ids.ndim == 2:
        before = position_ids[:, :1] - 1
        rows = (position_ids.diff(prepend=before) != 1).cumsum(1).expand(lines, -1)
    else:
        raise ValueError("Attention is told neither where rows end nor the tokens' positions.")
    if (window is None or window >= tokens) and bool((rows == rows[:, :1]).all()):
        return None
    columns = places[:tokens]
    distance = columns[:, None] - columns
    near = (distance >= 0) & (distance < (window or tokens))
    return (near & (rows[:, :, None] == rows[:, None]))[:, None]


def _flash(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    lines, heads, tokens, width = query.shape
    q, k, v = (
        part.transpose(1, 2).reshape(lines * tokens, -1, width).to(value.dtype)
        for part in (query, key, value)
    )
    seen = (-1 if window is None else window - 1, 0)  # how far back and ahead
    told: Any = {"scale": scale, "window_size": seen, "enable_gqa": key.shape[1] != heads}
    out: Any = varlen_attn(q, k, v, ends, ends, longest, longest, **told)
    return out.view(lines, tokens, heads, width)  # type: ignore[no-any-return]


def _flash_is_right(heads: int, width: int, device: torch.device) -> bool:
    """Whether the flash kernels run with such heads and have the outputs and gradients of a mask."""
    ends = torch.tensor([0, 5, 16, 32], dtype=torch.int32, device=device)
    numbers = torch.randn(3, 2, heads, 16, width, generator=torch.Generator().manual_seed(0))
    outcomes = []
    for is_flash in (True, False):
        q, k, v = numbers.to(device, torch.bfloat16).requires_grad_()
        try:
            if is_flash:
                out = _flash(q, k, v, ends, 16, width**-0.5, None).transpose(1, 2)
            else:
                mask = _who_sees_whom(q, ends, None, None)
                out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            outcomes.append((out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))))
        except (ImportError, RuntimeError, TypeError, ValueError):
            return False
    return all(_is_near(one, other) for one, other in zip(*outcomes, strict=True))


@torch.no_grad()
def _logits_stay(model: Any, device: torch.device, autocast: Callable[[], Any]) -> bool:
    """Whether packed attention gives a model's logits, told of rows' ends and by positions alone."""
    ids = torch.arange(32, device=device)[None] % model.get_input_embeddings().num_embeddings
    told: dict[str, Any] = {"input_ids": ids, "position_ids": ids.new_tensor([[*range(12), *range(20)]])}
    told["use_cache"] = False
    ends = torch.tensor([0, 12, 32], dtype=torch.int32, device=device)
    by_ends = {f"cu_seq_lens_{side}": ends for side in "qk"} | {f"max_length_{side}": 20 for side in "qk"}
    was_training = model.training
    model.eval()
    try:
        with autocast():
            expected = model(**told).logits
            use_packed_attention(model)
            found = [model(**told, **more).logits for more in (by_ends, {})]
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    finally:
        use_masked_attention(model)
        model.train(was_training)
    return all(_is_near(one, expected) for one in found)


def _is_near(found: Tensor, expected: Tensor) -> bool:
    tolerance = 1e-4 if expected.dtype == torch.float32 else 5e-2
    return bool((found - expected).norm() <= tolerance * expected.norm())
