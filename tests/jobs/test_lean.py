"""Lean layers: the same outputs and gradients as the layers that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tuning.config import MethodConfig
from tuning.lean import make_lean
from tuning.methods import METHODS


def make_model(folder: Path, method: MethodConfig) -> torch.nn.Module:
    torch.manual_seed(3)
    model = METHODS[method.name].prepare(AutoModelForCausalLM.from_pretrained(folder), method, 10)
    for name, value in model.named_parameters():
        if "lora_B" in name or "lora_E" in name or "norm" in name:
            torch.nn.init.normal_(value, mean=0.5 if "norm" in name else 0.0, std=0.1)
    return model


def loss_and_gradients(model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    ids = torch.arange(5, 45).reshape(2, 20)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("method", "layers"),
    [
        (MethodConfig(rank=4), 5 + 8),
        (MethodConfig(name="rslora", rank=4), 5 + 8),
        (MethodConfig(name="dora", rank=4), 5),
        (MethodConfig(name="adalora", rank=4), 5),
        (MethodConfig(name="full"), 5),
    ],
    ids=["lora", "rslora", "dora", "adalora", "full"],
)
def test_lean_layers_have_the_same_gradients(mini_model: Path, method: MethodConfig, layers: int) -> None:
    model, lean = make_model(mini_model, method), make_model(mini_model, method)
    assert make_lean(lean) == layers
    expected, gradients = loss_and_gradients(model)
    loss, lean_gradients = loss_and_gradients(lean)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == lean_gradients.keys()
    for name, gradient in gradients.items():
        assert (lean_gradients[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_layers_that_compute_something_else_stay(mini_model: Path) -> None:
    assert make_lean(make_model(mini_model, MethodConfig(rank=4, dropout=0.1))) == 5
    model = make_model(mini_model, MethodConfig(rank=4))

    class ShiftedRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = torch.nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.rms_norm(x, (8,), 1 + self.weight, self.variance_epsilon)

    assert make_lean(ShiftedRMSNorm()) == 0
    with model.disable_adapter():  # type: ignore[operator]
        expected = model(input_ids=torch.tensor([[5, 6]])).logits
    make_lean(model)
    with model.disable_adapter():  # type: ignore[operator]
        assert torch.allclose(model(input_ids=torch.tensor([[5, 6]])).logits, expected, atol=1e-5)
