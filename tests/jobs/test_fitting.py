"""How micro-batches are made to fit: parts before recomputing, and the same again when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from tuning.accumulation import PARTS_FILE, parts_from_here
from tuning.batches import Plan
from tuning.config import Config, DistributedConfig, MethodConfig, TrainingConfig
from tuning.distributed import Processes
from tuning.fitting import Fit, fit, fit_run
from tuning.methods import METHODS

GB = 10**9
ALONE = Processes(0, 1, torch.device("cpu"))


def need(parts: int, recomputes: bool) -> int:
    """Of a model whose activations take 64 GB, or 8 if they are computed twice."""
    return (8 if recomputes else 64) * GB // parts


def asked(free: int | None, wanted: Literal["auto"] | bool = "auto", **changed: Any) -> tuple[int, bool]:
    made = fit(need, free, **{"wanted": wanted, "can_recompute": True, "most_parts": 8, **changed})
    assert made.why
    return made.parts, made.recomputes


@pytest.mark.parametrize(
    ("free_gb", "expected"),
    [
        (81, (1, False)),
        (79, (2, False)),
        (39, (4, False)),
        (11, (8, False)),
        (9.9, (2, True)),
        (1, (8, True)),
    ],
)
def test_parts_come_before_recomputing(free_gb: float, expected: tuple[int, bool]) -> None:
    assert asked(int(free_gb * GB)) == expected


def test_what_cannot_be_cut_or_computed_twice_is_not() -> None:
    assert asked(79 * GB, most_parts=1) == (1, True)
    assert asked(9 * GB, can_recompute=False) == (8, False)
    assert asked(9 * GB, can_recompute=False, most_parts=1) == (1, False)


def test_the_config_and_what_is_not_known_come_first() -> None:
    assert asked(1, wanted=False) == (1, False)
    assert asked(1000 * GB, wanted=True) == (1, True)
    assert asked(1000 * GB, wanted=True, can_recompute=False) == (1, False)
    assert asked(None) == (1, False)
    assert Fit(1, False, "").what == "whole micro-batches, activations kept"
    assert Fit(4, True, "").what == "micro-batches in 4 parts, activations computed twice"


@pytest.mark.parametrize(("free_gb", "is_tight"), [(129, False), (127, True), (81, True), (None, False)])
def test_freed_memory_goes_back_where_it_is_short(free_gb: int | None, is_tight: bool) -> None:
    free = None if free_gb is None else free_gb * GB
    for wanted in ("auto", False):
        made = fit(need, free, wanted=wanted, can_recompute=True, most_parts=1)  # type: ignore[arg-type]
        assert made.is_tight == is_tight


def chosen(model: Any, free_gb: float, strategy: str = "none", **training: Any) -> tuple[int, bool]:
    config = Config(
        task="chat",
        training=TrainingConfig(**{"max_length": 256, **training}),
        distributed=DistributedConfig(strategy=strategy),  # type: ignore[arg-type]
    )
    plan = Plan([Long()] * 40, config.training, 1)
    made = fit_run(model, config, plan, precision="fp32", processes=ALONE, free=int(free_gb * GB))
    return made.parts, made.recomputes


class Long:
    """A row of 256 tokens."""

    length, weight = 256, 255


def test_a_model_is_measured_by_its_widths_and_the_largest_micro_batch(mini_model: Path) -> None:
    model = METHODS["lora"].prepare(
        AutoModelForCausalLM.from_pretrained(mini_model), MethodConfig(rank=4), 10
    )
    assert chosen(model, 1.0) == (1, False)
    parts, recomputes = chosen(model, 0.01)
    assert parts > 1
    assert not recomputes
    assert chosen(model, 0.01, strategy="fsdp") == (1, True), "parts would part the processes"
    assert chosen(model, 0.001, batch_size=1) == (1, True)
    assert chosen(model, 0.01, gradient_checkpointing=False) == (1, False)


def test_a_run_that_goes_on_keeps_its_parts(tmp_path: Path) -> None:
    assert parts_from_here(tmp_path, 4) == 4
    assert json.loads((tmp_path / PARTS_FILE).read_text()) == {"parts": 4, "since_step": 1}
    assert parts_from_here(tmp_path, 1) == 4
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    assert parts_from_here(other, 4) == 1, "its checkpoints were made with whole micro-batches"
    assert not (other / PARTS_FILE).exists()
