"""The model card: from the same result the same words, also of results that say little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuning.card import license_of, model_card, name_of, use_by_python

RESULT: dict[str, Any] = {
    "task": "classification",
    "method": "qlora",
    "objective": "sft",
    "base_model": "microsoft/Phi-3-mini-4k-instruct",
    "base_license": "mit",
    "adapter": True,
    "quantization": "nf4",
    "metric": "accuracy",
    "direction": "max",
    "before": {"accuracy": 0.25, "loss": 3.0},
    "after": {"accuracy": 0.875, "loss": 0.5},
    "change": {"difference": 0.625, "low": 0.5, "high": 0.75, "level": 0.95},
    "rows": {"train": 1200, "validation": 80},
    "warnings": ["Labels of held-out rows that no training row has: x."],
    "steps": 300,
    "model_step": 250,
    "parameters": 1_000_000,
    "trainable_parameters": 10_000,
    "trainable_share": 0.01,
    "hashes": {"train": "ab12", "model": {"adapter_model.safetensors": "cd34"}},
}


def test_the_card_says_what_a_reader_wants_to_know() -> None:
    card = model_card(RESULT, title="A title", use=use_by_python(RESULT), facts={"Run": "card-1", "Size": ""})
    assert card == model_card(RESULT, title="A title", use=use_by_python(RESULT), facts={"Run": "card-1"})
    for words in (
        '---\nbase_model: "microsoft/Phi-3-mini-4k-instruct"\nlibrary_name: "peft"\nlicense: "mit"\n',
        "# A title",
        "| Method | qlora (adapter on an nf4 base) |",
        "| License of the base | mit |",
        "10,000 of 1,000,000 parameters (1 %), 300 steps on 1,200 rows, the best model was that of step 250",
        "| accuracy | 0.25 | 0.875 |",
        "accuracy changed by +0.625 on 80 rows (more is better); 95 % interval +0.5 to +0.75",
        "- Labels of held-out rows that no training row has: x.",
        "| train | `ab12` |",
        "| Run | card-1 |",
        'PeftModel.from_pretrained(base, "model")',
    ):
        assert words in card
    assert "cd34" not in card  # the file of the hashes of its own files cannot be among them


@pytest.mark.parametrize(
    "result", [{}, {"after": {"loss": 1.0}}, {"hashes": None, "rows": None, "change": None}]
)
def test_a_result_that_says_little_makes_a_card(result: dict[str, Any]) -> None:
    card = model_card(result, title="t", use="u")
    assert ("Nothing was measured." in card) == ("after" not in result)
    assert "No hashes were recorded." in card
    assert "None" not in card


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Title\n", "apache-2.0"),
        ("---\ntags: [x]\n---\nlicense: mit\n", None),
        ("# Title\nMIT licence.\n", None),
        ('---\nlicense: "mit"\n---\n', "mit"),
    ],
)
def test_the_license_is_what_the_base_states(tmp_path: Path, text: str, license: str | None) -> None:  # noqa: A002
    (tmp_path / "README.md").write_text(text)
    assert license_of(str(tmp_path)) == license
    assert license_of(str(tmp_path / "nothing")) is None
    assert name_of(str(tmp_path)) == tmp_path.name


def test_front_matter_is_data(tmp_path: Path) -> None:
    head = model_card(RESULT, title="t", use="u").split("---\n")[1]
    told = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in head.splitlines())}
    assert told["tags"] == ["maas", "classification", "qlora", "sft"]
