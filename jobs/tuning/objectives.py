"""What a step learns from: answers, or preferences between two answers. One table; the loop is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.batches import Batch, TokenRow, lay_out, without_loss
from tuning.config import Config
from tuning.data import encode_row
from tuning.evaluation import HeldOut, Scorer
from tuning.loss import SupervisedLoss
from tuning.metrics import sums
from tuning.preferences import (
    PreferenceLoss,
    ask_base_model,
    encode_pair,
    lay_out_pairs,
    measure_pairs,
    score_pairs,
)
from tuning.rows import Row
from tuning.tasks import Task

if TYPE_CHECKING:
    from tuning.run import Run


@dataclass(frozen=True)
class Objective:
    """One objective.

    `encode` makes what a step is made of from a row, as long as `sequences` rows; `lay_out` puts some of it
    into a batch (the last argument fills an empty one), and the module that `make_loss` makes returns a
    batch's summed loss. `get_ready` is called before the first step, `losses` measures on held-out rows while
    training, and `measured` is the task as this objective measures it before and after.
    """

    sequences: int
    encode: Callable[[Row, Path, Any, Config], tuple[list[Any], bool]]
    lay_out: Callable[[Sequence[Any], int, Any], Batch]
    make_loss: Callable[..., SupervisedLoss]
    get_ready: Callable[[Run], None]
    losses: Callable[[Scorer, Sequence[HeldOut]], dict[str, float]]
    measured: Callable[[Task], Task]


def _lay_out_rows(rows: Sequence[TokenRow], pad_id: int, filler: TokenRow) -> Batch:
    return lay_out(rows or [without_loss(filler)], pad_id)


def _supervised_loss(model: Any, _config: Config, **options: Any) -> SupervisedLoss:
    return SupervisedLoss(model, **options)


def _preference_loss(model: Any, config: Config, **options: Any) -> SupervisedLoss:
    return PreferenceLoss(model, beta=config.training.beta, **options)


def _tell_apart(task: Task) -> Task:
    return replace(task, metric="reward_accuracy", direction="max", combine=sums.share, score=score_pairs)


OBJECTIVES: Mapping[str, Objective] = {
    "sft": Objective(
        sequences=1,
        encode=encode_row,
        lay_out=_lay_out_rows,
        make_loss=_supervised_loss,
        get_ready=lambda _run: None,
        losses=lambda scorer, rows: scorer.losses(rows),
        measured=lambda task: task,
    ),
    "dpo": Objective(
        sequences=2,
        encode=encode_pair,
        lay_out=lay_out_pairs,
        make_loss=_preference_loss,
        get_ready=ask_base_model,
        losses=lambda scorer, rows: measure_pairs(scorer, rows)[0],
        measured=_tell_apart,
    ),
}
