"""Greedy decoding, batched: free, or along the token sequences of a fixed set of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


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


@torch.no_grad()
def decode(
    model: Any, prompts: Sequence[Sequence[int]], *, end_ids: set[int], max_new_tokens: int, pad_id: int
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, without its end token."""
    device = next(model.parameters()).device
    state = _Prompts.padded(prompts, pad_id, device)
    answers: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    for place in range(max_new_tokens):
        tokens = state.next_logits(model).argmax(-1)
        for number, token in enumerate(tokens.tolist()):
            if number in running and token in end_ids:
                running.discard(number)
            elif number in running:
                answers[number].append(token)
        if not running or place == max_new_tokens - 1:
            break
        state.append(tokens)
    return answers


@torch.no_grad()
def choose_labels(model: Any, prompts: Sequence[Sequence[int]], *, labels: Trie, pad_id: int) -> list[int]:
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
        tokens = (logits + allowed).argmax(-1)
        nodes = [node.children.get(token, node) for node, token in zip(nodes, tokens.tolist(), strict=True)]
        state.append(tokens)
    return [node.only if node.only is not None else -1 for node in nodes]
