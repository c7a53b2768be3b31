"""Adapters folded into the weights of their base model, and what tells whether that changed anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from serving.model_folder import ModelSource
from tuning.errors import InputError
from tuning.models import load_adapter, load_model
from tuning.quantization import unpack

PROBE = (
    "Dear customer, your card ending in 4417 was charged 12.50 EUR on Tuesday; please tell us whether it "
    "was you. Was ist passiert? Le paiement a été refusé. def add(first, second): return first + second"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart on the probe: largest logit difference, share of equal first choices."""

    largest: float
    agreement: float


def load_tuned(source: ModelSource, dtype: torch.dtype, device: torch.device) -> Any:
    """Weights with their adapter as one model, for serving. Raises InputError.

    An adapter is merged: answers are the same to rounding, and a layer costs one product instead of three.
    Weights that were packed in training are packed and unpacked again first, for the adapter belongs to what
    they were then. Virtual tokens stay what they are.
    """
    if source.adapter is None:
        return load_model(source.weights, dtype).to(device)
    adapted = load_adapter(load_base(source, dtype, device), source.adapter)
    return (fold(adapted) if is_mergeable(adapted) else adapted).to(device)


def load_base(source: ModelSource, dtype: torch.dtype, device: torch.device) -> Any:
    """The base of an adapter with the weights that it was trained on, as plain layers. Raises InputError."""
    model = load_model(source.weights, dtype, source.quantization, device)
    return model if source.quantization == "none" else unpack(model, dtype)


def is_mergeable(adapted: Any) -> bool:
    """Whether an adapter changes weights; virtual tokens are read before a text and change none."""
    return not adapted.peft_config["default"].is_prompt_learning


def fold(adapted: Any) -> Any:
    """Merge the adapter that a PEFT model carries; the model itself is used up. Raises InputError."""
    if not is_mergeable(adapted):
        kind = adapted.peft_config["default"].peft_type
        raise InputError(
            f"An adapter of type {kind.value} cannot be merged: it reads virtual tokens before each text; "
            "serve it as an adapter."
        )
    return adapted.merge_and_unload()


@torch.inference_mode()
def probe(model: Any, tokenizer: Any) -> torch.Tensor:
    """The model's scores on the probe text, (tokens, vocabulary) in fp32 on the CPU."""
    tokens = tokenizer(PROBE, return_tensors="pt")["input_ids"].to(model.device)
    tokens = tokens[:, : model.config.get_text_config().max_position_embeddings]
    logits: torch.Tensor = model.eval()(input_ids=tokens).logits[0].float().cpu()
    return logits


def difference(expected: torch.Tensor, found: torch.Tensor) -> Difference:
    """Compare two results of `probe`."""
    same = (expected.argmax(-1) == found.argmax(-1)).float().mean()
    return Difference(largest=float((expected - found).abs().max()), agreement=float(same))
