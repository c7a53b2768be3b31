"""Packing: no conversation learns from another, on every way that attention is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_batches import make_row
from transformers import AttentionInterface, AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from tuning.attention import use_packed_attention
from tuning.batches import TokenRow, lay_out
from tuning.config import MethodConfig
from tuning.lean import make_lean
from tuning.loss import SupervisedLoss
from tuning.methods import METHODS
from tuning.preferences import Pair, PreferenceLoss, lay_out_pairs

LENGTHS = (24, 10, 7, 5)  # the last three share a line


def neighbors_gradient(
    model: Any, *, times: int = 1, tells_documents: bool = False, one_document: bool = False
) -> tuple[float, float]:
    """(largest gradient on the tokens of other rows, on the row's own) of the loss of the last row alone.

    What a row's loss does not depend on has no gradient there: this sees a leak however the mask is made.
    Rows are `times` as long as LENGTHS says. With `one_document` positions count on over the whole line, as
    if it held one row.
    """
    lengths = [times * length for length in LENGTHS]
    rows = [make_row(length, length, supervised=0) for length in lengths[:-1]]
    batch = lay_out([*rows, make_row(lengths[-1], 1, supervised=lengths[-1])], pad_id=0)
    assert batch.input_ids.shape == (2, lengths[0]), "three rows must share a line for this to say anything"
    if one_document:
        batch = replace(batch, position_ids=torch.arange(lengths[0]).expand(2, lengths[0]))
    batch = batch.to(next(model.parameters()).device)
    seen: list[torch.Tensor] = []

    def watch(_module: object, _given: object, output: torch.Tensor) -> torch.Tensor:
        watched = output.detach().requires_grad_()
        seen.append(watched)
        return watched

    handle = model.get_input_embeddings().register_forward_hook(watch)
    SupervisedLoss(model, tells_documents=tells_documents)(batch).backward()
    handle.remove()
    (embedded,) = seen
    assert embedded.grad is not None
    line = int(batch.predicts.any(dim=1).nonzero())
    start = int(batch.predicts[line].nonzero()[0])
    own = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    assert start >= lengths[1], "a row that comes first has nobody to look at"
    own[line, start : start + lengths[-1]] = True
    size = embedded.grad.abs().amax(dim=-1).cpu()
    return float(size[~own].max()), float(size[own].max())


def phi3(folder: Path, **parts: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **parts).eval()


def lean_phi3(folder: Path) -> Any:
    model = phi3(folder)
    assert make_lean(model)
    return model


def recomputing_phi3(folder: Path) -> Any:
    model = phi3(folder).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def small_window_phi3(_folder: Path, **parts: Any) -> Any:
    torch.manual_seed(1)
    config = Phi3Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        pad_token_id=0,
        **parts,
    )
    return Phi3ForCausalLM(config).eval()


def long_rope_phi3(folder: Path) -> Any:
    parameters = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0] * 8,
        "long_factor": [1.5] * 8,
    }
    return small_window_phi3(
        folder, rope_parameters=parameters, original_max_position_embeddings=16, sliding_window=None
    )


def packed_phi3(folder: Path, **parts: Any) -> Any:
    return packed(phi3(folder, **parts))


def packed(model: Any) -> Any:
    use_packed_attention(model)
    return model


PATHS: dict[str, Callable[[Path], Any]] = {
    "sdpa": lambda folder: phi3(folder, attn_implementation="sdpa"),
    "eager": lambda folder: phi3(folder, attn_implementation="eager"),
    "lean layers": lean_phi3,
    "recomputed activations": recomputing_phi3,
    "sliding window": lambda folder: small_window_phi3(folder, sliding_window=6),
    "long rope": long_rope_phi3,
}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_a_row_has_no_gradient_on_its_neighbors(mini_model: Path, path: str) -> None:
    others, own = neighbors_gradient(PATHS[path](mini_model))
    assert own > 1e-4
    assert others == 0


@pytest.mark.parametrize("path", ["sdpa", "lean layers", "packed"])
@pytest.mark.parametrize("times", [1, 11])  # lean layers attend to long lines row by row
def test_nor_where_attention_is_told_the_ends_of_rows(mini_model: Path, path: str, times: int) -> None:
    model = packed_phi3(mini_model) if path == "packed" else PATHS[path](mini_model)
    others, own = neighbors_gradient(model, times=times, tells_documents=True)
    assert own > 1e-4
    assert others == 0


PACKED: dict[str, Callable[[Path], Any]] = {
    "packed": packed_phi3,
    "packed, lean": lambda folder: packed(lean_phi3(folder)),
    "packed, recomputed": lambda folder: packed(recomputing_phi3(folder)),
    "packed, window": lambda folder: packed(small_window_phi3(folder, sliding_window=6)),
    "packed, dropout": lambda folder: packed(small_window_phi3(folder, attention_dropout=0.1)).train(),
}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("path", sorted(PACKED))
def test_packed_attention_isolates_rows_whether_or_not_it_is_told_their_ends(
    mini_model: Path, path: str, told: bool
) -> None:
    """A loss that does not tell them must not make it look at the whole line."""
    others, own = neighbors_gradient(PACKED[path](mini_model), tells_documents=told)
    assert own > 1e-4
    assert others == 0


def test_packed_attention_refuses_rows_that_it_cannot_tell_apart() -> None:
    attend = AttentionInterface._global_mapping["packed"]
    numbers = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="neither where rows end nor the tokens' positions"):
        attend(torch.nn.Module(), numbers, numbers, numbers, None)


@pytest.mark.parametrize("path", ["sdpa", "packed"])
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"qlora"}))  # a packed base attends as a plain one
@pytest.mark.parametrize("told", [True, False])
def test_nor_whatever_the_method_puts_around(mini_model: Path, name: str, path: str, told: bool) -> None:
    """With virtual tokens before each row, rows end elsewhere than the loss says."""
    config = MethodConfig(name=name, rank=4, virtual_tokens=3)  # type: ignore[arg-type]
    model = METHODS[name].prepare(phi3(mini_model), config, 10).eval()
    model = packed(model) if path == "packed" else model
    others, own = neighbors_gradient(model, tells_documents=told)
    assert own > 1e-4
    assert others == 0


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("make", [lambda model: model, packed])
def test_logits_of_pairs_side_by_side_are_those_of_each_answer_alone(
    mini_model: Path, make: Callable[[Any], Any], told: bool
) -> None:
    loss = PreferenceLoss(make(phi3(mini_model)), beta=0.1, tells_documents=told)
    pairs = [
        Pair(make_row(long, long, supervised=long), make_row(short, short, supervised=short), 0.0)
        for long, short in ((24, 10), (7, 5))
    ]
    batch = lay_out_pairs(pairs, 0, pairs[0])
    assert len(batch.input_ids) == 2, "four rows share two lines"
    rows: list[TokenRow] = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    with torch.no_grad():
        together = loss.logits(batch)
        apart = [loss.logits(lay_out([row], pad_id=0)) for row in rows]
        alone = sum(float(loss(lay_out_pairs([pair], 0, pair))) for pair in pairs)
        assert float(loss(batch)) == pytest.approx(alone, rel=1e-5)
    for number, logits in enumerate(apart):
        assert torch.allclose(together[batch.owners == number], logits, atol=1e-5)


@pytest.mark.parametrize("path", ["sdpa", "eager"])
def test_nor_in_bf16(mini_model: Path, path: str) -> None:
    model = PATHS[path](mini_model)
    with torch.autocast("cpu", torch.bfloat16):
        others, own = neighbors_gradient(model)
    assert own > 1e-4
    assert others == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [phi3, packed_phi3])
def test_nor_on_a_gpu(mini_model: Path, make: Callable[..., Any]) -> None:
    model = make(mini_model, dtype=torch.bfloat16).cuda()
    others, own = neighbors_gradient(model, tells_documents=True)
    assert own > 1e-4
    assert others == 0


def test_the_gradient_sees_a_leak(mini_model: Path) -> None:
    others, _ = neighbors_gradient(phi3(mini_model), one_document=True)
    assert others > 1e-4
