"""Every method by the strategies that split most, on the smallest base: the losses of one process.

What is refused of the pairs is in test_combinations.py; the strategies themselves are in test_strategies.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ranks_stage import Ranks
from training_stage import losses

from tuning.combinations import refusal
from tuning.config import parse_config
from tuning.methods import METHODS
from tuning.sharding import SHARDS_MODEL

pytestmark = pytest.mark.slow

TESTED_ELSEWHERE = {"lora", "full"}
SMALL = {"rank": 4, "alpha": 8, "virtual_tokens": 4}
BASES = ("nf4", "int8", "none")
TRAINING = {"batch_size": 2, "max_length": 48, "learning_rate": 0.01, "precision": "fp32", "max_steps": 3}


def config_of(name: str, quantization: str, strategy: str, processes: int) -> dict[str, Any]:
    keys = {key: value for key, value in SMALL.items() if key in METHODS[name].keys}
    training = {**TRAINING, "packing": False, "log_every_steps": 1, "gradient_accumulation": 2 // processes}
    return {
        "task": "classification",
        "method": {"name": name, "quantization": quantization, **keys},
        "training": training,
        "evaluation": {"max_rows": 2, "max_new_tokens": 2},
        "distributed": {"strategy": strategy, "processes": processes},
    }


def pairs() -> Iterator[tuple[str, str, str]]:
    """(method, format of the base, strategy): zero3 and fsdp where they are allowed, else the next best."""
    for name in sorted(METHODS.keys() - TESTED_ELSEWHERE):
        found = [
            (name, base, strategy)
            for strategy in ("zero3", "fsdp", "zero2", "ddp")
            if (base := next((base for base in BASES if is_allowed(name, base, strategy)), None))
        ]
        yield from [pair for pair in found if pair[2] in SHARDS_MODEL] or found[:1]


def is_allowed(name: str, base: str, strategy: str) -> bool:
    if name == "qlora" and base != "none":
        return False
    return refusal(parse_config(config_of(name, base, strategy, 2))) is None


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(tmp_path_factory.mktemp("logs"), libraries=("bitsandbytes",)) as started:
        yield started


Train = Callable[[str, str, str, int], list[float]]


@pytest.fixture(scope="module")
def train(
    ranks: Ranks, mini_model: Path, color_rows: Path, tmp_path_factory: pytest.TempPathFactory
) -> Train:
    """Losses of a method on a base by a strategy in some processes."""

    @cache
    def run(name: str, base: str, strategy: str, processes: int) -> list[float]:
        folder = tmp_path_factory.mktemp(name)
        config = folder / "config.json"
        config.write_text(json.dumps(config_of(name, base, strategy, processes)))
        words = ("--config", config, "--train", color_rows, "--model", mini_model)
        return losses(ranks.run(processes, folder / "run", *words).output)

    return run


@pytest.mark.parametrize(("name", "base", "strategy"), list(pairs()))
def test_a_split_method_has_the_losses_of_one_process(
    train: Train, name: str, base: str, strategy: str
) -> None:
    alone = train(name, base, "none", 1)
    assert len(alone) == TRAINING["max_steps"]
    assert train(name, base, strategy, 2) == pytest.approx(alone, abs=1e-4)


def test_each_method_is_there() -> None:
    assert {name for name, _, _ in pairs()} == METHODS.keys() - TESTED_ELSEWHERE
