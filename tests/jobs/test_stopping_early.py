"""Stopping early and keeping the best model: by the validation loss, and the same after any interruption."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_stage import Done, losses, read_events, script, start_and_wait_for_step

from tuning.checkpoints import Progress

Write = Callable[..., Path]
Train = Callable[..., Done]


def after_validations(*values: float) -> Progress:
    progress = Progress()
    for step, value in enumerate(values, 1):
        progress.step = step
        progress.note_validation(value)
    return progress


@pytest.mark.parametrize(
    ("values", "best", "since"),
    [
        ((3.0, 2.0, 1.0), 3, 0),
        ((1.0, 2.0, 3.0), 1, 2),
        ((1.0, 1.0), 1, 1),  # equal is no improvement
        ((float("nan"), 2.0, float("nan")), 2, 1),
        ((float("nan"),), None, 1),
    ],
)
def test_the_lowest_validation_loss_is_the_best(
    values: tuple[float, ...], best: int | None, since: int
) -> None:
    progress = after_validations(*values)
    assert (progress.best_step, progress.without_improvement) == (best, since)
    assert json.loads(json.dumps(vars(progress))) is not None


OVERFITS: dict[str, Any] = {
    "method": {"name": "full"}, "epochs": 60, "learning_rate": 0.02, "evaluate_every_steps": 2,
    "early_stopping_patience": 3, "schedule": "constant", "keep_checkpoints": 1,
}  # fmt: skip


@pytest.fixture
def shuffled_rows(tmp_path: Path) -> Path:
    """Rows whose labels say nothing about the text: whoever learns them gets worse on others."""
    path = tmp_path / "shuffled.jsonl"
    labels = ["red", "green", "blue"]
    rows = [
        {"text": f"ball {n * n % 97} and {n % 7}", "label": labels[n * n * 7 % 11 % 3]} for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def result_of(output: Path) -> Any:
    return json.loads((output / "result.json").read_text())


@pytest.mark.slow
def test_a_run_stops_when_it_gets_no_better_and_keeps_its_best_model(
    train: Train, write_config: Write, shuffled_rows: Path, tmp_path: Path
) -> None:
    assert train(write_config(**OVERFITS, keep_best=True), train=shuffled_rows).returncode == 0
    output = tmp_path / "run"
    result, seen = result_of(output), read_events(output, "validation")
    best = min(seen, key=lambda event: event["loss"])
    assert result["stopped_early"]
    assert (result["best_step"], result["model_step"]) == (best["step"], best["step"])
    assert result["steps"] > result["best_step"]
    assert len([event for event in seen if event["step"] > best["step"]]) == 3
    assert result["validation_loss"] == best["loss"] == pytest.approx(result["after"]["loss"], rel=1e-6)
    told = {name: read_events(output, name)[0] for name in ("stopped_early", "best")}
    assert told["stopped_early"]["step"] == result["steps"]
    assert told["best"]["step"] == result["best_step"]
    kept = {path.name for path in (output / "checkpoints").iterdir()}
    assert kept == {f"step-{step:06d}" for step in (result["steps"], result["best_step"])}
    model = load_file(output / "model" / "model.safetensors")
    best_weights = load_file(
        output / "checkpoints" / f"step-{best['step']:06d}" / "weights-00000.safetensors"
    )
    name = next(name for name in model if name.endswith("qkv_proj.weight"))
    stored = next(value for key, value in best_weights.items() if name in key)
    assert torch.equal(model[name].flatten(), stored.flatten())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_stops_at_the_same_step_with_the_same_model(
    train: Train, write_config: Write, mini_model: Path, shuffled_rows: Path, tmp_path: Path, number: int
) -> None:
    config = write_config(**OVERFITS | {"evaluate_every_steps": 3}, checkpoint_every_steps=2, keep_best=True)
    output = tmp_path / "cut"
    words = script("train.py", "--config", config, "--train", shuffled_rows, "--model", mini_model)
    process = start_and_wait_for_step([*words, "--output", str(output)], output, 5)
    process.send_signal(number)
    process.wait(60)
    assert not (output / "result.json").exists(), "it was too fast to be cut off"
    for name in ("cut", "whole"):
        assert train(config, name, train=shuffled_rows).returncode == 0
    assert read_events(output, "started")[-1]["resumed_from_step"] > 0
    assert losses(output) == losses(tmp_path / "whole")
    cut, whole = result_of(output), result_of(tmp_path / "whole")
    for key in ("steps", "best_step", "model_step", "validation_loss", "after"):
        assert cut[key] == whole[key]
    assert cut["hashes"]["model"] == whole["hashes"]["model"]


@pytest.mark.slow
def test_a_damaged_best_checkpoint_is_said(
    train: Train, write_config: Write, shuffled_rows: Path, tmp_path: Path
) -> None:
    config = write_config(**OVERFITS, keep_best=True)
    assert train(config, train=shuffled_rows).returncode == 0
    output = tmp_path / "run"
    step = result_of(output)["best_step"]
    (output / "result.json").unlink()
    weights = output / "checkpoints" / f"step-{step:06d}" / "weights-00000.safetensors"
    *all_but_one, last = weights.read_bytes()
    weights.write_bytes(bytes([*all_but_one, last ^ 1]))
    done = train(config, train=shuffled_rows)
    assert done.returncode == 0, done.stderr
    assert f"Checkpoint {step}, the best, is damaged" in done.stderr
    result = result_of(output)
    assert result["model_step"] == result["steps"]
    assert any("is damaged" in warning for warning in result["warnings"])


@pytest.mark.slow
def test_what_decides_when_to_stop_cannot_change_on_the_way(
    train: Train, write_config: Write, shuffled_rows: Path, tmp_path: Path
) -> None:
    assert train(write_config(**OVERFITS), train=shuffled_rows).returncode == 0
    (tmp_path / "run" / "result.json").unlink()
    done = train(write_config(**OVERFITS | {"evaluate_every_steps": 4}), train=shuffled_rows)
    assert done.returncode == 2
    assert "training.evaluate_every_steps" in done.stderr
