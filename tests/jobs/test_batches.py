"""Batches: every row once an epoch, no row sees another, and the loss is the one transformers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tuning.batches import IGNORED, Plan, TokenRow, lay_out, lines_for, pack, without_loss
from tuning.config import TrainingConfig
from tuning.loss import SupervisedLoss, chunked_head_loss, tokens_a_chunk, usable_head_loss


def make_row(length: int, seed: int, supervised: int = 3) -> TokenRow:
    ids = torch.randint(5, 300, (length,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    labels = ids.clone()
    labels[: max(0, length - supervised)] = IGNORED
    return TokenRow(ids, labels)


@given(st.lists(st.integers(1, 40), max_size=60))
def test_pack_keeps_every_item_once_and_the_capacity(lengths: list[int]) -> None:
    bins = pack(lengths, 40)
    assert sorted(item for members in bins for item in members) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in members) <= 40 for members in bins)
    if lengths:  # best fit decreasing never opens a bin while two half-full ones could be one
        assert len(bins) <= 2 * sum(lengths) / 40 + 1


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_lines_hold_every_row_and_are_at_most_half_as_long_again_as_the_longest(lengths: list[int]) -> None:
    width, lines = lines_for(lengths)
    assert sorted(item for members in lines for item in members) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in members) <= width for members in lines)
    narrowest = -(-max(lengths) // 8) * 8
    assert narrowest <= width <= 1.5 * narrowest
    assert len(lines) * width <= len(pack(lengths, narrowest)) * narrowest


def test_lines_are_longer_than_the_longest_row_where_that_saves_padding() -> None:
    assert lines_for([64, 40, 40, 40]) == (80, [[0], [1, 2], [3]])
    assert lines_for([64, 60, 60]) == (64, [[0], [1], [2]])


@pytest.mark.parametrize("packing", [False, True])
def test_an_epoch_takes_every_row_once_however_it_is_shared(packing: bool) -> None:
    rows = [make_row(5 + place % 20, place) for place in range(37)]
    training = TrainingConfig(batch_size=4, epochs=2, max_length=32, packing=packing)
    one = Plan(rows, training, processes=1)
    two = Plan(rows, TrainingConfig(batch_size=2, epochs=2, max_length=32, packing=packing), processes=2)
    assert one.steps == two.steps == 2 * one.steps_an_epoch
    for epoch in range(2):
        seen = []
        for step in range(epoch * one.steps_an_epoch, (epoch + 1) * one.steps_an_epoch):
            alone = sorted(row for share in one.shares_of_step(step, 0) for row in share)
            shared = [row for rank in (0, 1) for share in two.shares_of_step(step, rank) for row in share]
            assert alone == sorted(shared)
            assert one.tokens_of_step(step) == sum(len(rows[row].ids) for row in alone)
            seen += alone
        assert sorted(seen) == list(range(37))
    assert one.rows_of_step(0) != one.rows_of_step(one.steps_an_epoch), "epochs are shuffled anew"


def test_layout_puts_every_target_behind_the_token_that_predicts_it() -> None:
    rows = [make_row(length, length) for length in (9, 4, 3, 1, 8)]
    batch = lay_out(rows, pad_id=0)
    assert batch.input_ids.shape == (2, 16)
    targets = [token for row in rows for token in row.labels[1:].tolist() if token != IGNORED]
    assert sorted(batch.targets.tolist()) == sorted(targets)
    lines, places = batch.predicts.nonzero(as_tuple=True)
    assert torch.equal(batch.input_ids[lines, places + 1], batch.targets)
    assert (batch.position_ids[lines, places + 1] == batch.position_ids[lines, places] + 1).all()
    starts = (batch.position_ids.flatten() == 0).nonzero().flatten().tolist()
    assert batch.ends.tolist() == [*starts, batch.input_ids.numel()], "a row begins where positions do"
    assert batch.longest == 9


def test_a_row_without_loss_adds_nothing(mini_model: Path) -> None:
    loss = SupervisedLoss(load(mini_model))
    batch = lay_out([without_loss(make_row(6, 1))], pad_id=0)
    total = loss(batch)
    total.backward()
    assert total.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in loss.parameters())


def load(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder)
    return model


def test_rows_in_one_line_do_not_see_each_other(mini_model: Path) -> None:
    loss = SupervisedLoss(load(mini_model).eval())
    rows = [make_row(length, length, supervised=length) for length in (24, 10, 7, 5)]
    with torch.no_grad():
        together = loss.logits(lay_out(rows, pad_id=0))
        apart = [loss.logits(lay_out([row], pad_id=0)) for row in rows]
        other = [rows[0], make_row(10, 99, supervised=10), *rows[2:]]
        changed = loss.logits(lay_out(other, pad_id=0))
    batch = lay_out(rows, pad_id=0)
    assert batch.input_ids.shape == (2, 24), "three rows must share a line for this to say anything"
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)
    own = slice(23, 32)  # the logits of the row that was changed; all others must not notice
    assert torch.allclose(changed[:23], together[:23], atol=1e-6)
    assert torch.allclose(changed[32:], together[32:], atol=1e-6)
    assert not torch.allclose(changed[own], together[own], atol=1e-3)


def test_the_loss_is_the_one_of_full_logits(mini_model: Path) -> None:
    model = load(mini_model)
    row = make_row(20, 3, supervised=6)
    labels = row.labels.long()[None]
    logits = model(input_ids=row.ids.long()[None]).logits
    expected = functional.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=IGNORED, reduction="sum")
    assert SupervisedLoss(model)(lay_out([row], pad_id=0)).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("trains_head", [False, True])
def test_the_chunked_loss_has_the_gradients_of_the_plain_one(mini_model: Path, trains_head: bool) -> None:
    """A head that is trained is tied to the embeddings: their gradient has two parts."""
    gradients, totals = [], []
    for head_loss in (None, chunked_head_loss):
        model = load(mini_model)
        model.get_output_embeddings().weight.requires_grad = trains_head  # type: ignore[operator]
        loss = SupervisedLoss(model, head_loss=head_loss)
        rows = [make_row(200, place, supervised=180) for place in range(4)]
        batch = lay_out(rows, pad_id=0)
        assert len(batch.targets) > tokens_a_chunk(2048, "cpu"), "one chunk would prove little"
        total = loss(batch) / 10
        total.backward()
        totals.append(total.item())
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert totals[1] == pytest.approx(totals[0], rel=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_a_head_loss_is_used_only_where_it_gives_the_models_loss(mini_model: Path) -> None:
    model: Any = load(mini_model)
    assert usable_head_loss(model, chunked_head_loss, torch.device("cpu")) is chunked_head_loss

    def scaled(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return chunked_head_loss(head, 2 * hidden, targets)

    assert usable_head_loss(model, scaled, torch.device("cpu")) is None
    model.lm_head = torch.nn.Sequential(model.lm_head)
    assert usable_head_loss(model, chunked_head_loss, torch.device("cpu")) is None
