"""What is chosen for a device that is described, and that what was chosen gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_batches import make_row
from transformers import AttentionInterface, AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from tuning.attention import PACKED, use_masked_attention, use_packed_attention, why_not_packed
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
    if lean:
        assert make_lean(packed) == 5 + 4
    use_packed_attention(packed)
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


def small_phi3(**parts: Any) -> Any:
    torch.manual_seed(2)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return Phi3ForCausalLM(Phi3Config(**shape, num_attention_heads=2, pad_token_id=0, **parts))


def why_not(model: Any) -> str | None:
    return why_not_packed(model, torch.device("cpu"), nullcontext)


def test_a_model_attends_packed_only_where_its_logits_stay(mini_model: Path) -> None:
    model = METHODS["lora"].prepare(load(mini_model), MethodConfig(rank=4), 10)
    assert why_not(model) is None
    assert model.config._attn_implementation == "sdpa", "asking changes nothing"
    model.config.layer_types = ["full_attention", "chunked_attention"]
    assert why_not(model) == "the model has attention of another kind (chunked_attention)"
    eager = load(mini_model, attn_implementation="eager")
    assert why_not(eager) == "the model computes its attention its own way (eager)"


def test_a_model_that_does_not_pass_positions_on_keeps_masks() -> None:
    """Where a loss does not tell rows' ends, nothing else would keep them apart."""
    model = small_phi3()
    for part in model.modules():
        if type(part).__name__ == "Phi3Attention":
            part.forward = without_positions(part.forward)
    assert why_not(model) == "the model's logits would change"
    assert model.config._attn_implementation == "sdpa"


def without_positions(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(**given: Any) -> Any:
        given.pop("position_ids")
        return forward(**given)

    return call


def test_what_is_chosen_for_a_gpu_is_put_in_place(mini_model: Path) -> None:
    model = load(mini_model)
    chosen = choose(H100, precision="bf16", strategy="none", virtual_tokens=False)
    into = install(model, chosen, torch.device("cpu"), nullcontext, virtual_tokens=False)
    assert (into.choices.attention.what, model.config._attn_implementation) == (PACKED, PACKED)
    assert into.tells_rows
    use_masked_attention(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_flash_kernels_are_called_as_this_pytorch_knows_them(kv_heads: int, window: int | None) -> None:
    """Without a GPU: tensors without numbers go through the kernel's declaration."""
    use_packed_attention(small_phi3())
    attend = AttentionInterface._global_mapping[PACKED]
    query = torch.empty(2, 4, 8, 16, device="meta", dtype=torch.bfloat16)
    key = torch.empty(2, kv_heads, 8, 16, device="meta", dtype=torch.bfloat16)
    told = {"cu_seq_lens_q": torch.empty(4, dtype=torch.int32, device="meta"), "max_length_q": 8}
    out, _ = attend(torch.nn.Module(), query, key, key, None, sliding_window=window, **told)
    assert out.shape == (2, 8, 4, 16)
