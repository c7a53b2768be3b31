"""A run's capsule: its first losses come again to the last bit, and what is not as it was is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ranks_stage import Ranks
from training_stage import Done, losses

import replay
from tuning.capsule import differences, read_capsule
from tuning.config import parse_config
from tuning.errors import InputError

Write = Callable[..., Path]
Train = Callable[..., Done]
slow = pytest.mark.slow


@dataclass
class Replay:
    """How a replay ended: its code, what it said, and its report."""

    code: int
    said: str
    report: dict[str, Any]


@pytest.fixture
def again(one_thread: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Replay]:
    def run(*words: object, capsule: Path = tmp_path / "run" / "capsule.json") -> Replay:
        capfd.readouterr()
        code = replay.main(["--capsule", str(capsule), *map(str, words)])
        out, said = capfd.readouterr()
        return Replay(code, said, json.loads(out) if out else {})

    return run


def changed(path: Path, **parts: Any) -> Path:
    """A copy of a capsule in which some parts say something else."""
    value = json.loads(path.read_text())
    for name, part in parts.items():
        value[name] = {**value[name], **part} if isinstance(part, dict) else part
    copy = path.with_name("changed.json")
    copy.write_text(json.dumps(value))
    return copy


@slow
@pytest.mark.parametrize(
    "training",
    [
        {"method": {"name": "lora", "rank": 4, "dropout": 0.1}},
        {"method": {"name": "adalora", "rank": 4}, "packing": True},
        {"method": {"name": "full"}, "gradient_accumulation": 2, "batch_size": 4},
    ],
    ids=["lora", "adalora, packed", "full, accumulated"],
)
def test_the_first_losses_come_again_to_the_last_bit(
    train: Train, write_config: Write, again: Callable[..., Replay], tmp_path: Path, training: dict[str, Any]
) -> None:
    assert train(write_config(**training)).returncode == 0
    seen = again()
    assert seen.code == 0, seen.said
    first = losses(tmp_path / "run")[:10]
    assert seen.report["losses_then"] == seen.report["losses_now"] == first
    assert (seen.report["accepted"], seen.report["not_as_it_was"]) == (0.0, [])
    assert "The losses are the same: largest relative difference 0" in seen.said
    assert again("--steps", 2).report["losses_now"] == first[:2]


@slow
def test_what_differs_is_named_and_only_rounding_is_accepted(
    train: Train, write_config: Write, again: Callable[..., Replay], color_rows: Path, tmp_path: Path
) -> None:
    assert train(write_config(max_steps=3)).returncode == 0
    capsule = tmp_path / "run" / "capsule.json"
    first = read_capsule(capsule)["first_losses"]

    rounded = [loss * (1 + 1e-6) for loss in first]
    assert again(capsule=changed(capsule, first_losses=rounded)).code == 1  # nothing else explains it
    seen = again(capsule=changed(capsule, first_losses=rounded, surroundings={"torch": "2.12.0"}))
    assert seen.code == 0, seen.said
    assert "not as it was: torch was 2.12.0 and is 2." in seen.said
    wrong = [*first[:-1], first[-1] * 1.01]
    seen = again(capsule=changed(capsule, first_losses=wrong, surroundings={"torch": "2.12.0"}))
    assert seen.code == 1
    assert "The losses are not the same: largest relative difference 0.0099, accepted 0.001." in seen.said

    other = tmp_path / "other.jsonl"
    other.write_text(color_rows.read_text().replace("today", "tonight"))
    seen = again("--train", other)
    assert (seen.code, seen.report) == (2, {})
    assert (
        "error: train: not what the run had (the hashes differ); give the run's own by --train." in seen.said
    )
    seen = again(capsule=changed(capsule, files={"train": str(tmp_path / "gone.jsonl")}))
    assert seen.code == 2
    assert "gone.jsonl; give --train." in seen.said


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    environment = {"MAAS_TRACKING": "local", "MLFLOW_TRACKING_URI": ""}
    with Ranks(tmp_path_factory.mktemp("ranks"), environment) as started:
        yield started


@slow
def test_one_process_has_the_losses_of_two_and_mlflow_is_told_by_one(
    ranks: Ranks,
    write_config: Write,
    again: Callable[..., Replay],
    mini_model: Path,
    color_rows: Path,
    tmp_path: Path,
) -> None:
    config = write_config(max_steps=3, batch_size=4)
    value = json.loads(config.read_text()) | {"distributed": {"strategy": "fsdp", "processes": 2}}
    config.write_text(json.dumps(value))
    given = ("--config", config, "--train", color_rows, "--model", mini_model)
    ranks.run(2, tmp_path / "run", *given)
    assert len(list((tmp_path / "run" / "mlruns").glob("*/*/params"))) == 1
    seen = again()
    assert seen.code == 0, seen.said
    assert "processes was 2 and is 1" in seen.report["not_as_it_was"]
    assert seen.report["losses_now"] == pytest.approx(losses(tmp_path / "run"), abs=1e-4)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "first_losses": [1.0]}', '{"format": 1}'])
def test_another_file_is_no_capsule(tmp_path: Path, text: str) -> None:
    path = tmp_path / "capsule.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is not the capsule of a run"):
        read_capsule(path)


def test_differences_are_told_in_a_few_words() -> None:
    then = {"code": "a" * 64, "torch": "2.13.0", "threads": "2", "bitsandbytes": "0.50.2"}
    now = {"code": "b" * 64, "torch": "2.13.0", "threads": "1"}
    assert differences(then, now) == [
        "code was aaaaaaaaaaaa and is bbbbbbbbbbbb",
        "threads was 2 and is 1",
        "bitsandbytes was 0.50.2 and is absent",
    ]


def test_one_process_takes_the_steps_of_several() -> None:
    config = parse_config(
        {
            "task": "chat",
            "method": {"name": "lora"},
            "training": {"gradient_accumulation": 2},
            "distributed": {"strategy": "zero2", "processes": 3},
        }
    )
    assert replay.config_for(config, 3) is config
    alone = replay.config_for(config, 1)
    assert (alone.training.gradient_accumulation, alone.distributed.strategy) == (6, "none")
    for count, dropout in ((2, 0.0), (1, 0.1)):
        drawn = replace(config, method=replace(config.method, dropout=dropout))
        with pytest.raises(InputError, match=r"The run had 3 processes.*--nproc-per-node 3 replay.py"):
            replay.config_for(drawn, count)
