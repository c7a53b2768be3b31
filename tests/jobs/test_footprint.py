"""The memory of a step counted beforehand: its laws, what autograd really keeps, and measured peaks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.memory_model import Point, make_run, predict
from tuning.footprint import KEPT, Footprint, Load, Shape, footprint
from tuning.methods import METHODS
from tuning.sharding import OFFLOADS, SPLIT

ROOT = Path(__file__).parents[2]
PHI_3_MINI = {
    "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 8192,
    "vocab_size": 32064,
}  # fmt: skip

shapes = st.builds(
    lambda hidden, blocks, inner, vocabulary: Shape.of(
        {
            "hidden_size": hidden * 64, "num_hidden_layers": blocks, "num_attention_heads": hidden,
            "intermediate_size": inner * 64, "vocab_size": vocabulary,
        }
    ),
    st.integers(1, 128), st.integers(2, 100), st.integers(1, 400), st.integers(64, 1 << 18),
)  # fmt: skip
loads = st.builds(
    Load,
    method=st.sampled_from(sorted(KEPT)),
    trained=st.integers(1, 10**10),
    tokens=st.integers(1, 1 << 18),
    targets=st.integers(0, 1 << 18),
    rows=st.integers(1, 64),
    virtual_tokens=st.integers(0, 64),
    masked=st.integers(0, 4096),
    rank=st.integers(1, 256),
    dropout=st.booleans(),
    precision=st.sampled_from(["fp32", "bf16"]),
    fp32_base=st.booleans(),
    moments=st.sampled_from([2, 4]),
    recomputes=st.booleans(),
    accumulates=st.booleans(),
    lean=st.booleans(),
    device=st.sampled_from(["cpu", "cuda"]),
    strategy=st.sampled_from(sorted(SPLIT)),
    processes=st.integers(2, 64),
)


def fitted(shape: Shape, load: Load) -> Load:
    """No more trained numbers than the model has."""
    return replace(load, trained=min(load.trained, shape.parameters), targets=min(load.targets, load.tokens))


@given(shapes, loads, st.integers(1, 1 << 16))
def test_more_tokens_never_take_less(shape: Shape, load: Load, more: int) -> None:
    load = fitted(shape, load)
    longer = replace(load, tokens=load.tokens + more)
    assert footprint(shape, load).peak <= footprint(shape, longer).peak
    assert footprint(shape, longer).peak <= footprint(shape, replace(longer, targets=longer.tokens)).peak


@given(shapes, loads, st.sampled_from(["hidden", "query", "key", "inner", "linear", "parameters"]))
def test_a_larger_model_never_takes_less(shape: Shape, load: Load, what: str) -> None:
    load = fitted(shape, load)
    larger = replace(shape, **{what: getattr(shape, what) * 2})
    assert footprint(shape, load).peak <= footprint(larger, load).peak


@given(shapes, loads, st.integers(1, 10**9))
def test_more_trained_numbers_never_take_less(shape: Shape, load: Load, more: int) -> None:
    shape = replace(shape, parameters=shape.parameters + more)
    load = fitted(shape, load)
    larger = replace(load, trained=min(load.trained + more, shape.parameters))
    assert footprint(shape, load).peak <= footprint(shape, larger).peak


@given(shapes, loads)
def test_fewer_processes_never_take_less_each(shape: Shape, load: Load) -> None:
    load = fitted(shape, load)
    assert footprint(shape, load).peak <= footprint(shape, replace(load, processes=load.processes // 2)).peak


@given(shapes, loads)
def test_each_stage_of_zero_takes_no_more_than_the_one_before(shape: Shape, load: Load) -> None:
    load = fitted(shape, load)
    stages = [
        footprint(shape, replace(load, strategy=name)).peak for name in ("ddp", "zero1", "zero2", "zero3")
    ]
    assert stages == sorted(stages, reverse=True)


@given(shapes, loads)
def test_what_is_offloaded_is_in_the_machine_instead_of_the_device(shape: Shape, load: Load) -> None:
    load = fitted(shape, load)
    whole = footprint(shape, load)
    for word in OFFLOADS[load.strategy]:
        less = footprint(shape, replace(load, offload=word))
        assert whole.peak - whole.gradients <= less.peak + less.offloaded
        assert less.peak <= whole.peak
        assert sum(less.parts().values()) + less.offloaded == sum(whole.parts().values())


@given(shapes, loads)
def test_recomputing_never_takes_more_than_keeping(shape: Shape, load: Load) -> None:
    kept, again = (
        footprint(shape, replace(fitted(shape, load), recomputes=wanted)) for wanted in (False, True)
    )
    assert again.activations <= kept.activations
    assert {**vars(again), "activations": 0, "peak": 0} == {**vars(kept), "activations": 0, "peak": 0}


def test_every_method_is_counted() -> None:
    assert set(KEPT) == set(METHODS)


def test_the_weights_are_counted_from_the_widths() -> None:
    config = json.loads((ROOT / "models" / "tiny-phi3" / "config.json").read_text())
    shape = Shape.of(config)
    assert shape is not None
    assert shape.parameters == 1_537_440
    mini = Shape.of(PHI_3_MINI)
    assert mini is not None
    assert mini.parameters == 3_821_079_552
    assert mini.linear == 32 * 3072 * (4 * 3072 + 3 * 8192)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({**PHI_3_MINI, "hidden_size": None}, 0),
        ({name: value for name, value in PHI_3_MINI.items() if name != "vocab_size"}, 0),
        ({**PHI_3_MINI, "num_hidden_layers": "many"}, 0),
        (PHI_3_MINI, 41_900_000_000),  # experts, of which the widths say nothing
    ],
)
def test_unknown_widths_are_none(config: dict[str, Any], parameters: int) -> None:
    assert Shape.of(config, parameters) is None


def taken(**more: Any) -> Footprint:
    """Phi-3-mini on a GPU, eight sequences of 1,024 tokens."""
    shape = Shape.of(PHI_3_MINI)
    assert shape is not None
    load = Load("lora", 25_165_824, 8192, 8192, precision="bf16", device="cuda")
    return footprint(shape, replace(load, **more))


def test_the_parts_of_phi_3_mini() -> None:
    lora, qlora = taken(), taken(method="qlora", quantization="nf4")
    assert lora.parameters == 2 * 3_821_079_552 + 4 * 25_165_824
    assert qlora.parameters == pytest.approx(0.516 * 3_623_878_656 + 2 * 197_200_896 + 1e8, rel=0.01)
    assert (lora.gradients, lora.optimizer) == (4 * 25_165_824, 8 * 25_165_824)
    full = taken(method="full", trained=3_821_079_552, fp32_base=True)
    assert (full.parameters, full.gradients, full.optimizer) == tuple(
        size * 3_821_079_552 for size in (4, 4, 8)
    )


@pytest.mark.slow
def test_a_forward_pass_keeps_what_is_counted(tmp_path: Path) -> None:
    import torch

    point = Point("lora", 2, 256, widths="narrow")
    run = make_run(point, tmp_path)
    (batch,) = run.batches.of_step(0)
    own = {value.untyped_storage().data_ptr() for value in (*run.model.parameters(), *run.model.buffers())}
    kept: dict[int, int] = {}
    alive = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other one takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run.strategy.loss(batch)
    _, parts = predict(run, point)
    assert sum(kept.values()) == pytest.approx(parts["activations"], rel=0.05)


@pytest.mark.slow
def test_measured_peaks_are_within_15_percent() -> None:
    words = [sys.executable, "bench/memory_model.py", "--quick"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    assert "0 of 3 points off by more than 15%" in done.stdout
