"""Lean layers: the same outputs and gradients as the layers that they stand for."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from test_batches import make_row
from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from tuning.batches import lay_out
from tuning.config import MethodConfig
from tuning.lean import Parts, make_lean
from tuning.loss import SupervisedLoss
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
        (MethodConfig(rank=4), 5 + 4 + 8),
        (MethodConfig(name="rslora", rank=4), 5 + 4 + 8),
        (MethodConfig(name="dora", rank=4), 5 + 4),
        (MethodConfig(name="adalora", rank=4), 5 + 4),
        (MethodConfig(name="full"), 5 + 4),
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
    assert make_lean(make_model(mini_model, MethodConfig(rank=4, dropout=0.1))) == 5 + 4
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


@pytest.mark.parametrize("window", [None, 300, 40])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_long_lines_are_attended_to_row_by_row(window: int | None, kv_heads: int) -> None:
    """Rows of 300, 200 and 60 tokens; positions are rotated in part of each head only, as in Phi-4-mini."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    shape = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = Phi3Config(
        **shape,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        sliding_window=window,
        rope_parameters=rope,
        pad_token_id=0,
    )
    torch.manual_seed(5)
    model = Phi3ForCausalLM(config)
    lean = copy.deepcopy(model)
    assert make_lean(lean) == 5 + 4
    batch = lay_out([make_row(length, length, supervised=length) for length in (300, 200, 60)], pad_id=0)
    assert batch.input_ids.shape == (2, 304)
    losses = [SupervisedLoss(one, tells_documents=True)(batch) for one in (model, lean)]
    for loss in losses:
        loss.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    for (name, expected), (_, found) in zip(model.named_parameters(), lean.named_parameters(), strict=True):
        assert expected.grad is not None
        assert found.grad is not None
        assert (found.grad - expected.grad).norm() <= 1e-4 * expected.grad.norm(), name


def test_a_cache_is_filled_as_before(mini_model: Path) -> None:
    model, lean = make_model(mini_model, MethodConfig(rank=4)), make_model(mini_model, MethodConfig(rank=4))
    make_lean(lean)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        texts = [one.generate(input_ids=ids, max_new_tokens=8, do_sample=False) for one in (model, lean)]  # type: ignore[operator]
    assert torch.equal(*texts)


def test_in_bf16_norms_stay_and_the_rest_is_lean(mini_model: Path) -> None:
    model, lean = (make_model(mini_model, MethodConfig(rank=4)).bfloat16() for _ in range(2))
    assert make_lean(lean, Parts(rms_norm=None)) == 4 + 8
    (expected, gradients), (loss, lean_gradients) = loss_and_gradients(model), loss_and_gradients(lean)
    assert loss == pytest.approx(expected, rel=1e-2)
    for name, gradient in gradients.items():
        assert (lean_gradients[name] - gradient).norm() <= 0.1 * gradient.norm(), name


def test_weights_in_fp32_under_autocast(mini_model: Path) -> None:
    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    model, lean = (make_model(mini_model, MethodConfig(name="full")) for _ in range(2))
    assert make_lean(lean, autocast=autocast) == 5 + 4
    with autocast():
        (expected, gradients), (loss, lean_gradients) = loss_and_gradients(model), loss_and_gradients(lean)
    assert loss == pytest.approx(expected, rel=1e-2)
    for name, gradient in gradients.items():
        assert (lean_gradients[name] - gradient).norm() <= 0.1 * gradient.norm(), name
