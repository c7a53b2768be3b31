"""Scoring: each row has its own numbers whatever shares its batch, and every task measures what it names."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tuning.config import parse_config
from tuning.data import labels_of, load_rows
from tuning.distributed import Processes
from tuning.evaluation import Scorer, hold
from tuning.loss import SupervisedLoss
from tuning.models import load_model, load_tokenizer
from tuning.rows import Row, parse_row
from tuning.tasks import TASKS

EXAMPLES = Path(__file__).parents[2] / "jobs" / "examples"
FILES = {
    "chat": "small-talk/train.jsonl",
    "classification": "card-support/test.jsonl",
    "ner": "delivery-notes/test.conll",
    "qa": "order-desk/test.jsonl",
    "translation": "museum-guide/test.tsv",
    "summarization": "shift-reports/test.jsonl",
    "domain": "garden-handbook/handbook.txt",
    "music": "round-dances/tunes.abc",
}
CPU = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer(mini_model: Path) -> Any:
    return load_tokenizer(str(mini_model))


@pytest.fixture(scope="module")
def loss(mini_model: Path) -> SupervisedLoss:
    return SupervisedLoss(load_model(str(mini_model), torch.float32).eval())


@pytest.fixture
def scorer_of(loss: SupervisedLoss, tokenizer: Any) -> Callable[..., Scorer]:
    def make(task: str, labels: tuple[str, ...] = (), **parts: Any) -> Scorer:
        config = parse_config({"task": task, "training": {"max_length": 128}, **parts})
        return Scorer(config, loss, tokenizer, CPU, labels, nullcontext, lambda: None)

    return make


def rows_of(task: str, count: int = 5) -> list[Row]:
    return load_rows(EXAMPLES / FILES[task], task)[:count]


@pytest.mark.parametrize("task", ["chat", "domain", "translation"])
def test_a_row_has_the_same_loss_alone_and_among_others(
    scorer_of: Callable[..., Scorer], tokenizer: Any, task: str
) -> None:
    scorer = scorer_of(task)
    held_out = hold(rows_of(task, 7), Path("rows"), tokenizer, scorer.config)
    together = scorer.row_losses(held_out)
    alone = [scorer.row_losses([held])[0] for held in held_out]
    for row, other, held in zip(together, alone, held_out, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
        assert row[1] == sum(part.weight for part in held.rows)
    total = scorer.losses(held_out)
    assert total["loss"] == pytest.approx(sum(row[0] for row in together) / sum(row[1] for row in together))
    assert total["perplexity"] == pytest.approx(math.exp(total["loss"]))


def test_a_long_document_is_scored_whole_in_parts(scorer_of: Callable[..., Scorer], tokenizer: Any) -> None:
    text = "\n\n".join(str(row.example.text) for row in rows_of("domain", 2))
    row = Row(1, parse_row({"text": text}, "domain"))
    scorer = scorer_of("domain", training={"max_length": 64})
    (held,) = hold([row], Path("rows"), tokenizer, scorer.config)
    whole = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
    assert len(held.rows) > 3
    assert all(len(part.ids) <= 64 for part in held.rows)
    told = [part.ids.tolist() for part in held.rows]
    assert told[0] + [token for part in told[1:] for token in part[1:]] == whole
    assert scorer.row_losses([held])[0][1] == len(whole) - 1


@pytest.mark.parametrize("task", ["translation", "music"])
def test_answers_do_not_depend_on_who_shares_the_batch(
    scorer_of: Callable[..., Scorer], tokenizer: Any, task: str
) -> None:
    scorer = scorer_of(task, evaluation={"max_new_tokens": 12})
    held_out = hold(rows_of(task, 6), Path("rows"), tokenizer, scorer.config)
    together = scorer.generated(held_out)
    assert scorer.generated(held_out) == together
    assert scorer.generated(held_out[:1]) == together[:1]
    assert all(one.is_cut for one in together)


def test_draws_follow_the_seed(scorer_of: Callable[..., Scorer], tokenizer: Any) -> None:
    made = []
    for seed in (1, 2):
        scorer = scorer_of(
            "music", evaluation={"max_new_tokens": 12}, training={"max_length": 128, "seed": seed}
        )
        made.append(scorer.generated(hold(rows_of("music", 3), Path("rows"), tokenizer, scorer.config)))
    assert made[0] != made[1]


def test_a_tune_is_asked_for_by_its_header(scorer_of: Callable[..., Scorer], tokenizer: Any) -> None:
    (held,) = hold(rows_of("music", 1), Path("rows"), tokenizer, scorer_of("music").config)
    text = str(held.example.text)
    header = text[: text.index("K:")]
    assert held.prompt_text.startswith(header)
    assert held.rows[0].ids.tolist()[: len(held.prompt)] == held.prompt
    assert (held.prompt_text + held.expected).split() == text.split()


@pytest.mark.parametrize("task", sorted(FILES))
def test_every_task_measures_what_it_names(
    scorer_of: Callable[..., Scorer], tokenizer: Any, task: str
) -> None:
    rows = rows_of(task)
    scorer = scorer_of(task, labels_of(rows), evaluation={"max_new_tokens": 8})
    held_out = hold(rows, Path("rows"), tokenizer, scorer.config)
    scores = TASKS[task].score(scorer, held_out)
    assert {TASKS[task].metric, "loss", "perplexity", "token_accuracy"} <= scores.metrics.keys()
    assert len(scores.parts) == len(scores.answers) == len(rows)
    total = torch.tensor(scores.parts, dtype=torch.float64).sum(0, keepdim=True)
    combined = float(TASKS[task].combine(total))
    assert combined == pytest.approx(scores.metrics[TASKS[task].metric], rel=1e-6)
    assert bool(scores.by_label) == (task in ("classification", "ner"))


def test_processes_in_step_work_on_all_rows(scorer_of: Callable[..., Scorer], tokenizer: Any) -> None:
    scorer = scorer_of("translation", evaluation={"max_new_tokens": 6})
    held_out = hold(rows_of("translation", 4), Path("rows"), tokenizer, scorer.config)
    second_of_two = replace(scorer, processes=Processes(1, 2, torch.device("cpu")), in_step=True)
    assert second_of_two.row_losses(held_out) == scorer.row_losses(held_out)
    assert second_of_two.answers(held_out) == scorer.answers(held_out)
