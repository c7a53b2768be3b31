"""From files to rows of tokens: what is left out is counted, what teaches nothing is named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuning.config import parse_config
from tuning.data import Data, load_data
from tuning.errors import InputError
from tuning.models import load_tokenizer

TINY_PHI3 = Path(__file__).parents[2] / "models" / "tiny-phi3"
QUESTION = {"role": "user", "content": "How are you?"}
ANSWER = {"role": "assistant", "content": "Well."}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(str(TINY_PHI3))


def load(path: Path, rows: list[Any], tokenizer: Any, task: str = "chat", **parts: Any) -> Data:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_data(path, None, parse_config({"task": task, **parts}), tokenizer)


def chat(*more: dict[str, Any], answer: dict[str, Any] = ANSWER) -> dict[str, Any]:
    return {"messages": [QUESTION, *more, answer]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat(answer={**ANSWER, "weight": 0}), "Line 3: no token carries loss: every assistant turn has"),
        ({"messages": [QUESTION]}, "Line 3: no token carries loss: there is no assistant turn"),
        (
            {"messages": [{**QUESTION, "content": "word " * 90}, ANSWER]},
            r"line 3: The answers lie wholly beyond max_length \(64 tokens\)",
        ),
        (chat(answer={**ANSWER, "content": "a<|end|>b"}), r"line 3: Message 2 holds <\|end\|>"),
    ],
)
def test_a_row_that_teaches_nothing_is_an_error_with_its_line(
    tmp_path: Path, tokenizer: Any, row: dict[str, Any], reason: str
) -> None:
    rows = [chat(), chat(answer={**ANSWER, "content": "Fine."}), row]
    training, validation = {"max_length": 64}, {"split": 0.0}
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path / "rows.jsonl", rows, tokenizer, training=training, validation=validation)
    assert "rows.jsonl" in str(caught.value)


def test_rows_that_are_cut_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    rows = [chat(answer={**ANSWER, "content": f"{number} " + "word " * 30 * number}) for number in range(8)]
    data = load(tmp_path / "rows.jsonl", rows, tokenizer, training={"max_length": 64})
    assert len(data.train) + len(data.validation) == 8
    assert data.truncated == sum(len(row.ids) == 64 for row in data.train) > 0
    assert not data.is_plain_text


def test_documents_are_split_instead(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": f"{number} " + "word " * 90} for number in range(10)]
    data = load(tmp_path / "rows.jsonl", rows, tokenizer, task="domain", training={"max_length": 32})
    assert (len(data.validation), data.truncated, data.is_plain_text) == (1, 0, True)
    assert len(data.train) == 3 * 9
    assert max(len(row.ids) for row in data.train) == 32


def test_nothing_left_to_train_on_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(InputError, match="No rows are left to train on"):
        load(tmp_path / "rows.jsonl", [chat()], tokenizer)


def test_labels_of_entities_are_labels(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"tokens": ["Ada", str(n)], "tags": ["B-person" if n else "B-place", "O"]} for n in range(8)]
    data = load(tmp_path / "rows.jsonl", rows, tokenizer, task="ner")
    assert data.labels == ("person", "place")
    assert len(data.warnings()) == ("place" in data.unseen_labels)
