"""Whose tokenizer counts, and how far off the estimate is."""

from __future__ import annotations

from pathlib import Path

import pytest

from maas_client.bundled import model_folder
from maas_client.data.tokens import Estimate, choose_meter, tokenizer_folder
from maas_client.errors import DataError
from tuning.rows import Example, Message


@pytest.mark.parametrize(
    ("model", "why"),
    [(None, "no --model was given"), ("microsoft/no-such-model-here", "is not on this disk")],
)
def test_an_estimate_says_why_it_is_one(model: str | None, why: str) -> None:
    meter = choose_meter(model)
    assert isinstance(meter, Estimate)
    assert why in meter.source
    assert meter.error == "±30 %"


def test_the_estimate_counts_bytes_tools_and_turns() -> None:
    meter = Estimate("a test")
    plain = Example((Message("user", "x" * 36), Message("assistant", "é" * 18, 1)))
    assert meter.measure(plain, None).tokens == round((72 + 28) / 3.6)
    tools = Example(plain.messages, ({"type": "function", "function": {"name": "weather"}},))
    assert meter.measure(tools, None).tokens > meter.measure(plain, None).tokens + 10
    assert meter.measure(Example((), text="x" * 22), None).tokens == 10


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"has no tokenizer\.json"):
        choose_meter(str(tmp_path))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no model folder"):
        choose_meter(str(tmp_path / "nothing"))


def test_a_broken_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{broken", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        choose_meter(str(tmp_path))
    assert "\n" not in caught.value.message


def test_a_shipped_model_is_found_by_its_name() -> None:
    if model_folder("tiny-phi3") is None:
        pytest.skip("the tiny model is not built")
    assert tokenizer_folder("tiny-phi3") == model_folder("tiny-phi3")
