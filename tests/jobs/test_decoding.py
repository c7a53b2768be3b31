"""Greedy decoding agrees with transformers' own, alone and in a batch; labels are all that can be said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tuning.decoding import choose_labels, decode, make_trie
from tuning.metrics.labels import macro_f1

PROMPTS = [[7, 8, 9], [40, 41, 42, 43, 44, 45, 46], [11]]


@pytest.fixture
def model(mini_model: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = AutoModelForCausalLM.from_pretrained(mini_model).eval()
    return loaded


def test_batched_answers_are_those_of_generate(model: torch.nn.Module) -> None:
    answers = decode(model, PROMPTS, end_ids=set(), max_new_tokens=6, pad_id=0)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([prompt])
        told = model.generate(  # type: ignore[operator]
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=6,
            eos_token_id=-1,
            pad_token_id=0,
        )
        assert told[0, len(prompt) :].tolist() == answer


def test_an_end_token_ends_its_answer_only(model: torch.nn.Module) -> None:
    free = decode(model, PROMPTS, end_ids=set(), max_new_tokens=6, pad_id=0)
    end = free[0][2]
    ended = decode(model, PROMPTS, end_ids={end}, max_new_tokens=6, pad_id=0)
    expected = [answer[: answer.index(end)] if end in answer else answer for answer in free]
    assert ended == expected


def test_the_label_is_the_greedy_path_through_the_labels(model: torch.nn.Module) -> None:
    labels = [[5, 6, 1], [5, 7, 1], [8, 1], [5, 6, 9, 1]]
    chosen = choose_labels(model, PROMPTS, labels=make_trie(labels), pad_id=0)
    for prompt, label in zip(PROMPTS, chosen, strict=True):
        assert label == greedy_path(model, prompt, labels)


def greedy_path(model: torch.nn.Module, prompt: list[int], labels: list[list[int]]) -> int:
    left, said = list(range(len(labels))), 0
    while len(left) > 1:
        read = torch.tensor([prompt + labels[left[0]][:said]])
        with torch.no_grad():
            logits = model(input_ids=read).logits[0, -1]
        best = max({labels[label][said] for label in left}, key=lambda token: float(logits[token]))
        left = [label for label in left if labels[label][said] == best]
        said += 1
    return left[0]


def test_one_label_needs_no_model() -> None:
    model = torch.nn.Linear(1, 1)
    assert choose_labels(model, PROMPTS, labels=make_trie([[5, 1]]), pad_id=0) == [0, 0, 0]


def test_macro_f1_counts_each_label_alike() -> None:
    pairs = [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("c", "a")]
    assert macro_f1(pairs) == pytest.approx((2 * 2 / 6 + 2 * 1 / 3 + 0) / 3)
