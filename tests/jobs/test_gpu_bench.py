"""The measurement on a GPU: what it counts, what it says without one, and its whole path on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from bench import gpu_phi3

SCRIPT = Path(gpu_phi3.__file__)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_it_says_that_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_phi3.main([]) == gpu_phi3.NOT_MEASURED == 3
    assert capsys.readouterr().out == "no CUDA device: not measured\n"


def test_it_counts_what_the_layers_of_phi_3_mini_compute() -> None:
    size = gpu_phi3.MINI
    config = Phi3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
    )
    with torch.device("meta"):
        model = Phi3ForCausalLM(config)
    linear = sum(part.weight.numel() for part in model.modules() if isinstance(part, torch.nn.Linear))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(3.82e9, rel=1e-3)
    attention = size.flops_a_token() - 4 * linear
    # Queries by keys and weights by values, once forward and twice backward; half of a row is seen.
    assert attention == pytest.approx(size.layers * 2 * 2 * size.hidden * size.length * 3 / 2)


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10", 125e12),
        ("Tesla T4", None),
    ],
)
def test_it_knows_the_peaks_of_cards(card: str, peak: float | None) -> None:
    assert gpu_phi3.peak_of(card) == peak


def heard(**changed: Any) -> dict[str, list[dict[str, Any]]]:
    """Two rounds in which every bound holds by a little, but for what is changed."""
    step_s = gpu_phi3.MINI.flops_a_token() * 8 * 4096 / (0.51 * 989e12)
    mine = {"step_s": step_s, "peak_gb": 20.0, "losses": [10.0, 9.0]}
    ours = {**mine, **changed}
    trl = {"step_s": 1.31 * step_s, "peak_gb": 20.1, "losses": [10.05, 9.05]}
    qlora = {"step_s": 2 * step_s, "peak_gb": 8.9, "losses": [10.0, 9.0]}
    return {"ours": [ours] * 2, "trl": [trl] * 2, "qlora": [qlora] * 2, "ours-recomputed": [mine] * 2}


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({}, True),
        ({"step_s": 2.0}, False),
        ({"peak_gb": 20.2}, False),
        ({"peak_gb": 19.7}, False),  # QLoRA then has more than 0.45 of it
        ({"losses": [10.2, 9.0]}, False),
    ],
)
def test_it_holds_what_was_measured_against_the_bounds(
    changed: dict[str, Any], good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_phi3.judge(gpu_phi3.MINI, heard(**changed), gpu_phi3.HOPPER_PEAK) is good
    assert "share of the card's peak" in capsys.readouterr().out


@pytest.mark.slow
def test_its_whole_path_runs_with_a_tiny_model_on_a_cpu() -> None:
    words = [sys.executable, str(SCRIPT), "--tiny"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for contender in gpu_phi3.CONTENDERS:
        assert f"\n{contender}: {{'step_s'" in done.stdout
    assert "losses of LoRA and TRL apart by at most 0.0" in done.stdout
