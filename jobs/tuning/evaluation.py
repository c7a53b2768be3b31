"""How good a model is on held-out rows: what it answers, and what it thinks of the right answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn import functional

from tuning.batches import TokenRow, lay_out, owners_of_targets, pack
from tuning.config import Config
from tuning.data import encode_row
from tuning.decoding import choose_labels, decode, make_trie
from tuning.distributed import Processes
from tuning.loss import SupervisedLoss
from tuning.masks import encode, prompt_ids, text_ids_up_to
from tuning.metrics.abc_notation import header_of
from tuning.metrics.tokens import token_metrics
from tuning.models import context_length
from tuning.rows import Example, Row
from tuning.scores import Scores
from tuning.taskrows import turns
from tuning.tasks import TASKS
from tuning.templates import template_facts

__all__ = ["HeldOut", "Scorer", "Scores", "hold"]

T = TypeVar("T")
TOKENS_A_BATCH = 8192


@dataclass(frozen=True)
class HeldOut:
    """A held-out row: its tokens, the tokens to answer to, and the question and the answer as text.

    `rows` is one row of tokens, or several where a long text is split. Of a pair, `rejected` is the row with
    the worse answer and `margin` how much likelier the base model finds the better one.
    """

    rows: tuple[TokenRow, ...]
    prompt: list[int]
    prompt_text: str
    expected: str
    example: Example
    rejected: tuple[TokenRow, ...] = ()
    margin: float = math.nan


@dataclass(frozen=True)
class Generated:
    """What a model wrote; `is_cut` says that it did not come to an end by itself."""

    text: str
    is_cut: bool


def hold(rows: Sequence[Row], path: Path, tokenizer: Any, config: Config) -> list[HeldOut]:
    """Prepare rows for scoring. Raises InputError for a row that has no token to score."""
    return [_hold(row, path, tokenizer, config) for row in rows]


def _hold(row: Row, path: Path, tokenizer: Any, config: Config) -> HeldOut:
    tokens, _ = encode_row(row, path, tokenizer, config)
    example = row.example
    if example.messages:
        prompt = prompt_ids(example, tokenizer)
        labels = encode(example, tokenizer, None).labels[len(prompt) :]
        expected = [label for label in labels if label >= 0]
        text = _last_question(example)
    else:
        prompt, expected = _split_text(example.text or "", tokens[0].ids.tolist(), tokenizer, config.task)
        text = tokenizer.decode(prompt, skip_special_tokens=True)
    answer = tokenizer.decode(expected, skip_special_tokens=True)
    worse: list[TokenRow] = []
    if example.rejected:
        other = replace(row, example=replace(example, messages=example.rejected))
        worse, _ = encode_row(other, path, tokenizer, config)
    return HeldOut(tuple(tokens), prompt, text, answer.strip(), example, tuple(worse))


def _split_text(text: str, ids: list[int], tokenizer: Any, task: str) -> tuple[list[int], list[int]]:
    """The part of a plain text that asks for the rest: of a tune its header, else the first half."""
    header = header_of(text) if task == "music" else ""
    split = len(text_ids_up_to(text, len(header), tokenizer)) if header else (len(ids) + 1) // 2
    return ids[:split], ids[split:]


def _last_question(example: Example) -> str:
    """The text of the turn that the last assistant turn answers."""
    last = max(place for place, turn in enumerate(example.messages) if turn.role == "assistant")
    return example.messages[last - 1].content


@dataclass
class Scorer:
    """Scores a model. Every process must call its methods with the same rows, and gets the same results.

    `check` is called between batches and may raise (a stop request). `in_step`: the processes hold parts of
    one model and must call it together, so each works on all rows instead of on its share.
    """

    config: Config
    loss: SupervisedLoss
    tokenizer: Any
    processes: Processes
    labels: tuple[str, ...]
    autocast: Callable[[], Any]
    check: Callable[[], None]
    in_step: bool = False

    @property
    def model(self) -> Any:
        """The model that is scored."""
        return self.loss.model

    @property
    def max_new_tokens(self) -> int:
        """Tokens of the longest answer."""
        return self.config.evaluation.max_new_tokens or TASKS[self.config.task].max_new_tokens

    def _agree(self, tokens: torch.Tensor) -> torch.Tensor:
        """The first process's choice, where all decode the same: one that ended sooner would be missed."""
        return self.processes.agree(tokens) if self.in_step else tokens

    def _mine(self, rows: int) -> range:
        """The numbers of the rows that this process works on."""
        return range(rows) if self.in_step else range(self.processes.rank, rows, self.processes.count)

    def _share_out(self, work: Callable[[], list[T]]) -> list[T]:
        """What all processes make of the rows; a stop request or an error of one of them is everybody's."""
        return work() if self.in_step else self.processes.share_out(work)

    def losses(self, rows: Sequence[HeldOut]) -> dict[str, float]:
        """Mean loss, perplexity and accuracy over the supervised tokens of all rows."""
        return token_metrics(self.row_losses(rows))

    def row_losses(self, rows: Sequence[HeldOut]) -> list[list[float]]:
        """(summed loss, supervised tokens, tokens guessed right) of each row."""
        return self.losses_of([held.rows for held in rows])

    def losses_of(self, rows: Sequence[Sequence[TokenRow]]) -> list[list[float]]:
        """The same of rows of tokens, each in one or several parts."""
        return self._share_out(lambda: self._own_losses(rows))

    @torch.no_grad()
    def _own_losses(self, rows: Sequence[Sequence[TokenRow]]) -> list[list[float]]:
        device = self.processes.device
        table = torch.zeros(len(rows), 3, dtype=torch.float64, device=device)
        for owners, members in self._token_batches(rows):
            batch = lay_out(members, self.tokenizer.pad_token_id).to(device)
            with self._evaluating():
                logits = self.loss.logits(batch)
            row = owners_of_targets(members, owners).to(device)
            losses = functional.cross_entropy(logits, batch.targets, reduction="none")
            right = logits.argmax(-1) == batch.targets
            table.index_add_(0, row, torch.stack([losses, torch.ones_like(losses), right], dim=1).double())
        mine: list[list[float]] = table[list(self._mine(len(rows)))].tolist()
        return mine

    def _token_batches(
        self, rows: Sequence[Sequence[TokenRow]]
    ) -> Iterator[tuple[list[int], list[TokenRow]]]:
        """(the row's number of each member, members) of each batch of this process."""
        mine = [(number, row) for number in self._mine(len(rows)) for row in rows[number]]
        longest = max((len(row.ids) for _, row in mine), default=0)
        for places in pack([len(row.ids) for _, row in mine], max(TOKENS_A_BATCH, longest)):
            yield [mine[place][0] for place in places], [mine[place][1] for place in places]

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
        """The answer to each row, as text."""
        return [generated.text.strip() for generated in self.generated(rows)]

    def generated(self, rows: Sequence[HeldOut]) -> list[Generated]:
        """What the model writes after each row's prompt, decoded as the task does."""
        end_ids = self._end_ids(rows)

        def answer(prompts: list[list[int]], numbers: list[int]) -> list[list[int]]:
            return decode(
                self.model,
                prompts,
                end_ids=end_ids,
                max_new_tokens=self.max_new_tokens,
                pad_id=self.tokenizer.pad_token_id,
                temperature=TASKS[self.config.task].temperature,
                seeds=[self.config.training.seed + number for number in numbers],
                agree=self._agree,
            )

        written = self._for_each_prompt(rows, answer)
        return [self._as_text(held, ids) for held, ids in zip(rows, written, strict=True)]

    def _as_text(self, held: HeldOut, ids: list[int]) -> Generated:
        """Tokens as text; where a text is continued, as they read behind it, with a blank before them."""
        if held.example.messages:
            text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        else:
            whole = str(self.tokenizer.decode([*held.prompt, *ids], skip_special_tokens=True))
            text = whole[len(held.prompt_text) :]
        return Generated(text, len(ids) >= self.max_new_tokens)

    def chosen_labels(self, rows: Sequence[HeldOut]) -> list[str]:
        """The label that greedy decoding reaches for each row when it may say nothing but labels."""
        examples = (turns("?", label) for label in self.labels)
        sequences = [
            [t for t in encode(example, self.tokenizer, None).labels if t >= 0] for example in examples
        ]
        trie = make_trie(sequences)

        def choose(prompts: list[list[int]], _numbers: list[int]) -> list[list[int]]:
            chosen = choose_labels(
                self.model,
                prompts,
                labels=trie,
                pad_id=self.tokenizer.pad_token_id,
                agree=self._agree,
            )
            return [[label] for label in chosen]

        return [self.labels[label] for (label,) in self._for_each_prompt(rows, choose)]

    def _for_each_prompt(
        self,
        rows: Sequence[HeldOut],
        answer: Callable[[list[list[int]], list[int]], list[list[int]]],
    ) -> list[list[int]]:
        """Answer prompts in batches of similar length, each process its share; results in rows' order.

        `answer` gets prompts and the numbers of their rows.
        """
        return self._share_out(lambda: self._own_answers(rows, answer))

    def _own_answers(
        self,
        rows: Sequence[HeldOut],
        answer: Callable[[list[list[int]], list[int]], list[list[int]]],
    ) -> list[list[int]]:
        limit, mine = self._prompt_limit(), self._mine(len(rows))
        prompts = [rows[number].prompt[-limit:] for number in mine]
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        results: list[list[int]] = [[] for _ in prompts]
        while order:
            width = len(prompts[order[-1]]) + self.max_new_tokens
            size = max(1, TOKENS_A_BATCH // width)
            order, members = order[:-size], order[-size:]
            with self._evaluating():
                answers = answer([prompts[one] for one in members], [mine[one] for one in members])
            for place, result in zip(members, answers, strict=True):
                results[place] = result
        return results

    def _prompt_limit(self) -> int:
        """The longest prompt that leaves room for an answer; of a longer one the end is kept."""
        return max(1, context_length(self.model) - self.max_new_tokens)

    def _end_ids(self, rows: Sequence[HeldOut]) -> set[int]:
        """What ends an answer: the tokenizer's, the model's and the template's end tokens."""
        configured = self.model.generation_config.eos_token_id
        ends = set(configured) if isinstance(configured, list) else {configured}
        ends.add(self.tokenizer.eos_token_id)
        if any(held.example.messages for held in rows):
            ends.add(template_facts(self.tokenizer).end_id)
        return {int(end) for end in ends if end is not None}
