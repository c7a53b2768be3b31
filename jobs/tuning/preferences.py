"""Learning from preferences by DPO: pairs of answers, their loss, and how well a model tells them apart.

The loss asks for one thing: that the better answer gains more on the worse one than it had with the base
model. So the base model is asked once about each pair, before the first step, and is not needed again; every
method then trains as it does from answers alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from tuning.batches import Batch, TokenRow, lay_out, owners_of_targets, without_loss
from tuning.config import Config
from tuning.data import encode_row
from tuning.errors import InputError
from tuning.evaluation import HeldOut, Scorer
from tuning.events import write_text
from tuning.loss import SupervisedLoss
from tuning.rows import Row
from tuning.scores import Scores
from tuning.tasks import TEXT_SAMPLES
from tuning.virtualtokens import count_virtual_tokens

if TYPE_CHECKING:
    from tuning.run import Run

REFERENCE = "reference.json"


@dataclass(frozen=True, slots=True)
class Pair:
    """One conversation with the better and with the worse answer.

    `margin` is how much likelier the base model finds the better one: the difference of their
    log-probabilities; not a number before the base model was asked.
    """

    chosen: TokenRow
    rejected: TokenRow
    margin: float = math.nan

    @property
    def length(self) -> int:
        """Tokens of both."""
        return self.chosen.length + self.rejected.length

    @property
    def weight(self) -> int:
        """A step's loss is the mean over pairs."""
        return 1


@dataclass(frozen=True)
class PairBatch(Batch):
    """Pairs laid out as rows: `owners` (targets,) says to which row a target belongs.

    Pair n is the rows 2 n (better) and 2 n + 1 (worse); `margins` (pairs,) are those of the base model.
    """

    owners: Tensor
    margins: Tensor


def encode_pair(row: Row, path: Path, tokenizer: Any, config: Config) -> tuple[list[Pair], bool]:
    """(the pair, whether one of its rows was cut). Raises InputError with the line if it teaches nothing."""
    (chosen,), chosen_is_cut = encode_row(row, path, tokenizer, config)
    worse = replace(row, example=replace(row.example, messages=row.example.rejected))
    (rejected,), rejected_is_cut = encode_row(worse, path, tokenizer, config)
    if torch.equal(chosen.ids, rejected.ids):
        raise InputError(
            f"{path.name}, line {row.line}: The two answers are the same within training.max_length "
            f"({config.training.max_length} tokens); raise it or shorten the row."
        )
    return [Pair(chosen, rejected)], chosen_is_cut or rejected_is_cut


def lay_out_pairs(pairs: Sequence[Pair], pad_id: int, filler: Pair) -> PairBatch:
    """Put the rows of pairs side by side; without a pair, a row of `filler` that carries no loss."""
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)] or [without_loss(filler.chosen)]
    return PairBatch(
        **vars(lay_out(rows, pad_id)),
        owners=owners_of_targets(rows),
        margins=torch.tensor([pair.margin for pair in pairs], dtype=torch.float32),
    )


class PreferenceLoss(SupervisedLoss):
    """A causal language model as a module that returns the summed DPO loss of a batch of pairs."""

    def __init__(self, model: torch.nn.Module, *, beta: float, **options: Any) -> None:
        super().__init__(model, **options)
        self.beta = beta

    def forward(self, batch: PairBatch) -> Tensor:  # type: ignore[override]
        """The sum (not the mean) of the loss over the batch's pairs, in float32."""
        logits = self.logits(batch)
        each = -functional.cross_entropy(logits, batch.targets, reduction="none")
        rows = torch.arange(2 * len(batch.margins), device=each.device)
        # Not by scattered additions, whose order differs from time to time on a GPU.
        log_probs = torch.where(batch.owners == rows[:, None], each, 0.0).sum(1)
        margins = log_probs[0::2] - log_probs[1::2]
        return pair_losses(margins - batch.margins, self.beta).sum() + 0.0 * each.sum()


def pair_losses(gains: Tensor, beta: float) -> Tensor:
    """The DPO loss of each pair, by how much its margin grew over that of the base model."""
    return -functional.logsigmoid(beta * gains)


def measure_pairs(scorer: Scorer, rows: Sequence[HeldOut]) -> tuple[dict[str, float], list[list[float]]]:
    """(metrics, [pairs told apart, pairs] of each row).

    A pair is told apart when the better answer gained more than the worse one since the base model; a tie,
    such as every pair before training, counts one half.
    """
    margins = torch.tensor(margins_of(scorer, [(held.rows[0], held.rejected[0]) for held in rows]))
    gains = margins.double() - torch.tensor([held.margin for held in rows]).double()
    beta = scorer.config.training.beta
    right = (gains > 0).double() + 0.5 * (gains == 0)
    metrics = {
        "loss": float(pair_losses(gains, beta).mean()),
        "reward_accuracy": float(right.mean()),
        "reward_margin": float(beta * gains.mean()),
        "chosen_likelier": float((margins > 0).double().mean()),
    }
    return metrics, [[one, 1.0] for one in right.tolist()]


def score_pairs(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """How well the model tells the answers apart; some of its own answers to look at."""
    metrics, parts = measure_pairs(scorer, rows)
    shown = scorer.answers(rows[:TEXT_SAMPLES])
    return Scores(metrics, shown + [""] * (len(rows) - len(shown)), parts)


def margins_of(scorer: Scorer, pairs: Sequence[tuple[TokenRow, TokenRow]]) -> list[float]:
    """How much likelier the model finds the first row's answer than the second's, in log-probability."""
    sums = scorer.losses_of([[row] for pair in pairs for row in pair])
    return [worse[0] - better[0] for better, worse in zip(sums[0::2], sums[1::2], strict=True)]


def with_margins(scorer: Scorer, rows: Sequence[HeldOut]) -> list[HeldOut]:
    """Held-out pairs with the margins of the scorer's model, which is the base model."""
    margins = margins_of(scorer, [(held.rows[0], held.rejected[0]) for held in rows])
    return [replace(held, margin=margin) for held, margin in zip(rows, margins, strict=True)]


def ask_base_model(run: Run) -> None:
    """Let the base model say its margin of each pair that is trained on or held out.

    Call it before the weights of a checkpoint are loaded: a fresh adapter changes nothing, but for virtual
    tokens, which are left away. What an earlier start asked is read.
    """
    pairs, held_out = run.data.train, run.held_out
    used = sorted(run.plan.rows_used())
    path = run.files.output / REFERENCE
    known = _read(path, len(used), len(held_out)) if run.processes.is_first else None
    known = run.processes.gather(known)[0]
    if known is None:
        with _base_of(run.model):
            known = [
                margins_of(run.scorer, [(pairs[place].chosen, pairs[place].rejected) for place in used]),
                margins_of(run.scorer, [(held.rows[0], held.rejected[0]) for held in held_out]),
            ]
        if run.processes.is_first:
            write_text(path, json.dumps(known))
    for place, margin in zip(used, known[0], strict=True):
        pairs[place] = replace(pairs[place], margin=margin)
    run.held_out = [replace(held, margin=margin) for held, margin in zip(held_out, known[1], strict=True)]


def _base_of(model: Any) -> AbstractContextManager[Any]:
    """Around calls that are to be answered by the base model, while the adapter is fresh."""
    context: AbstractContextManager[Any] = (
        model.disable_adapter() if count_virtual_tokens(model) else nullcontext()
    )
    return context


def _read(path: Path, pairs: int, held_out: int) -> list[list[float]] | None:
    """The margins in a file; None where there is none, or one that cannot be used."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if [len(part) for part in known] == [pairs, held_out] and all(map(_are_numbers, known)):
            return known  # type: ignore[no-any-return]
    except (OSError, ValueError, TypeError):
        pass
    return None


def _are_numbers(values: Iterator[object]) -> bool:
    return all(isinstance(value, float) for value in values)
