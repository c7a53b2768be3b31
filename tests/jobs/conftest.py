"""A model small enough to make on the spot, and rows for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from training_stage import MINI, Done, make_phi3

COLORS = ["red", "green", "blue", "yellow"]


@pytest.fixture(scope="session")
def mini_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Phi-3 of hidden size 32 with random weights and tiny-phi3's tokenizer."""
    return make_phi3(tmp_path_factory.mktemp("mini-phi3"), **MINI, max_position_embeddings=256)


@pytest.fixture(scope="session")
def color_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 rows of a classification that can be learned: the label is a word of the text."""
    path = tmp_path_factory.mktemp("rows") / "colors.jsonl"
    rows = [
        {"text": f"number {n}: the ball is {color} today" + " indeed" * (n % 5), "label": color}
        for n in range(12)
        for color in COLORS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Write a config file; keywords go into its `training` section, `method` replaces that section."""

    def write(*, method: dict[str, Any] | None = None, task: str = "classification", **training: Any) -> Path:
        short = {"epochs": 2, "batch_size": 8, "max_length": 64, "learning_rate": 0.01, "packing": False}
        config = {
            "task": task,
            "method": method or {"name": "lora", "rank": 4, "alpha": 8},
            "training": {**short, "precision": "fp32", "log_every_steps": 1, **training},
            "validation": {"split": 0.2},
            "evaluation": {"max_rows": 8, "max_new_tokens": 8},
        }
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    return write


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as `run_script` gives a process: sums over threads round in another order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train(
    one_thread: None, mini_model: Path, color_rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Train in this process (a process of its own would load torch anew); returns exit code and stderr."""
    import train as training_script

    def run(config: Path, output: str = "run", **changed: object) -> Done:
        given = {"train": color_rows, "model": mini_model, "output": tmp_path / output, **changed}
        words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
        capfd.readouterr()
        code = training_script.main(["--config", str(config), *words])
        return Done(code, capfd.readouterr().err)

    return run
