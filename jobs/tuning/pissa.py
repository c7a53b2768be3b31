"""PiSSA saved as a plain LoRA: an adapter that fits the original base instead of what PiSSA left of it.

PiSSA begins with A0 and B0, the main directions of a weight W, and trains W - s B0 A0 + s B A. As an adapter
of W that is s (B A - B0 A0), which is a LoRA of twice the rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

START = "pissa_start"


def remember_start(model: Any) -> Any:
    """Keep the adapter's first matrices with the model; a resumed run finds the same ones in the base."""
    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    setattr(model, START, start)
    return model


def as_lora(model: Any, weights: Mapping[str, Tensor], config: Any) -> tuple[dict[str, Tensor], Any]:
    """The weights (as PEFT saves them) and config of an adapter, for the original base; others stay as is."""
    start = getattr(model, START, None)
    if start is None:
        return dict(weights), config
    first = {name.replace(".default.", "."): value for name, value in start.items()}
    doubled = {}
    for name, value in weights.items():
        is_a = ".lora_A." in name
        other = first[name].to(value.device)
        doubled[name] = torch.cat([value, other if is_a else -other], dim=0 if is_a else 1)
    config = deepcopy(config)
    config.r, config.lora_alpha, config.init_lora_weights = 2 * config.r, 2 * config.lora_alpha, True
    return doubled, config
