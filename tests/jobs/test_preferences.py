"""Learning from preferences: the loss is DPO's, also where rows share a line, and bad pairs are named."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tuning.batches import IGNORED, TokenRow
from tuning.config import Config, TrainingConfig, ValidationConfig, parse_config
from tuning.data import load_data
from tuning.errors import InputError
from tuning.models import load_model, load_tokenizer
from tuning.objectives import OBJECTIVES
from tuning.preferences import Pair, PreferenceLoss, lay_out_pairs
from tuning.rows import parse_row

BETA = 0.3


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair_rows(count: int) -> list[dict[str, Any]]:
    """Rows whose answers differ in length and number of tokens."""
    colors = ["red", "green", "blue", "yellow"]
    return [
        {
            "prompt": f"number {n}: what is {colors[n % 4]}" + " now" * (n % 5) * 5,
            "chosen": f"the ball is {colors[n % 4]}, I think" + " indeed" * (n % 3),
            "rejected": f"{colors[(n + 1) % 4]}" + " ball" * (n % 2),
        }
        for n in range(count)
    ]


def pairs_of(model: Path, rows: Path, **training: Any) -> list[Pair]:
    training = {"max_length": 128, **training, "objective": "dpo"}
    config = Config(task="chat", training=TrainingConfig(**training), validation=ValidationConfig(split=0))
    found = load_data(rows, None, config, load_tokenizer(str(model)), OBJECTIVES["dpo"].encode)
    return found.train


def log_prob(model: Any, row: TokenRow) -> torch.Tensor:
    """The log-probability of a row's supervised tokens, computed on the row alone, over all its tokens."""
    logits = model(input_ids=row.ids[None].long()).logits[0, :-1].float().log_softmax(-1)
    wanted = row.labels[1:].long()
    picked = logits.gather(1, wanted.clamp(min=0)[:, None])[:, 0]
    return torch.where(wanted == IGNORED, 0.0, picked).sum()


def test_the_loss_is_that_of_each_pair_alone(mini_model: Path, tmp_path: Path) -> None:
    pairs = pairs_of(mini_model, write_rows(tmp_path / "rows.jsonl", pair_rows(6)))
    pairs = [Pair(pair.chosen, pair.rejected, 0.1 * n) for n, pair in enumerate(pairs)]
    model = load_model(str(mini_model), torch.float32)
    batch = lay_out_pairs(pairs, 0, pairs[0])
    assert len(batch.input_ids) < 2 * len(pairs)  # several rows share a line
    loss = PreferenceLoss(model, beta=BETA)(batch)
    expected = sum(
        -functional.logsigmoid(
            BETA * (log_prob(model, pair.chosen) - log_prob(model, pair.rejected) - pair.margin)
        )
        for pair in pairs
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_a_process_without_a_pair_has_no_loss_and_every_gradient(mini_model: Path, tmp_path: Path) -> None:
    pairs = pairs_of(mini_model, write_rows(tmp_path / "rows.jsonl", pair_rows(2)))
    model = load_model(str(mini_model), torch.float32)
    loss = PreferenceLoss(model, beta=BETA)(lay_out_pairs([], 0, pairs[0]))
    loss.backward()
    assert loss.item() == 0.0
    assert all(value.grad is not None and not value.grad.any() for value in model.parameters())


def test_only_the_answers_carry_loss(mini_model: Path, tmp_path: Path) -> None:
    asked = [
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "two?"},
    ]
    row = {
        "prompt": asked,
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad bad"}],
    }
    tokenizer = load_tokenizer(str(mini_model))
    (pair,) = pairs_of(mini_model, write_rows(tmp_path / "rows.jsonl", [row]))
    said = [
        tokenizer.decode([int(label) for label in tokens.labels if label != IGNORED])
        for tokens in (pair.chosen, pair.rejected)
    ]
    assert said == ["good<|end|>", "bad bad<|end|>"]
    assert math.isnan(pair.margin)


SHAPES = {
    "texts": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "messages": {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    },
    "whole conversations": {
        "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "bad"}],
    },
    "Foundry's": {
        "input": {"messages": [{"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pair_may_be_written_in_four_ways(shape: str) -> None:
    assert parse_row(SHAPES[shape], "chat") == parse_row(SHAPES["texts"], "chat")


BAD = [
    ({"prompt": "q", "chosen": "a"}, "'rejected' is missing"),
    ({"prompt": "q", "chosen": "a", "rejected": "a"}, "'chosen' and 'rejected' are the same"),
    (
        {"prompt": "q", "chosen": "a", "rejected": []},
        "'rejected' must be text or a list of messages, found an",
    ),
    ({"chosen": "a", "rejected": "b"}, "'prompt' is missing"),
    ({"prompt": "q", "chosen": " ", "rejected": "b"}, "with 'chosen': message 2 is an empty answer"),
    (
        {"prompt": "q", "chosen": [{"role": "user", "content": "x"}], "rejected": "b"},
        "with 'chosen': no token",
    ),
    ({"prompt": "q", "chosen": "a", "rejectd": "b"}, "did you mean 'rejected'?"),
    ({"prompt": "q", "chosen": "a", "rejected": "b", "completion": "c"}, "keys of two formats"),
    ({"input": {}, "preferred_output": [], "non_preferred_output": []}, "'preferred_output' must be text or"),
    ({"input": "q", "preferred_output": "a", "non_preferred_output": "b"}, "'input' must be an object"),
    ({"preferred_output": "a", "non_preferred_output": "b"}, "'input' is missing"),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_row_that_is_no_pair_says_why(row: object, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_row(row, "chat")
    assert reason in str(caught.value)


def test_answers_that_differ_beyond_the_limit_teach_nothing(mini_model: Path, tmp_path: Path) -> None:
    same = "word " * 30
    rows = [{"prompt": "q", "chosen": same + "a", "rejected": same + "b"}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match=r"line 1: The two answers are the same within training.max_length"):
        pairs_of(mini_model, path, max_length=16)


@pytest.mark.parametrize(
    ("objective", "row", "words"),
    [
        ("sft", {"prompt": "q", "chosen": "a", "rejected": "b"}, "set training.objective to dpo"),
        ("dpo", {"prompt": "q", "completion": "a"}, "has no pairs"),
    ],
)
def test_rows_and_objective_must_agree(
    mini_model: Path, tmp_path: Path, objective: str, row: dict[str, str], words: str
) -> None:
    config = parse_config({"task": "chat", "training": {"objective": objective}})
    path = write_rows(tmp_path / "rows.jsonl", [row] * 3)
    with pytest.raises(InputError, match=words):
        load_data(path, None, config, load_tokenizer(str(mini_model)), OBJECTIVES[objective].encode)
