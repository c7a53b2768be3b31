"""Runs that learn from preferences: measured before and after, resumed, spread, by any method."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ranks_stage import Ranks
from test_preferences import pair_rows, write_rows
from training_stage import JOBS, TINY_PHI3, Done, losses, read_events

import evaluate

pytestmark = pytest.mark.slow
Write = Callable[..., Path]
Train = Callable[..., Done]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(tmp_path_factory.mktemp("ranks")) as started:
        yield started


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", pair_rows(40))


def test_a_run_says_how_well_answers_are_told_apart(
    train: Train, write_config: Write, pairs: Path, tmp_path: Path
) -> None:
    config = write_config(task="chat", objective="dpo", epochs=4, keep_best=True)
    done = train(config, train=pairs)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["objective"], result["metric"], result["direction"]) == ("dpo", "reward_accuracy", "max")
    assert result["before"]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert (result["before"]["reward_accuracy"], result["before"]["reward_margin"]) == (0.5, 0.0)
    assert result["after"]["reward_accuracy"] > 0.9
    assert result["after"]["reward_margin"] > 0
    assert result["change"]["low"] > 0
    validations = read_events(tmp_path / "run", "validation")
    assert [event["reward_accuracy"] for event in validations][-1] > 0.9
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert "the ball is" in sample["expected"]


def test_the_example_learns_to_tell_pairs_apart_that_it_has_not_seen(
    train: Train, write_config: Write, tmp_path: Path
) -> None:
    from maas_client.specfile import load_spec

    spec = load_spec(JOBS / "examples" / "night-buses.yaml", ["training.max_steps=20"])
    config = tmp_path / "config.json"
    config.write_text(json.dumps(spec.script_config()))
    given = {"train": spec.data.train, "validation": spec.data.validation.file, "model": TINY_PHI3}
    done = train(config, **given)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["before"]["reward_accuracy"], result["rows"]["validation"]) == (0.5, 64)
    assert result["after"]["reward_accuracy"] > 0.65
    assert result["after"]["chosen_likelier"] > result["before"]["chosen_likelier"] + 0.2
    assert result["change"]["low"] > 0.05


def test_a_killed_run_goes_on_with_the_same_losses(
    train: Train, ranks: Ranks, write_config: Write, mini_model: Path, pairs: Path, tmp_path: Path
) -> None:
    config = write_config(
        task="chat", objective="dpo", epochs=5, checkpoint_every_steps=7, packing=True, batch_size=1,
        method={"name": "lora", "rank": 4, "dropout": 0.1},
    )  # fmt: skip
    output = tmp_path / "killed"
    started = ranks.start(1, output, "--config", config, "--train", pairs, "--model", mini_model)
    started.wait_for_event("step", 20)
    started.kill(0)
    started.wait()
    (output / "reference.json").write_text("[[1.0")  # it is asked for again
    for name in ("killed", "whole"):
        assert train(config, name, train=pairs).returncode == 0
    assert read_events(output, "started")[-1]["resumed_from_step"] >= 14
    assert losses(output) == losses(tmp_path / "whole")


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "fsdp"])
def test_two_processes_have_the_losses_of_one(
    train: Train,
    ranks: Ranks,
    write_config: Write,
    mini_model: Path,
    pairs: Path,
    tmp_path: Path,
    strategy: str,
) -> None:
    config = write_config(task="chat", objective="dpo", batch_size=6, epochs=2)
    assert train(config, "one", train=pairs).returncode == 0
    value = json.loads(config.read_text())
    value["training"] |= {"batch_size": 1, "gradient_accumulation": 3}
    value["distributed"] = {"strategy": strategy, "processes": 2}
    config.write_text(json.dumps(value))
    ranks.run(2, tmp_path / "two", "--config", config, "--train", pairs, "--model", mini_model)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[1]["after"] == pytest.approx(results[0]["after"], abs=1e-3)


@pytest.mark.parametrize("method", ["pissa", "dora", "prompt", "full"])
def test_any_method_starts_from_the_base_model(
    train: Train, write_config: Write, pairs: Path, tmp_path: Path, method: str
) -> None:
    keys = {"rank": 4} if method in ("pissa", "dora") else {}
    config = write_config(task="chat", objective="dpo", max_steps=3, method={"name": method, **keys})
    done = train(config, train=pairs)
    assert done.returncode == 0, done.stderr
    before = json.loads((tmp_path / "run" / "result.json").read_text())["before"]
    starts_at_base = before["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert starts_at_base == (method != "prompt")  # whose virtual tokens say something from the start


@pytest.mark.parametrize("method", [{"name": "lora", "rank": 4}, {"name": "full"}], ids=["lora", "full"])
def test_a_model_scores_alone_as_it_did_after_training(
    train: Train, write_config: Write, tmp_path: Path, method: dict[str, object]
) -> None:
    rows, held_out = (tmp_path / name for name in ("rows.jsonl", "held.jsonl"))
    write_rows(rows, pair_rows(40)[:32])
    write_rows(held_out, pair_rows(40)[32:])
    config = write_config(task="chat", objective="dpo", epochs=2, method=method)
    assert train(config, train=rows, validation=held_out).returncode == 0
    after = json.loads((tmp_path / "run" / "result.json").read_text())["after"]
    words = ["--config", config, "--model", tmp_path / "run" / "model", "--data", held_out]
    assert evaluate.main([*map(str, words), "--output", str(tmp_path / "scores")]) == 0
    result = json.loads((tmp_path / "scores" / "result.json").read_text())
    assert (result["metric"], result["rows"]) == ("reward_accuracy", 8)
    assert result["metrics"] == pytest.approx(after, rel=1e-3)


def test_with_another_task_it_is_refused(train: Train, write_config: Write, pairs: Path) -> None:
    done = train(write_config(task="qa", objective="dpo"), train=pairs)
    assert done.returncode == 2
    assert "training.objective dpo does not work with task qa; take task chat." in done.stderr
