"""Lean layers: the same outputs and gradients as the layers that they stand for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config
from transformers.models.phi3.modeling_phi3 import Phi3MLP

from tuning.config import MethodConfig
from tuning.device import onednn_product
from tuning.lean import make_lean
from tuning.methods import METHODS


def make_model(folder: Path, method: MethodConfig) -> torch.nn.Module:
    torch.manual_seed(3)
    model = METHODS[method.name].prepare(AutoModelForCausalLM.from_pretrained(folder), method)
    for name, value in model.named_parameters():
        if "lora_B" in name or "norm" in name:
            torch.nn.init.normal_(value, mean=0.5 if "norm" in name else 0.0, std=0.1)
    return model


def loss_and_gradients(model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    ids = torch.arange(5, 45).reshape(2, 20)
    positions = torch.tensor([[*range(20)], [*range(13), *range(7)]])  # the second line holds two documents
    loss = model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False).loss
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def lean_names(model: torch.nn.Module) -> Counter[str]:
    """The kinds of layers that have a lean forward, and how many of each."""
    lean = (part for part in model.modules() if "forward" in vars(part))
    return Counter("Lora" if hasattr(part, "lora_A") else type(part).__name__ for part in lean)


FOR_BOTH = {"Phi3RMSNorm": 5, "Phi3MLP": 2, "Phi3Attention": 2}
HEAD, BASES, ADAPTERS = 1, 8, 8


@pytest.mark.parametrize(
    ("method", "layers"),
    [
        (MethodConfig(rank=4), FOR_BOTH | {"Linear": HEAD + BASES + 2 * ADAPTERS, "Lora": ADAPTERS}),
        (MethodConfig(name="full"), FOR_BOTH | {"Linear": HEAD + BASES}),
    ],
    ids=["lora", "full"],
)
def test_lean_layers_have_the_same_gradients(
    mini_model: Path, method: MethodConfig, layers: dict[str, int]
) -> None:
    model, lean = make_model(mini_model, method), make_model(mini_model, method)
    assert make_lean(lean) == sum(layers.values())
    assert lean_names(lean) == layers
    expected, gradients = loss_and_gradients(model)
    loss, lean_gradients = loss_and_gradients(lean)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == lean_gradients.keys()
    for name, gradient in gradients.items():
        assert (lean_gradients[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_layers_that_compute_something_else_stay(mini_model: Path) -> None:
    dropping = make_model(mini_model, MethodConfig(rank=4, dropout=0.1))
    make_lean(dropping)
    assert "Lora" not in lean_names(dropping)
    model = make_model(mini_model, MethodConfig(rank=4))

    class ShiftedRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = torch.nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.rms_norm(x, (8,), 1 + self.weight, self.variance_epsilon)

    class GatedGelu(Phi3MLP):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
            out: torch.Tensor = self.down_proj(torch.nn.functional.gelu(gate) * up)
            return out

    assert make_lean(ShiftedRMSNorm()) == 0
    assert make_lean(torch.nn.Linear(8, 8)) == 0, "a bias has no lean form"
    assert make_lean(torch.nn.Linear(8, 8, bias=False, dtype=torch.bfloat16)) == 0
    gelu = GatedGelu(Phi3Config(hidden_size=8, intermediate_size=8))
    make_lean(gelu)
    assert lean_names(gelu) == {"Linear": 2}
    with model.disable_adapter():  # type: ignore[operator]
        expected = model(input_ids=torch.tensor([[5, 6]])).logits
    make_lean(model)
    with model.disable_adapter():  # type: ignore[operator]
        assert torch.allclose(model(input_ids=torch.tensor([[5, 6]])).logits, expected, atol=1e-5)


def test_a_lean_model_generates_as_before(mini_model: Path) -> None:
    model, lean = (make_model(mini_model, MethodConfig(rank=4)).eval() for _ in range(2))
    make_lean(lean)
    ids = torch.arange(5, 15)[None]
    answers = [part.generate(input_ids=ids, max_new_tokens=8, do_sample=False) for part in (model, lean)]  # type: ignore[operator]
    assert torch.equal(*answers)


@pytest.mark.parametrize("shape", [(1, 160, 16), (300, 16, 160), (64, 832, 160)])
def test_both_libraries_multiply_to_the_same_numbers(shape: tuple[int, int, int]) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    tokens, inner, outer = shape
    x, weight = torch.randn(tokens, inner), torch.randn(outer, inner)
    expected = x.double() @ weight.double().t()
    for left, right in ((x, weight), (x.t().contiguous().t(), weight.t().contiguous().t())):
        assert (onednn_product(left, right) - expected).norm() <= 1e-6 * expected.norm()
