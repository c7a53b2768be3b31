"""How a step's micro-batches are made to fit into memory, before the first one is tried.

Computing activations a second time costs a third of the speed; taking a micro-batch in parts costs next to
nothing while a part still has some thousand tokens, and the losses are the same. So parts come first.

Nothing heavy is imported: `maas plan` chooses by the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Literal

from tuning.config import Config
from tuning.footprint import Load, Shape, footprint
from tuning.methods import METHODS, count_parameters, quantization_of
from tuning.sharding import SHARDS_MODEL

if TYPE_CHECKING:
    from tuning.batches import Plan
    from tuning.distributed import Processes

USABLE, ROOMY = 0.8, 0.5
"""Of the free memory: no more than USABLE is counted on, since the estimate leaves something out. A step that
takes more than ROOMY leaves no room for the holes that freed tensors leave behind (tuning/allocator.py)."""


@dataclass(frozen=True)
class Fit:
    """Into how many parts each micro-batch is cut, whether activations are computed twice, and why.

    `is_tight`: freed memory has to go back at once.
    """

    parts: int
    recomputes: bool
    why: str
    is_tight: bool = False

    @property
    def what(self) -> str:
        """In words."""
        parts = "whole micro-batches" if self.parts == 1 else f"micro-batches in {self.parts} parts"
        return f"{parts}, activations {'computed twice' if self.recomputes else 'kept'}"


def fit(
    need: Callable[[int, bool], int] | None,
    free: int | None,
    *,
    wanted: Literal["auto"] | bool,
    can_recompute: bool,
    most_parts: int,
) -> Fit:
    """Choose by `need(parts, recomputes)`, the bytes that a step takes besides what is there, and free bytes.

    Either may be unknown (None). `most_parts` is a power of two.
    """
    halvings = [1 << power for power in range(most_parts.bit_length())]
    if wanted != "auto":
        parts, recomputes, why = 1, wanted and can_recompute, "the config says so"
    elif need is None or free is None:
        parts, recomputes, why = 1, False, "how much memory a step takes is not known"
    else:
        ways = [(part, again) for again in (False, True)[: 1 + can_recompute] for part in halvings]
        parts, recomputes = next((way for way in ways if need(*way) <= USABLE * free), ways[-1])
        why = f"about {_gb(need(parts, recomputes))} of {_gb(free)} GB free"
    is_tight = need is not None and free is not None and need(parts, recomputes) > ROOMY * free
    return Fit(parts, recomputes, why, is_tight)


def most_parts(config: Config) -> int:
    """Into how many parts a micro-batch may be cut: a power of two, 1 where a strategy does not allow it."""
    strategy = config.distributed.strategy
    may_split = strategy not in SHARDS_MODEL and not strategy.startswith("zero")
    return 1 << (config.training.batch_size.bit_length() - 1) if may_split else 1


def fit_run(
    model: Any, config: Config, plan: Plan, *, precision: str, processes: Processes, free: int | None
) -> Fit:
    """The choice for a model that is ready to be trained, agreed on by all processes, which all call it."""
    if free is not None and processes.device.type == "cpu":
        free //= processes.count  # they share it
    mine = fit(
        _need_of(model, config, plan, precision=precision, processes=processes),
        free,
        wanted=config.training.gradient_checkpointing,
        can_recompute=METHODS[config.method.name].recomputes,
        most_parts=most_parts(config),
    )
    everyone = processes.gather((mine.recomputes, mine.parts))
    recomputes, parts = any(one for one, _ in everyone), max(number for _, number in everyone)
    return replace(mine, parts=parts, recomputes=recomputes)


def _need_of(
    model: Any, config: Config, plan: Plan, *, precision: str, processes: Processes
) -> Callable[[int, bool], int] | None:
    """What `fit` asks for, by the sizes of the model and of the plan's largest micro-batch."""
    shape = Shape.of(model.config.get_text_config().to_dict())
    if shape is None:
        return None
    method, strategy = METHODS[config.method.name], config.distributed.strategy
    units = [sum(plan.lengths[row] for row in unit) for unit in plan.units]
    tokens = sum(nlargest(config.training.batch_size, units))
    has_all_logits = strategy in SHARDS_MODEL or config.training.objective == "dpo"

    def need(parts: int, recomputes: bool) -> int:
        part = -(-tokens // parts)
        load = Load(
            method=config.method.name,
            trained=count_parameters(model)[1],
            tokens=part,
            targets=part,
            rank=config.method.rank,
            dropout=config.method.dropout > 0,
            quantization=quantization_of(config.method),
            precision=precision,
            fp32_base=method.fp32_base,
            moments=method.moments,
            recomputes=recomputes,
            all_logits=has_all_logits,
            device=processes.device.type,
            strategy=strategy,
            processes=processes.count,
        )
        took = footprint(shape, load)
        held = took.parameters if strategy in SHARDS_MODEL else 0
        working = max(took.working, took.logits)
        return held + took.gradients + took.optimizer + took.activations + working

    return need


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"
