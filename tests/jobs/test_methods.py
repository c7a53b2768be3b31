"""Methods: which layers are adapted, how much is trained, and names that match nothing or only some."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tuning.anatomy import anatomy_of, linear_layers, resolve_targets
from tuning.config import MethodConfig
from tuning.errors import InputError
from tuning.methods import METHODS, count_parameters
from tuning.models import load_model

FUSED = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
SPLIT = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture
def model(mini_model: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = AutoModelForCausalLM.from_pretrained(mini_model)
    return loaded


def test_all_linear_is_every_linear_layer_but_the_head(model: torch.nn.Module) -> None:
    assert resolve_targets(linear_layers(model), "all-linear") == FUSED


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["q_proj"], "q_proj"),
        (["qkv_proj", "v_proj"], "v_proj"),
        (SPLIT, "q_proj, k_proj, v_proj"),
        (["lm_head"], "lm_head"),
        (["proj"], "proj"),
    ],
)
def test_names_that_match_nothing_or_only_some(
    model: torch.nn.Module, names: list[str], missing: str
) -> None:
    with pytest.raises(InputError, match=f"names {missing}, which the model does not have") as caught:
        resolve_targets(linear_layers(model), names)
    assert all(name in str(caught.value) for name in FUSED)


def test_a_name_that_is_in_some_blocks_only(model: torch.nn.Module) -> None:
    layers = {name: shape for name, shape in linear_layers(model).items() if "1.mlp.down_proj" not in name}
    with pytest.raises(InputError, match="down_proj, which is in 1 of the model's 2 blocks"):
        resolve_targets(layers, ["o_proj", "down_proj"])
    assert resolve_targets(layers, ["o_proj", "layers.0.mlp.down_proj"])


def test_a_full_name_chooses_one_layer(model: torch.nn.Module) -> None:
    config = MethodConfig(rank=2, target_modules=["model.layers.1.mlp.down_proj"])
    adapted = METHODS["lora"].prepare(model, config)
    trained = [name for name, value in adapted.named_parameters() if value.requires_grad]
    assert len(trained) == 2
    assert all("layers.1.mlp.down_proj" in name for name in trained)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rank", [4, 16])
def test_what_is_trained_is_what_was_counted(mini_model: Path, name: str, rank: int) -> None:
    config = MethodConfig(name=name, rank=rank, virtual_tokens=5)
    numbers, _ = count_parameters(load_model(str(mini_model), torch.float32))
    quantized = ["none", "nf4", "int8"] if name == "lora" else ["nf4" if name == "qlora" else "none"]
    for quantization in quantized:
        base = load_model(str(mini_model), torch.float32, quantization)
        anatomy = anatomy_of(base)
        assert anatomy.parameters == numbers
        everything, trainable = count_parameters(METHODS[name].prepare(base, config, 10))
        assert trainable == METHODS[name].count(anatomy, config)
        assert trainable == everything if name == "full" else trainable < everything


def test_frozen_layers_stay_and_too_many_are_refused(model: torch.nn.Module) -> None:
    config = MethodConfig(name="full", freeze_layers=1)
    anatomy = anatomy_of(model)
    METHODS["full"].prepare(model, config)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if "embed" in name or name.startswith("model.layers.0.")
    }
    assert count_parameters(model)[1] == METHODS["full"].count(anatomy, config) < anatomy.parameters
    with pytest.raises(InputError, match="the model has 2 layers; accepted: 0 to 1"):
        METHODS["full"].prepare(model, MethodConfig(name="full", freeze_layers=2))


def test_blocks_that_do_not_divide_the_inputs(model: torch.nn.Module) -> None:
    with pytest.raises(InputError, match=r"must divide .*32, 64.*accepted: 2, 4, 8, 16, 32"):
        METHODS["oft"].prepare(model, MethodConfig(name="oft", rank=12))


def test_shared_keys_and_values_are_counted_as_they_are() -> None:
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, **shape))
    for name in ("prefix", "prompt", "p-tuning", "lokr", "ia3"):
        config = MethodConfig(name=name, virtual_tokens=3)
        expected = METHODS[name].count(anatomy_of(model), config)
        assert count_parameters(METHODS[name].prepare(model, config))[1] == expected
        model = LlamaForCausalLM(model.config)


def test_adalora_needs_steps(model: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="at least 2"):
        METHODS["adalora"].prepare(model, MethodConfig(name="adalora"), 1)
