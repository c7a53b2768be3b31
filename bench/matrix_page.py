"""docs/matrix.md, from what was measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.matrix_cells import COLUMNS, COSTS, ROWS, SCENARIOS, TECHNIQUES, Scenario

if TYPE_CHECKING:
    from bench.matrix_cost import Cost
    from bench.matrix_runs import Learned

MISSING, UNCOUNTED = "not measured", "not counted"
HEAD = """# The matrix

What is learned by which technique, measured on {date} by `python bench/matrix.py` on {cores} CPU cores:
tiny-phi3 (1.5 M parameters) learns the rows of [jobs/examples](../jobs/examples) in a few steps and is scored
before and after on rows that it never saw. `--cell NAME` (`qa-dora`, `cost-dora`) measures one cell again.
`make matrix` tests each one: in two processes where the technique says so, stopped, resumed with the same
losses, scored, exported, merged where that is possible, loaded by transformers and PEFT with the same logits,
and asked. What each technique is: [methods.md](methods.md); each task: [tasks.md](tasks.md).

DeepSpeed and ZeRO run in two processes: DeepSpeed is LoRA under ZeRO 2 with the optimizer's state offloaded
(in the last row full training under ZeRO 3 with everything offloaded), ZeRO 1/2/3 are full training. Several
numbers behind an arrow are those of several techniques, in the order of the tables below; equal ones are
written once. Perplexity falls, the other metrics rise.
"""
COSTS_HEAD = """## What techniques cost

Of a Phi-3 with hidden size 512 and 8 layers (28 M parameters, fp32, 2 sequences of 128 tokens a step), beside
full training in one process, in turns, each process on one core; two processes take one sequence each. "Held"
are the bytes of weights, gradients and moments that a process keeps; "peak" is the most that it takes of the
machine's memory in a step, beyond Python and its libraries, once the model is loaded. Operations are those of
all processes' matrix products, but for those of packed weights, which cannot be counted; time is the median
ratio of steps in turns. Under ZeRO each process holds less, but at this size its peak does not fall with
that; that of a model of 200 M parameters, where it does, is in [distributed.md](distributed.md).

| technique | processes | trained | held | of full's | peak | of full's | operations | time |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def page(learned: Mapping[str, Learned], costs: Mapping[str, Cost], *, cores: int) -> str:
    """The whole page."""
    parts = [HEAD.format(date=time.strftime("%Y-%m-%d"), cores=cores), overview(learned, costs), ""]
    for name, scenario in SCENARIOS.items():
        parts += _details(name, scenario, learned)
    parts.append(COSTS_HEAD + "\n".join(_cost_row(costs[name]) for name in COSTS if name in costs))
    return "\n".join(parts) + "\n"


def overview(learned: Mapping[str, Learned], costs: Mapping[str, Cost]) -> str:
    """The table of scenarios and techniques."""
    lines = [f"| scenario | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for row, title in ROWS.items():
        cells = [
            _costs_of(column, costs) if row == "cost" else _cell(row, column, learned) for column in COLUMNS
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_overview(text: str, overview: str) -> str:
    """A page whose table of scenarios is replaced; raises ValueError where it has none."""
    start = text.index("| scenario |")
    return text[:start] + overview + text[text.index("\n\n", start) :]


def in_words(facts: Learned) -> str:
    """A cell in a line."""
    return (
        f"{facts.metric} {_number(facts.before)} -> {_number(facts.after)} "
        f"({_change(facts.low)} to {_change(facts.high)}), {facts.share:.2%} trained, {facts.seconds:.1f} s"
    )


def cost_in_words(cost: Cost) -> str:
    """A cost in a line."""
    return (
        f"{cost.share:.3%} trained, held {cost.held:.2f} ({cost.held_bytes / 1e6:.0f} MB), "
        f"peak {cost.peak:.2f} ({cost.peak_bytes / 1e6:.0f} MB), operations {cost.operations:.2f}, "
        f"time {cost.seconds:.2f} of full training's"
    )


def _cell(row: str, column: str, learned: Mapping[str, Learned]) -> str:
    """What the techniques of a column reached in the scenarios of a row, a line a scenario."""
    lines = []
    for name, scenario in SCENARIOS.items():
        if scenario.row == row:
            facts = _measured(name, _of_column(column, scenario.techniques), learned)
            if not facts:
                lines.append(MISSING)
                continue
            after = ", ".join(dict.fromkeys(_number(fact.after) for fact in facts))
            lines.append(f"{facts[0].metric} {_number(facts[0].before)} → {after}")
    return "<br>".join(lines)


def _measured(name: str, techniques: Sequence[str], learned: Mapping[str, Learned]) -> list[Learned]:
    """What was measured of some techniques of a scenario."""
    named = (f"{name}-{technique}" for technique in techniques)
    return [learned[one] for one in named if one in learned]


def _costs_of(column: str, costs: Mapping[str, Cost]) -> str:
    """The costs of a column's techniques, as ranges, beside full training."""
    found = [costs[name] for name in _of_column(column, COSTS) if name in costs]
    if not found:
        return MISSING
    named = {
        "memory held": [f"{one.held:.2f}" for one in found],
        "peak": [f"{one.peak:.2f}" for one in found],
        "operations": [_operations(one) for one in found if _operations(one) != UNCOUNTED],
        "trained": [f"{one.share:.2%}" for one in found],
    }
    return "<br>".join(f"{name} {_range(texts)}" for name, texts in named.items() if texts)


def _range(texts: Sequence[str]) -> str:
    """From the least to the most of some numbers as text."""
    ordered = sorted(texts, key=lambda text: float(text.rstrip("%")))
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _of_column(column: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if TECHNIQUES[name].column == column]


def _details(name: str, scenario: Scenario, learned: Mapping[str, Learned]) -> Iterator[str]:
    """A table of one scenario."""
    facts = _measured(name, scenario.techniques, learned)
    if not facts:
        return
    example = scenario.train.partition("/")[0]
    yield f"## {name}"
    yield ""
    yield (
        f"Task {scenario.task}, [{example}](../jobs/examples/{example}.yaml): {facts[0].steps} steps of "
        f"{scenario.batch_size} rows,\nscored on {facts[0].rows} held-out rows "
        f"by {facts[0].metric}{' (the less, the better)' if facts[0].direction == 'min' else ''}."
    )
    yield ""
    yield "| technique | before | after | 95 % interval of the change | trained | learning rate | seconds |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for fact in facts:
        technique = fact.cell.removeprefix(f"{name}-")
        yield (
            f"| {_title(technique)} | {_number(fact.before)} | {_number(fact.after)} "
            f"| {_change(fact.low)} to {_change(fact.high)} | {fact.share:.2%} "
            f"| {TECHNIQUES[technique].rate:g} | {fact.seconds:.0f} |"
        )
    yield ""


def _cost_row(cost: Cost) -> str:
    technique = TECHNIQUES[cost.technique]
    return (
        f"| {_title(cost.technique)} | {technique.processes} | {cost.share:.2%} "
        f"| {cost.held_bytes / 1e6:.0f} MB | {cost.held:.2f} "
        f"| {cost.peak_bytes / 1e6:.0f} MB | {cost.peak:.2f} | {_operations(cost)} | {cost.seconds:.2f} |"
    )


def _operations(cost: Cost) -> str:
    """Beside full training's; what bitsandbytes multiplies with packed weights is not seen."""
    return UNCOUNTED if TECHNIQUES[cost.technique].method == "qlora" else f"{cost.operations:.2f}"


def _title(name: str) -> str:
    """A technique and what it is made of."""
    technique = TECHNIQUES[name]
    parts = [technique.method, "" if technique.strategy == "none" else technique.strategy]
    parts.append("" if technique.offload == "none" else f"offload {technique.offload}")
    made_of = " ".join(part for part in parts if part)
    return f"`{name}`" if made_of in (name, technique.method) else f"`{name}` ({made_of})"


def _number(value: float) -> str:
    """Three figures, or three places of a share."""
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{places}f}"


def _change(value: float) -> str:
    """The same with its sign."""
    return f"{'+' if value >= 0 else '-'}{_number(abs(value))}"
