"""How good a model is on held-out rows: what it answers, and what it thinks of the right answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from tuning.batches import TokenRow, lay_out, pack
from tuning.data import encode_row
from tuning.decoding import choose_labels, decode, make_trie
from tuning.distributed import Processes
from tuning.loss import SupervisedLoss
from tuning.masks import encode, prompt_ids
from tuning.rows import Example, Row, classification_example

TOKENS_A_BATCH = 8192


@dataclass(frozen=True)
class HeldOut:
    """A held-out row: its tokens, the tokens to answer to, and the question and the answer as text."""

    row: TokenRow
    prompt: list[int]
    prompt_text: str
    expected: str
    label: str | None
    end_id: int | None


@dataclass(frozen=True)
class Scores:
    """Metrics by name, and the answer to each row ("" where none was asked for)."""

    metrics: dict[str, float]
    answers: list[str]


def hold(rows: Sequence[Row], path: Path, tokenizer: Any, max_length: int) -> list[HeldOut]:
    """Prepare rows for scoring. Raises InputError for a row that has no token to score."""
    return [_hold(row, path, tokenizer, max_length) for row in rows]


def _hold(row: Row, path: Path, tokenizer: Any, max_length: int) -> HeldOut:
    tokens, _ = encode_row(row, path, tokenizer, max_length)
    if row.example.messages:
        prompt = prompt_ids(row.example, tokenizer)
        labels = encode(row.example, tokenizer, None).labels[len(prompt) :]
        expected = [label for label in labels if label >= 0]
        text = _last_question(row.example)
    else:  # plain text: its first half asks for the second
        half = (len(tokens.ids) + 1) // 2
        prompt, expected = tokens.ids[:half].tolist(), tokens.ids[half:].tolist()
        text = tokenizer.decode(prompt, skip_special_tokens=True)
    answer = tokenizer.decode(expected, skip_special_tokens=True).strip()
    end_id = expected[-1] if row.example.messages and expected else None
    return HeldOut(tokens, prompt, text, answer, row.example.label, end_id)


def _last_question(example: Example) -> str:
    """The text of the turn that the last assistant turn answers."""
    last = max(place for place, turn in enumerate(example.messages) if turn.role == "assistant")
    return example.messages[last - 1].content


@dataclass
class Scorer:
    """Scores a model. Every process must call its methods with the same rows, and gets the same results.

    `check` is called between batches and may raise (a stop request).
    """

    loss: SupervisedLoss
    tokenizer: Any
    processes: Processes
    max_new_tokens: int
    labels: tuple[str, ...]
    autocast: Callable[[], Any]
    check: Callable[[], None]

    @property
    def model(self) -> Any:
        """The model that is scored."""
        return self.loss.model

    @torch.no_grad()
    def losses(self, rows: Sequence[HeldOut]) -> dict[str, float]:
        """Mean loss, perplexity and accuracy over the supervised tokens of all rows."""
        loss = correct = count = torch.zeros((), device=self.processes.device)
        for members in self._token_batches(rows):
            batch = lay_out(members, self.tokenizer.pad_token_id).to(self.processes.device)
            with self._evaluating():
                logits = self.loss.logits(batch)
            loss = loss + functional.cross_entropy(logits, batch.targets, reduction="sum")
            correct = correct + (logits.argmax(-1) == batch.targets).sum()
            count = count + len(batch.targets)
        total, right, tokens = self.processes.sum(loss, correct, count)
        mean = total / tokens
        return {"loss": mean, "perplexity": math.exp(min(mean, 700)), "token_accuracy": right / tokens}

    def _token_batches(self, rows: Sequence[HeldOut]) -> Iterator[list[TokenRow]]:
        mine = [held.row for held in rows[self.processes.rank :: self.processes.count]]
        longest = max((len(row.ids) for row in mine), default=0)
        for members in pack([len(row.ids) for row in mine], max(TOKENS_A_BATCH, longest)):
            yield [mine[member] for member in members]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Dropout off, number format on, for one batch; a stop request is answered here."""
        self.check()
        was_training = self.model.training
        self.model.eval()
        try:
            with self.autocast():
                yield
        finally:
            self.model.train(was_training)

    def answers(self, rows: Sequence[HeldOut]) -> list[str]:
        """The greedy answer to each row, as text."""
        end_ids = self._end_ids(rows)

        def answer(prompts: list[list[int]]) -> list[list[int]]:
            return decode(
                self.model,
                prompts,
                end_ids=end_ids,
                max_new_tokens=self.max_new_tokens,
                pad_id=self.tokenizer.pad_token_id,
            )

        answers = self._for_each_prompt(rows, answer)
        return [str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in answers]

    def chosen_labels(self, rows: Sequence[HeldOut]) -> list[str]:
        """The label that greedy decoding reaches for each row when it may say nothing but labels."""
        examples = (classification_example("?", label) for label in self.labels)
        sequences = [
            [t for t in encode(example, self.tokenizer, None).labels if t >= 0] for example in examples
        ]
        trie = make_trie(sequences)

        def choose(prompts: list[list[int]]) -> list[list[int]]:
            chosen = choose_labels(self.model, prompts, labels=trie, pad_id=self.tokenizer.pad_token_id)
            return [[label] for label in chosen]

        return [self.labels[label] for (label,) in self._for_each_prompt(rows, choose)]

    def _for_each_prompt(
        self, rows: Sequence[HeldOut], answer: Callable[[list[list[int]]], list[list[int]]]
    ) -> list[list[int]]:
        """Answer prompts in batches of similar length, each process its share; results in rows' order."""
        limit = self._prompt_limit()
        prompts = [held.prompt[-limit:] for held in rows[self.processes.rank :: self.processes.count]]
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        results: list[list[int]] = [[] for _ in prompts]
        while order:
            width = len(prompts[order[-1]]) + self.max_new_tokens
            size = max(1, TOKENS_A_BATCH // width)
            order, members = order[:-size], order[-size:]
            with self._evaluating():
                for place, result in zip(
                    members, answer([prompts[member] for member in members]), strict=True
                ):
                    results[place] = result
        return self.processes.gather_rows(results)

    def _prompt_limit(self) -> int:
        """The longest prompt that leaves room for an answer; of a longer one the end is kept."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        return max(1, int(positions) - self.max_new_tokens)

    def _end_ids(self, rows: Sequence[HeldOut]) -> set[int]:
        """What ends an answer: the tokenizer's, the model's and the template's end tokens."""
        configured = self.model.generation_config.eos_token_id
        ends = set(configured) if isinstance(configured, list) else {configured}
        ends |= {held.end_id for held in rows} | {self.tokenizer.eos_token_id}
        return {int(end) for end in ends if end is not None}
