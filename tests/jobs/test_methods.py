"""Methods: which layers get an adapter, how much is trained, and names that do not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tuning.config import MethodConfig
from tuning.errors import InputError
from tuning.methods import METHODS, count_parameters, resolve_targets

FUSED = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


@pytest.fixture
def model(mini_model: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = AutoModelForCausalLM.from_pretrained(mini_model)
    return loaded


def test_all_linear_is_every_linear_layer_but_the_head(model: torch.nn.Module) -> None:
    assert resolve_targets(model, "all-linear") == FUSED


@pytest.mark.parametrize("names", [["q_proj"], ["qkv_proj", "v_proj"], ["lm_head"], ["proj"]])
def test_names_that_match_nothing_or_only_some(model: torch.nn.Module, names: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        resolve_targets(model, names)
    assert names[-1] in str(caught.value)
    assert all(name in str(caught.value) for name in FUSED)


def test_a_full_name_chooses_one_layer(model: torch.nn.Module) -> None:
    config = MethodConfig(rank=2, target_modules=["model.layers.1.mlp.down_proj"])
    adapted = METHODS["lora"].prepare(model, config)
    trained = [name for name, value in adapted.named_parameters() if value.requires_grad]
    assert len(trained) == 2
    assert all("layers.1.mlp.down_proj" in name for name in trained)


def test_lora_trains_a_little_and_full_trains_all(model: torch.nn.Module) -> None:
    everything, trainable = count_parameters(METHODS["full"].prepare(model, MethodConfig(name="full")))
    assert trainable == everything
    adapted = METHODS["lora"].prepare(model, MethodConfig(rank=2))
    shapes = [(32, 96), (32, 32), (32, 128), (64, 32)]
    assert count_parameters(adapted)[1] == 2 * sum(2 * (rows + columns) for rows, columns in shapes)
