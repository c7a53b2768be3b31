"""Decoding in batches: free (greedy or drawn), or along the token sequences of a fixed set of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Agree = Callable[[torch.Tensor], torch.Tensor]


def _as_it_is(tokens: torch.Tensor) -> torch.Tensor:
    return tokens


@dataclass
class Trie:
    """Token sequences as a tree; `only` is the one sequence that is left below a node, if it is one."""

    children: dict[int, Trie] = field(default_factory=dict)
    only: int | None = None


def make_trie(sequences: Sequence[Sequence[int]]) -> Trie:
    """The tree of some token sequences, none of which may begin another (their end tokens see to that)."""
    root = Trie()
    for number, sequence in enumerate(sequences):
        node = root
        node.only = number if not node.children else None
        for token in sequence:
            node = node.children.setdefault(token, Trie(only=number))
            node.only = number if node.only == number else None
    return root


@dataclass
class _Prompts:
    """A batch of prompts, padded on the left, with the model's cache for what it has read."""

    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any = None

    @classmethod
    def padded(cls, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> _Prompts:
        """A batch of unread prompts."""
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor(
            [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device
        )
        seen = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
        )
        return cls(ids, seen)

    def next_logits(self, model: Any) -> torch.Tensor:
        """Read the unread tokens; the logits (prompts, vocabulary) of the token after them."""
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -self.ids.shape[1] :]
        output = model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def append(self, tokens: torch.Tensor) -> None:
        """Give each prompt its next token, (prompts,)."""
        self.ids = tokens[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(self.ids)], dim=1)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the prompts only."""
        chosen = torch.tensor(rows, device=self.ids.device)
        self.ids, self.mask = self.ids[chosen], self.mask[chosen]
        self.cache.batch_select_indices(chosen)


@dataclass(frozen=True)
class Draw:
    """How the next token is chosen: the likeliest at temperature 0, else drawn, each prompt by its seed.

    A draw depends on the seed and the place alone, so that it does not matter which prompts share a batch.
    """

    temperature: float
    chances: torch.Tensor  # (prompts, tokens), uniform between 0 and 1

    @classmethod
    def by(cls, temperature: float, seeds: Sequence[int], tokens: int, device: torch.device) -> Draw:
        """Draws for a batch of prompts."""
        if not temperature:
            return cls(0.0, torch.empty(0))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        chances = torch.stack([torch.rand(tokens, generator=generator) for generator in generators])
        return cls(temperature, chances.to(device))

    def next_tokens(self, logits: torch.Tensor, rows: Sequence[int], place: int) -> torch.Tensor:
        """The token at `place` for the prompts `rows`, from logits (rows, vocabulary)."""
        if not self.temperature:
            return logits.argmax(-1)
        reached = (logits / self.temperature).softmax(-1).cumsum(-1)
        chance = self.chances[list(rows), place, None]
        return (reached < chance).sum(-1).clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    end_ids: set[int],
    max_new_tokens: int,
    pad_id: int,
    temperature: float = 0.0,
    seeds: Sequence[int] = (),
    agree: Agree = _as_it_is,
) -> list[list[int]]:
    """The continuation of each prompt, token by token, without its end token.

    Greedy at temperature 0; else `seeds` has a number for each prompt. Finished answers leave the batch when
    half of it is done. `agree` lets processes that decode the same prompts take the same tokens.
    """
    device = next(model.parameters()).device
    draw = Draw.by(temperature, seeds, max_new_tokens, device)
    state = _Prompts.padded(prompts, pad_id, device)
    answers: list[list[int]] = [[] for _ in prompts]
    batch, running = list(range(len(prompts))), set(range(len(prompts)))
    for place in range(max_new_tokens):
        tokens = agree(draw.next_tokens(state.next_logits(model), batch, place))
        for number, token in zip(batch, tokens.tolist(), strict=True):
            if number in running and token in end_ids:
                running.discard(number)
            elif number in running:
                answers[number].append(token)
        if not running or place == max_new_tokens - 1:
            break
        state.append(tokens)
        if 2 * len(running) <= len(batch):
            state.keep([row for row, number in enumerate(batch) if number in running])
            batch = [number for number in batch if number in running]
    return answers


@torch.no_grad()
def choose_labels(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    labels: Trie,
    pad_id: int,
    agree: Agree = _as_it_is,
) -> list[int]:
    """The number of the label that greedy decoding, held to the labels, reaches from each prompt.

    A prompt is read no further than its label is decided; what is left of the label then follows by itself.
    """
    device = next(model.parameters()).device
    state = _Prompts.padded(prompts, pad_id, device)
    nodes = [labels] * len(prompts)
    while any(node.only is None for node in nodes):
        logits = state.next_logits(model)
        allowed = torch.full_like(logits, float("-inf"))
        for number, node in enumerate(nodes):
            allowed[number, list(node.children) or [pad_id]] = 0.0
        tokens = agree((logits + allowed).argmax(-1))
        nodes = [node.children.get(token, node) for node, token in zip(nodes, tokens.tolist(), strict=True)]
        state.append(tokens)
    return [node.only if node.only is not None else -1 for node in nodes]
