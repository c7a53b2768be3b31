"""Prompt tuning, p-tuning and prefix tuning where rows lie side by side: each row has its own virtual tokens.

PEFT puts virtual tokens before each line of a batch and counts positions from there. In a line with several
rows only the first one would see them, and in a line that is padded on the left they would be far from the
text. So a model with virtual tokens reads like this: virtual tokens before every row, positions 0, 1, 2, ...
with these. What is saved is PEFT's own, and one row alone is read as PEFT reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from tuning.errors import InputError

FULL, SLIDING = "full_attention", "sliding_attention"


def count_virtual_tokens(model: Any) -> int:
    """How many virtual tokens a model reads before each text."""
    config = getattr(model, "peft_config", {}).get("default")
    return int(config.num_virtual_tokens) if config is not None and config.is_prompt_learning else 0


def read_virtual_tokens(model: Any) -> Any:
    """Let a PEFT model read its virtual tokens as described above. Raises InputError where it cannot."""
    if _is_prefix(model):
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or [FULL])
        if not kinds <= {FULL, SLIDING}:
            raise InputError(
                f"prefix does not work with the attention of this model ({', '.join(sorted(kinds))}); "
                "take prompt or p-tuning."
            )
    model.forward = partial(_forward, model)
    return model


def _is_prefix(model: Any) -> bool:
    return str(model.peft_config["default"].peft_type.value) == "PREFIX_TUNING"


def _forward(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,
    logits_to_keep: int | Tensor = 0,
    **more: Any,
) -> Any:
    """The model's forward, with virtual tokens unless the cache has read them already.

    Rows may lie side by side, each with positions from 0, or be padded on the left with an attention mask.
    Where rows end besides (`cu_seq_lens_q`) is not passed on: with virtual tokens they end elsewhere.
    """
    more = {name: value for name, value in more.items() if not name.startswith(("cu_seq_lens", "max_length"))}
    base, count = model.get_base_model(), count_virtual_tokens(model)
    read = 0 if past_key_values is None else int(past_key_values.get_seq_length())
    if position_ids is None:
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        position_ids = position_ids + max(0, read - count)
    if isinstance(logits_to_keep, int):
        logits_to_keep = logits_to_keep or input_ids.shape[1]  # none of the virtual tokens
    batch = _Batch(input_ids, position_ids, attention_mask, past_key_values, logits_to_keep)
    if _is_prefix(model):
        told = _after_prefix(model, batch, is_first=not read)
    elif read:
        told = batch.told(position_ids=position_ids + count, attention_mask=batch.longer_mask(count))
    else:
        told = _behind_prompts(model, batch)
    return base(**told, **more)


@dataclass(frozen=True)
class _Batch:
    """What a model is called with."""

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    cache: Any
    logits_to_keep: int | Tensor

    def told(self, **changed: Any) -> dict[str, Any]:
        """The arguments of a call of the base, with some changed."""
        mine = {"input_ids": self.input_ids, "past_key_values": self.cache}
        return {**mine, "logits_to_keep": self.logits_to_keep, **changed}

    def longer_mask(self, count: int) -> Tensor | None:
        """The attention mask with room for `count` tokens between the padding and the text."""
        return (
            None if self.attention_mask is None else functional.pad(self.attention_mask, (0, count), value=1)
        )


def _after_prefix(model: Any, batch: _Batch, *, is_first: bool) -> dict[str, Any]:
    """What the base is told so that each row sees the prefix, which is in the cache, and no other row."""
    config, count = model.config.get_text_config(), count_virtual_tokens(model)
    cache = batch.cache
    if is_first:
        cache = DynamicCache() if cache is None else cache  # one that keeps all, also outside of a window
        for number, layer in enumerate(model.get_prompt(len(batch.input_ids)).layers):
            cache.update(layer.keys, layer.values, number)
    places = batch.position_ids + count
    mask: Any = None
    if batch.attention_mask is not None:
        is_text = batch.attention_mask.bool()
        text_places = (is_text.cumsum(1) - 1).clamp(min=0) + count
        mask = _masks(config, places, text_places, is_text[:, None], count)
    elif is_first and int((rows := (batch.position_ids == 0).cumsum(1)).max()) > 1:
        mask = _masks(config, places, places, rows[:, :, None] == rows[:, None], count)
    return batch.told(position_ids=places, past_key_values=cache, attention_mask=mask)


def _masks(config: Any, places: Tensor, text_places: Tensor, may_see: Tensor, count: int) -> Any:
    """Who sees whom, (lines, 1, tokens, prefix + text), by places: one mask, or one a kind of attention.

    transformers' own masks go by columns, where padding or other rows lie between a text and its prefix.
    """
    virtual = torch.arange(count, device=places.device).expand(len(places), -1)
    distance = places[:, :, None] - torch.cat([virtual, text_places], dim=1)[:, None]
    seen = functional.pad(may_see.expand(-1, places.shape[1], -1), (count, 0), value=True) & (distance >= 0)
    window = getattr(config, "sliding_window", None)
    near = seen & (distance < window) if window else seen
    masks = {
        kind: _as_attention_reads_it(config, mask[:, None]) for kind, mask in ((FULL, seen), (SLIDING, near))
    }
    kinds = set(getattr(config, "layer_types", None) or ())
    return masks if kinds == {FULL, SLIDING} else masks[FULL if kinds == {FULL} else SLIDING]


def _as_attention_reads_it(config: Any, seen: Tensor) -> Tensor:
    """A mask of truth values, or for attention written out in PyTorch one that is added to the scores."""
    if config._attn_implementation != "eager":
        return seen
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)


def _behind_prompts(model: Any, batch: _Batch) -> dict[str, Any]:
    """What the base is told so that each row stands behind its own virtual tokens."""
    embedded = model.get_base_model().get_input_embeddings()(batch.input_ids)
    prompt = model.get_prompt(1)[0].to(embedded.dtype)
    places = _Places(batch.position_ids, len(prompt), batch.attention_mask)
    keep = batch.logits_to_keep
    if isinstance(keep, Tensor):
        keep = places.spread(keep, places.nothing(torch.bool))
    elif len(places.lines) > len(batch.input_ids):
        raise ValueError("For lines with several rows, logits_to_keep must be a mask.")
    width = embedded.shape[-1]
    embeds = places.spread(embedded, embedded.new_zeros(*places.shape, width))
    return batch.told(
        input_ids=None,
        inputs_embeds=places.put_prompt(prompt, embeds),
        position_ids=places.put_prompt(places.counting, places.positions()),
        attention_mask=batch.longer_mask(len(prompt)),
        logits_to_keep=keep,
    )


class _Places:
    """Where the tokens of a batch of lines go when each row in them gets `count` virtual tokens.

    With an attention mask a line is one row behind its padding.
    """

    def __init__(self, position_ids: Tensor, count: int, attention_mask: Tensor | None) -> None:
        device, width = position_ids.device, position_ids.shape[1]
        self._position_ids, self._count = position_ids, count
        starts = position_ids == 0
        if attention_mask is not None:
            starts = (attention_mask.cumsum(1) == 1) & (attention_mask == 1)
        rows = starts.cumsum(1)
        self._columns = torch.arange(width, device=device) + count * rows  # the new place of each token
        self.shape = (len(position_ids), width + count * int(rows.max()))
        self.counting = torch.arange(count, device=device)
        self.lines, tokens = starts.nonzero(as_tuple=True)  # one number a row, as are the next
        self._first = self._columns[self.lines, tokens] - count

    def nothing(self, dtype: torch.dtype) -> Tensor:
        """Zeros for the new lines."""
        return torch.zeros(self.shape, dtype=dtype, device=self._columns.device)

    def spread(self, values: Tensor, onto: Tensor) -> Tensor:
        """Values of the tokens, (lines, tokens, ...), put into new lines, (lines, width, ...)."""
        index = self._columns if values.ndim == 2 else self._columns[:, :, None].expand_as(values)
        return onto.scatter(1, index, values)

    def put_prompt(self, prompt: Tensor, onto: Tensor) -> Tensor:
        """Values of the virtual tokens, (count, ...), put before each row."""
        lines = self.lines[:, None].expand(-1, self._count)
        return onto.index_put(
            (lines, self._first[:, None] + self.counting), prompt.expand(len(lines), *prompt.shape)
        )

    def positions(self) -> Tensor:
        """The positions of the tokens in the new lines; what is behind a shorter line is a row of its own."""
        columns = torch.arange(self.shape[1], device=self._columns.device).expand(self.shape)
        behind = columns - (self._columns[:, -1:] + 1)
        return self.spread(self._position_ids + self._count, behind)
