"""The config of the scripts: what is accepted, and what each mistake is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuning.config import parse_config, read_config
from tuning.errors import InputError


def test_defaults_fill_what_is_left_out() -> None:
    config = parse_config({"task": "chat", "training": {"epochs": 1}})
    assert (config.method.name, config.training.epochs, config.training.batch_size) == ("lora", 1, 8)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, ["task is missing", '"chat"']),
        ({"task": "chats"}, ['task is "chats"', '"classification"']),
        ([], ["must be a JSON object"]),
        ({"task": "chat", "trainig": {}}, ["Unknown key trainig", "did you mean training?"]),
        ({"task": "chat", "training": {"epoch": 1}}, ["training.epoch", "did you mean epochs?"]),
        ({"task": "chat", "training": {"batch_size": "8"}}, ['training.batch_size is "8"', "whole number"]),
        ({"task": "chat", "training": {"batch_size": 1.5}}, ["training.batch_size is 1.5", "whole number"]),
        ({"task": "chat", "training": {"batch_size": True}}, ["training.batch_size is true"]),
        ({"task": "chat", "training": {"learning_rate": 0}}, ["training.learning_rate is 0", "more than 0"]),
        ({"task": "chat", "training": {"learning_rate": float("nan")}}, ["training.learning_rate is nan"]),
        ({"task": "chat", "method": {"dropout": 1}}, ["method.dropout is 1", "less than 1"]),
        ({"task": "chat", "method": {"target_modules": []}}, ["method.target_modules", "all-linear"]),
    ],
)
def test_a_mistake_is_named_with_what_is_accepted(value: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_gradient_checkpointing_takes_a_word_or_a_truth() -> None:
    for value in ("auto", True, False):
        training = parse_config({"task": "chat", "training": {"gradient_checkpointing": value}}).training
        assert training.gradient_checkpointing == value


def test_files_that_are_no_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match="Cannot read the config file"):
        read_config(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_config(path)
    path.write_text("\ufeff" + json.dumps({"task": "chat"}), encoding="utf-8")
    assert read_config(path).task == "chat"
