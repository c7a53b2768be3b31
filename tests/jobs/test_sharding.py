"""The formula of what each process holds, and DeepSpeed's config made from ours."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_stage import JOBS

from tuning.config import Config, DistributedConfig, TrainingConfig
from tuning.errors import InputError
from tuning.sharding import OFFLOADS, PARTS, SPLIT, held_by_each
from tuning.zero_config import check_zero_config, zero_config

numbers = st.integers(1, 10**11)


@given(trained=numbers, frozen=st.integers(0, 10**12), processes=st.integers(1, 512))
def test_each_stage_holds_no_more_than_the_one_before(trained: int, frozen: int, processes: int) -> None:
    held = {name: held_by_each(name, processes, trained=trained, frozen_bytes=frozen) for name in SPLIT}
    assert held["none"] == held["ddp"]
    for before, after in (("zero1", "zero2"), ("zero2", "zero3"), ("zero3", "fsdp")):
        for part in PARTS:
            assert getattr(held[after], part) <= getattr(held[before], part)
    assert held["fsdp"].total <= held["ddp"].total


@given(trained=numbers, processes=st.integers(2, 512))
def test_the_formula_of_zero(trained: int, processes: int) -> None:
    """Bytes of a parameter: 4 + 4 + 8 with AdamW in fp32, of which a stage divides some by the processes."""
    shares = {"ddp": 0, "zero1": 12, "zero2": 16, "zero3": 20, "fsdp": 16}
    for name, split in shares.items():
        whole = {"ddp": 16, "zero1": 8, "zero2": 4, "zero3": 0, "fsdp": 0}[name]
        total = held_by_each(name, processes, trained=trained).total
        assert 0 <= total - (whole * trained + split * trained / processes) <= len(PARTS)


@given(trained=numbers, processes=st.integers(1, 64), strategy=st.sampled_from(sorted(SPLIT)))
def test_what_is_offloaded_leaves_the_device(trained: int, processes: int, strategy: str) -> None:
    held = held_by_each(strategy, processes, trained=trained)
    assert held.on_device(strategy, "none") == held.total
    on_device = [held.on_device(strategy, offload) for offload in ("none", *OFFLOADS[strategy])]
    assert on_device == sorted(on_device, reverse=True)
    if "all" in OFFLOADS[strategy]:
        assert on_device[-1] == 0


def test_neither_loads_torch() -> None:
    code = "import sys, tuning.sharding, tuning.zero_config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=JOBS)


configs = st.builds(
    Config,
    task=st.just("chat"),
    training=st.builds(
        TrainingConfig,
        batch_size=st.integers(1, 512),
        gradient_accumulation=st.integers(1, 64),
        precision=st.sampled_from(["fp32", "bf16"]),
    ),
    distributed=st.builds(
        DistributedConfig, strategy=st.just("zero3"), processes=st.integers(1, 512), offload=st.just("all")
    ),
)


@given(config=configs, stage=st.sampled_from([1, 2, 3]), trained=numbers, on_gpu=st.booleans())
def test_every_generated_config_is_consistent(config: Config, stage: int, trained: int, on_gpu: bool) -> None:
    made = zero_config(config, stage, trained=trained, on_gpu=on_gpu)
    assert made["train_batch_size"] == (
        config.training.batch_size * config.training.gradient_accumulation * config.distributed.processes
    )
    zero = made["zero_optimization"]
    assert zero["allgather_bucket_size"] % 2 == 0
    assert zero["offload_param"]["device"] == "cpu"
    assert ("torch_autocast" in made) == (config.training.precision == "bf16")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_batch_size": "8"}, 'train_batch_size is "8"; accepted: a whole number'),
        ({"train_micro_batch_size_per_gpu": 2.0}, "train_micro_batch_size_per_gpu is 2.0"),
        ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps is true"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"train_batch_size": 9}, "2 sequences x 1 micro-batches x 4 processes are 8"),
        ({"zero_optimization": {"stage": "2"}}, 'zero_optimization.stage is "2"; accepted: 1, 2 or 3'),
        ({"zero_optimization": {"stage": True}}, "zero_optimization.stage is true"),
    ],
)
def test_a_config_that_is_not_is_refused(changes: dict[str, Any], words: str) -> None:
    config = Config(task="chat", training=replace(TrainingConfig(), batch_size=2, precision="fp32"))
    config = replace(config, distributed=DistributedConfig("zero2", 4))
    made = zero_config(config, 2, trained=1000, on_gpu=False)
    check_zero_config(made, 4)
    with pytest.raises(InputError) as refused:
        check_zero_config(made | changes, 4)
    assert words in str(refused.value)


PAGE = (JOBS.parent / "docs" / "distributed.md").read_text(encoding="utf-8")
PHI3_MINI = 3_821_079_552


def cells(first: str) -> list[list[str]]:
    """The rows of the page's table whose head begins so."""
    table = PAGE.partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def bytes_of(formula: str, **values: int) -> float:
    """What a formula of the page comes to, such as `(F + 4 T) / n`."""
    value: float = eval(re.sub(r"(\d) T", r"\1 * T", formula), {}, values)  # noqa: S307 - our own page
    return value


def test_the_page_has_the_formula() -> None:
    rows = {name: row[1:] for row in cells("strategy") for name in re.findall(r"`(\w+)`", row[0])}
    assert list(rows) == list(SPLIT)
    for name, (*formulas, example) in rows.items():
        held = held_by_each(name, 7, trained=7000, frozen_bytes=700)
        for part, formula in zip(PARTS, formulas, strict=True):
            assert bytes_of(formula, T=7000, F=700, n=7) == getattr(held, part)
        totals = [held_by_each(name, count, trained=PHI3_MINI).total / 1e9 for count in (1, 4, 8)]
        assert example == ", ".join(f"{total:.0f} GB" for total in totals)


def test_the_page_has_what_can_be_offloaded() -> None:
    names = re.findall(r"`(\w+)`", PAGE.partition("\n| `offload` |")[2].partition("\n")[0])
    words = {"-": frozenset[str](), "all three": frozenset(PARTS)}
    for offload, *told in cells("`offload`"):
        for name, parts in zip(names, told, strict=True):
            expected = words.get(parts, frozenset(parts.split(", ")))
            assert OFFLOADS[name].get(offload.strip("`"), frozenset()) == expected
