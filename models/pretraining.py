"""Pretrain tiny-phi3 on packed documents: one fp32 AdamW loop, repeatable under a seed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import Phi3Config, Phi3ForCausalLM

from models.corpus import Document, documents
from models.tokenizing import END, END_OF_TEXT, SPECIAL_TOKENS, render

PROMPT_WEIGHT = 0.3
WARMUP_STEPS = 50


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; `tokens` is the length of one sequence."""

    seed: int = 7
    steps: int = 900
    sequences: int = 8
    tokens: int = 512
    learning_rate: float = 4e-3
    weight_decay: float = 0.05


@dataclass(frozen=True)
class Result:
    """What training gave: the mean loss of the last steps, the loss on unseen text, and what it took."""

    train_loss: float
    held_out_loss: float
    tokens_seen: int
    seconds: float


def model_config(vocabulary: int, hidden: int, layers: int, heads: int, context: int) -> Phi3Config:
    """Return the Phi-3 configuration; embeddings are shared with the output layer to keep the files small."""
    return Phi3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        original_max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL_TOKENS.index(END_OF_TEXT),
        eos_token_id=SPECIAL_TOKENS.index(END_OF_TEXT),
        pad_token_id=SPECIAL_TOKENS.index(END_OF_TEXT),
        dtype="float32",
    )


def weighted_tokens(document: Document, tokenizer: Tokenizer) -> tuple[list[int], list[float]]:
    """Return token ids and the weight of each in the loss: answers and plain text 1, prompts less."""
    ids: list[int] = tokenizer.encode(render(document)).ids
    if not document.messages:
        return ids, [1.0] * len(ids)
    assistant, end = SPECIAL_TOKENS.index("<|assistant|>"), SPECIAL_TOKENS.index(END)
    weights, answering = [], False
    for token in ids:
        weights.append(1.0 if answering else PROMPT_WEIGHT)
        answering = (answering or token == assistant) and token != end
    return ids, weights


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def packed(stream: Iterator[Document], tokenizer: Tokenizer, recipe: Recipe) -> Iterator[Batch]:
    """Yield batches of ids, weights and positions, each (sequences, tokens + 1), filled without padding.

    Positions count from 0 in each document, which also keeps documents from seeing one another.
    """
    shape = (recipe.sequences, recipe.tokens + 1)
    need = shape[0] * shape[1]
    ids: list[int] = []
    weights: list[float] = []
    positions: list[int] = []
    for document in stream:
        new_ids, new_weights = weighted_tokens(document, tokenizer)
        ids += new_ids
        weights += new_weights
        positions += range(len(new_ids))
        if len(ids) >= need:
            made = (torch.tensor(column[:need]).view(shape) for column in (ids, weights, positions))
            yield next(made), next(made), next(made)
            ids, weights, positions = ids[need:], weights[need:], positions[need:]


def document_mask(positions: torch.Tensor) -> torch.Tensor:
    """Return who sees whom, (sequences, 1, tokens, tokens): earlier tokens of the same document."""
    documents_before = (positions == 0).cumsum(1)
    same = documents_before[:, None, :, None] == documents_before[:, None, None, :]
    return same & torch.ones(same.shape[-2:], dtype=torch.bool).tril()


def batch_loss(
    model: Phi3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Return the weighted mean of the next-token loss in nats."""
    places = positions[:, :-1]
    mask = document_mask(places)
    logits = model(input_ids=ids[:, :-1], position_ids=places, attention_mask=mask, use_cache=False).logits
    losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    target_weights = (weights * (positions > 0))[:, 1:].flatten()
    return (losses * target_weights).sum() / target_weights.sum()


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then a cosine down to a twentieth."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, recipe.steps - WARMUP_STEPS)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: Phi3ForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW that decays matrices and leaves norms alone."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    norms = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def held_out_loss(model: Phi3ForCausalLM, tokenizer: Tokenizer, recipe: Recipe, batches: int = 8) -> float:
    """Return the loss on documents drawn with another seed."""
    stream = packed(documents(recipe.seed + 1_000_003), tokenizer, recipe)
    with torch.no_grad():
        return sum(batch_loss(model, *next(stream)).item() for _ in range(batches)) / batches


def pretrain(model: Phi3ForCausalLM, tokenizer: Tokenizer, recipe: Recipe) -> Result:
    """Train `model` in place and report; prints a line every hundred steps."""
    started = time.monotonic()
    optimizer = make_optimizer(model, recipe)
    stream = packed(documents(recipe.seed), tokenizer, recipe)
    recent: list[float] = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate_at(step, recipe)
        loss = batch_loss(model, *next(stream))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent = [*recent[-99:], loss.item()]
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - started
            print(
                f"step {step + 1}/{recipe.steps} loss {sum(recent) / len(recent):.3f} {seconds:.0f} s",
                flush=True,
            )
    tokens_seen = recipe.steps * recipe.sequences * recipe.tokens
    seconds = time.monotonic() - started
    return Result(sum(recent) / len(recent), held_out_loss(model, tokenizer, recipe), tokens_seen, seconds)
