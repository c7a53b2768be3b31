"""JobSpec built in Python: what it takes, what it gives the script, and what every key says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from maas_client.spec import DataSpec, DeploySpec, JobSpec, RegisterSpec, duration_s
from maas_client.specwords import accepted, child_model, description, field_words, known_keys
from maas_client.trainingspec import Task, TrainingSpec


def spec(**more: Any) -> JobSpec:
    return JobSpec(
        name="card-support", task=Task.CHAT, model="tiny-phi3", data=DataSpec(train=Path("x")), **more
    )


def parts(
    model: type[BaseModel] = JobSpec, path: tuple[str, ...] = ()
) -> Iterator[tuple[type[BaseModel], tuple[str, ...]]]:
    """Every part of a job file with its key path."""
    yield model, path
    for key in known_keys(model):
        below = child_model(model, (key,))
        if below is not None:
            yield from parts(below, (*path, key))


ALL_KEYS = [(*path, key) for model, path in parts() for key in known_keys(model)]


@pytest.mark.parametrize("path", ALL_KEYS, ids=".".join)
def test_every_key_is_described_and_says_what_it_accepts(path: tuple[str, ...]) -> None:
    owner = child_model(JobSpec, path[:-1])
    assert owner is not None
    info = next(info for name, info in owner.model_fields.items() if (info.alias or name) == path[-1])
    assert description(owner, path[-1])
    words = accepted(JobSpec, path)
    assert words == field_words(info)
    assert "typing" not in words
    assert "class" not in words.replace("classification", "").replace("classic", "")


def test_words_for_a_key_that_is_not_there() -> None:
    assert accepted(JobSpec, ("nothing", "here")) == "nothing here"
    assert accepted(JobSpec, ()) == "nothing here"


def test_a_spec_can_be_built_with_python_names_and_is_frozen() -> None:
    made = spec(register_as=RegisterSpec(name="kept"), deploy=DeploySpec(name="served"))
    assert made.model_dump()["register"] == {"name": "kept"}
    with pytest.raises(ValidationError):
        made.name = "other"  # type: ignore[misc]  # this is what must fail


def test_json_comes_back() -> None:
    made = spec(register_as=RegisterSpec(name="kept"), training=TrainingSpec(epochs=2))
    assert JobSpec.model_validate_json(made.model_dump_json()) == made


def test_the_script_is_told_how_to_train_and_nothing_else() -> None:
    config = spec(register_as=RegisterSpec(name="kept")).script_config()
    assert sorted(config) == ["distributed", "evaluation", "method", "task", "training", "validation"]
    assert config["task"] == "chat"
    assert config["validation"] == {"split": 0.1}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("4h", 14400), ("2d", 172800)])
def test_durations(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds == DeploySpec(name="ab", ttl=text).ttl_s


@pytest.mark.parametrize("text", ["", "4", "0h", "-1h", "4 h", "4h\n", "1.5h", "4H", "1234567d", "٤h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_s(text)
    with pytest.raises(ValidationError):
        DeploySpec(name="ab", ttl=text)


@pytest.mark.parametrize("name", ["ab", "a1", "card-support", "a" * 32])
def test_names(name: str) -> None:
    assert RegisterSpec(name=name).name == name


@pytest.mark.parametrize(
    "name", ["a", "", "Card", "1a", "a-", "-a", "a_b", "a" * 33, "ab\n", "a/b", "a b", "é1"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        RegisterSpec(name=name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_numbers_that_are_none(value: float) -> None:
    with pytest.raises(ValidationError):
        TrainingSpec(weight_decay=value)
