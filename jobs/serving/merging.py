"""Adapters folded into the weights of their base model, and what tells whether that changed anything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuning.errors import InputError
from tuning.models import load_adapter

PROBE = (
    "Dear customer, your card ending in 4417 was charged 12.50 EUR on Tuesday; please tell us whether it "
    "was you. Was ist passiert? Le paiement a été refusé. def add(first, second): return first + second"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart on the probe: largest logit difference, share of equal first choices."""

    largest: float
    agreement: float


def merge_adapter(base: Any, adapter: Path) -> Any:
    """The base model with the adapter in its weights. Raises InputError if that cannot be."""
    return fold(load_adapter(base, adapter))


def fold(adapted: Any) -> Any:
    """Merge the adapter that a PEFT model carries; the model itself is used up. Raises InputError."""
    kind = adapted.peft_config["default"].peft_type
    if not hasattr(
        adapted.base_model, "merge_and_unload"
    ):  # prompt and prefix tuning add tokens, not weights
        raise InputError(
            f"An adapter of type {getattr(kind, 'value', kind)} cannot be merged; train a LoRA adapter."
        )
    return adapted.merge_and_unload()


@torch.inference_mode()
def probe(model: Any, tokenizer: Any) -> torch.Tensor:
    """The model's scores on the probe text, (tokens, vocabulary) in fp32."""
    tokens = tokenizer(PROBE, return_tensors="pt")["input_ids"]
    tokens = tokens[:, : model.config.get_text_config().max_position_embeddings]
    logits: torch.Tensor = model.eval()(input_ids=tokens).logits[0].float()
    return logits


def difference(expected: torch.Tensor, found: torch.Tensor) -> Difference:
    """Compare two results of `probe`."""
    same = (expected.argmax(-1) == found.argmax(-1)).float().mean()
    return Difference(largest=float((expected - found).abs().max()), agreement=float(same))
