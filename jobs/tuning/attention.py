"""Attention over rows that lie side by side, by PyTorch's flash kernels: other rows cost nothing.

transformers knows it as `packed`. The loss says where rows end (`cu_seq_lens_q`), so no mask is made, which
for long lines would be larger than the activations. Whoever calls the model with a mask or a cache gets
masked attention as before.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuning.handwritten import attend_by_row

PACKED = "packed"


def use_packed_attention(model: Any) -> None:
    """Let a model of transformers, or PEFT's model around one, attend so."""
    ALL_ATTENTION_FUNCTIONS.register(PACKED, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, _mask)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.set_attn_implementation(PACKED)


def _mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **more: Any) -> Any:
    """No mask where there is neither padding nor a cache: then the rows' ends say who sees whom."""
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
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Of queries, keys and values, (lines, heads, tokens, width), to (lines, tokens, heads, width)."""
    if cu_seq_lens_q is None or attention_mask is not None or dropout:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return out
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window and sliding_window < max_length_q else None
    if query.device.type == "cpu" and window is None:
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return attend_by_row(query, key, value, cu_seq_lens_q.tolist(), scale), None
    return _flash(query, key, value, cu_seq_lens_q, max_length_q, scale, window), None


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
