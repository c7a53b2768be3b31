"""From scores to the next token."""

from __future__ import annotations

import torch

from serving.engine import Settings


def sampling_generator(settings: Settings, device: torch.device) -> torch.Generator | None:
    """The source of chance for one answer: None where none is needed, seeded where a seed is given."""
    if settings.temperature == 0:
        return None
    generator = torch.Generator(device)
    if settings.seed is None:
        generator.seed()
    else:
        generator.manual_seed(settings.seed)
    return generator


def next_token(logits: torch.Tensor, settings: Settings, generator: torch.Generator | None) -> int:
    """Choose from `logits` (one score a vocabulary entry): the likeliest, or by chance within `top_p`."""
    if generator is None:
        return int(logits.argmax())
    chances = torch.softmax(logits.float() / settings.temperature, dim=-1)
    if settings.top_p >= 1:
        return int(torch.multinomial(chances, 1, generator=generator))
    chances, tokens = chances.sort(descending=True)
    before = chances.cumsum(-1) - chances
    chances[before >= max(settings.top_p, 1e-9)] = 0
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])
