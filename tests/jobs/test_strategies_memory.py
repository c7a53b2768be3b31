"""A model of 200 M parameters in two processes: what each holds falls as ZeRO's formula says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ranks_stage import Ranks
from training_stage import make_phi3, read_events

from tuning.sharding import PARTS, SPLIT, held_by_each

pytestmark = pytest.mark.slow

SPREAD = [name for name in SPLIT if name != "none"]
GROWTH = 0.002  # what padding may add


@pytest.fixture(scope="module")
def m200(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Phi-3 of hidden size 1024 with 16 layers and random weights."""
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 64}
    folder = make_phi3(tmp_path_factory.mktemp("m200"), **sizes, **heads)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(tmp_path_factory.mktemp("logs")) as started:
        yield started


@pytest.fixture(scope="module")
def held(
    ranks: Ranks, m200: Path, color_rows: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """By strategy: the event `memory` of a first step, and the parameters of the model."""
    facts = {}
    for strategy in SPREAD:
        folder = tmp_path_factory.mktemp(strategy)
        config = {
            "task": "classification",
            "method": {"name": "full"},
            "training": {"max_steps": 2, "batch_size": 1, "max_length": 32, "precision": "fp32"},
            "evaluation": {"max_rows": 1, "max_new_tokens": 1},
            "distributed": {"strategy": strategy, "processes": 2},
        }
        (folder / "config.json").write_text(json.dumps(config))
        words = ("--config", folder / "config.json", "--train", color_rows, "--model", m200)
        started = ranks.start(2, folder / "run", *words)
        started.wait_for_event("memory")
        for rank in range(2):
            started.kill(rank)
        started.wait()
        (facts[strategy],) = read_events(folder / "run", "memory")
        facts[strategy]["parameters"] = read_events(folder / "run", "started")[0]["parameters"]
    return facts


@pytest.mark.parametrize("strategy", SPREAD)
def test_each_process_holds_what_the_formula_says(held: dict[str, dict[str, Any]], strategy: str) -> None:
    facts = held[strategy]
    assert facts["parameters"] > 200_000_000
    expected = held_by_each(strategy, 2, trained=facts["parameters"])
    for part in PARTS:
        formula = getattr(expected, part)
        for counted in facts[f"{part}_bytes"]:
            assert formula * (1 - GROWTH) <= counted <= formula * (1 + GROWTH), part


def test_it_falls_from_stage_to_stage(held: dict[str, dict[str, Any]]) -> None:
    totals = [
        max(sum(counts) for counts in zip(*(held[name][f"{part}_bytes"] for part in PARTS), strict=True))
        for name in SPREAD
    ]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(SPREAD)
    print(*(f"{name} {total / 1e6:,.0f} MB" for name, total in zip(SPREAD, totals, strict=True)))


def test_memory_beyond_what_is_held_is_told(held: dict[str, dict[str, Any]]) -> None:
    for facts in held.values():
        held_in_all = sum(facts[f"{part}_bytes"][0] for part in PARTS)
        assert facts["peak_bytes"][0] > held_in_all
