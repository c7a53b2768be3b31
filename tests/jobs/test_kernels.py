"""What is chosen for a device that is described, and that what was chosen gives the same numbers."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_batches import make_row
from transformers import AutoModelForCausalLM

from tuning.attention import use_packed_attention
from tuning.batches import lay_out
from tuning.config import MethodConfig
from tuning.decoding import decode
from tuning.kernels import Choices, DeviceFacts, choose, install
from tuning.lean import make_lean
from tuning.loss import SupervisedLoss
from tuning.methods import METHODS

CPU = DeviceFacts("cpu")
H100 = DeviceFacts("cuda", "NVIDIA H100 80GB HBM3", (9, 0), frozenset({"liger_kernel"}))
A100 = DeviceFacts("cuda", "NVIDIA A100 80GB PCIe", (8, 0))
T4 = DeviceFacts("cuda", "Tesla T4", (7, 5))


def words(choices: Choices) -> tuple[str, ...]:
    return tuple(choice.what for choice in vars(choices).values())[:4]


@pytest.mark.parametrize(
    ("facts", "given", "expected"),
    [
        (CPU, {}, ("sdpa", "lean", "chunked", "in turn")),
        (CPU, {"precision": "bf16"}, ("sdpa", "lean but norms", "chunked", "in turn")),
        (CPU, {"strategy": "zero3"}, ("sdpa", "plain", "plain", "in turn")),
        (CPU, {"strategy": "fsdp"}, ("sdpa", "lean", "plain", "in turn")),
        (H100, {"precision": "bf16"}, ("packed", "liger", "liger", "ahead")),
        (H100, {"precision": "bf16", "strategy": "zero3"}, ("packed", "plain", "plain", "ahead")),
        (H100, {"precision": "bf16", "virtual_tokens": True}, ("sdpa", "liger", "liger", "ahead")),
        (A100, {"precision": "bf16"}, ("packed", "lean", "chunked", "ahead")),
        (A100, {"precision": "fp32"}, ("sdpa", "lean", "chunked", "ahead")),
        (T4, {"precision": "fp32"}, ("sdpa", "lean", "chunked", "ahead")),
    ],
)
def test_what_is_chosen(facts: DeviceFacts, given: dict[str, Any], expected: tuple[str, ...]) -> None:
    chosen = choose(facts, **{"precision": "fp32", "strategy": "none", "virtual_tokens": False, **given})
    assert words(chosen) == expected
    assert all(one["why"] for one in chosen.to_dict().values())


def load(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def installed(model: Any, facts: DeviceFacts = CPU, *, virtual_tokens: bool = False) -> Any:
    chosen = choose(facts, precision="fp32", strategy="none", virtual_tokens=virtual_tokens)
    return install(model, chosen, torch.device("cpu"), nullcontext, virtual_tokens=virtual_tokens)


def test_the_loss_of_a_model_stays_what_it_was(mini_model: Path) -> None:
    rows = [make_row(length, length, supervised=length - 2) for length in (300, 120, 90)]
    model = METHODS["lora"].prepare(load(mini_model), MethodConfig(rank=4), 10)
    expected = SupervisedLoss(model)(lay_out(rows, pad_id=0)).item()
    into = installed(model)
    assert into.choices.layers.what == "lean (17)"
    assert into.choices.head_loss.what == "chunked"
    loss = SupervisedLoss(model, head_loss=into.head_loss, tells_documents=into.tells_rows)
    assert loss(lay_out(rows, pad_id=0)).item() == pytest.approx(expected, rel=1e-5)


def test_kernels_that_do_not_run_here_step_aside(mini_model: Path) -> None:
    """Liger's kernels need a GPU; told that they are there, the CPU does without them."""
    model = load(mini_model)
    chosen = choose(H100, precision="fp32", strategy="none", virtual_tokens=False)
    into = install(model, chosen, torch.device("cpu"), nullcontext, virtual_tokens=False)
    assert into.choices.layers.what == "liger (9)"
    assert (into.choices.head_loss.what, into.choices.head_loss.why) == ("chunked", "liger does not run")


def test_a_model_that_scales_its_logits_keeps_its_own_loss(mini_model: Path) -> None:
    model = load(mini_model)
    plain = model.forward

    def scaled(**given: Any) -> Any:
        output = plain(**given)
        output.logits = output.logits / 2
        return output

    model.forward = scaled
    into = installed(model)
    assert into.head_loss is None
    assert into.choices.head_loss.what == "plain"


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("lean", [False, True])
def test_packed_attention_sees_one_row_at_a_time(mini_model: Path, recomputes: bool, lean: bool) -> None:
    model, packed = load(mini_model).train(), load(mini_model).train()
    use_packed_attention(packed)
    if lean:
        make_lean(packed)
    if recomputes:
        packed.gradient_checkpointing_enable({"use_reentrant": False})
    batch = lay_out([make_row(length, length, supervised=length) for length in (24, 10, 7, 5)], pad_id=0)
    losses = [SupervisedLoss(one, tells_documents=one is packed)(batch) for one in (model, packed)]
    for loss in losses:
        loss.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)
    for (name, expected), (_, found) in zip(model.named_parameters(), packed.named_parameters(), strict=True):
        assert (found.grad - expected.grad).norm() <= 1e-4 * expected.grad.norm(), name


def test_packed_attention_generates_as_before(mini_model: Path, tmp_path: Path) -> None:
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16]]
    told: dict[str, Any] = {"end_ids": {0}, "max_new_tokens": 12, "pad_id": 0}
    model, packed = load(mini_model).eval(), load(mini_model).eval()
    use_packed_attention(packed)
    assert decode(packed, prompts, **told) == decode(model, prompts, **told)
    packed.save_pretrained(tmp_path)
    assert load(tmp_path).config._attn_implementation == "sdpa", "what a run computes with is not saved"
