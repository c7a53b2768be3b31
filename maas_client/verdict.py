"""What a rehearsal proves: two runs of one job, told by their events, compared step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from maas_client.check import Check
from maas_client.run import Event

TOLERANCE = 1e-5
"""By how much a loss of several processes may differ: their sums may round in another order."""


@dataclass(frozen=True)
class Preemption:
    """A machine that was taken away: after which step that was wanted, and what came of it.

    `reached` is the last step that was told of, `saved` that of the newest checkpoint in the declared output,
    `resumed` where the next machine went on (None: nowhere); `seconds` passed until all processes had ended.
    """

    asked: int
    reached: int
    saved: int
    resumed: int | None
    seconds: float


@dataclass(frozen=True)
class StepPair:
    """A step's loss in the run left alone and in the interrupted one, and how often that one took it."""

    step: int
    straight: float | None
    interrupted: float | None
    times: int

    @property
    def difference(self) -> float | None:
        """How far apart the two are, where there are two."""
        if self.straight is None or self.interrupted is None:
            return None
        return abs(self.straight - self.interrupted)


@dataclass(frozen=True)
class Verdict:
    """What was found, step by step and in sentences."""

    pairs: tuple[StepPair, ...]
    preemptions: tuple[Preemption, ...]
    checks: tuple[Check, ...]

    @property
    def is_proven(self) -> bool:
        """Whether nothing speaks against the job."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "proven": self.is_proven,
            "checks": [check.to_dict() for check in self.checks],
            "preemptions": [asdict(one) for one in self.preemptions],
            "steps": [{**asdict(pair), "difference": pair.difference} for pair in self.pairs],
        }


def judge(
    straight: Sequence[Event],
    interrupted: Sequence[Event],
    preemptions: Sequence[Preemption],
    *,
    same_model: bool,
    grace_s: float | None,
) -> Verdict:
    """Compare the events of a run that was left alone with those of one that was interrupted.

    `same_model`: the files of both models are equal. With a grace each preemption asked first, and a
    checkpoint of the last step is expected.
    """
    started = next(event for event in straight if event["event"] == "started")
    exact = int(started.get("processes") or 1) == 1
    ours, theirs = _steps(straight), _steps(interrupted)
    pairs = tuple(
        StepPair(step, _loss(ours.get(step)), _loss(theirs.get(step)), len(theirs.get(step, ())))
        for step in sorted(ours.keys() | theirs.keys())
    )
    checks = [
        _same_losses(pairs, theirs, exact=exact),
        _rows(ours, theirs, int(started["train_rows"])),
        _checkpoints(preemptions, asked_first=grace_s is not None),
    ]
    if grace_s is not None:
        checks.append(_in_time(preemptions, grace_s))
    if exact:
        words = "both runs left the same model" if same_model else "the two models differ"
        checks.append(Check("model", same_model, words, "" if same_model else _TELL))
    return Verdict(pairs, tuple(preemptions), tuple(checks))


_TELL = "Is something in the job random besides its seed, or did another program write into the output?"


def _steps(events: Sequence[Event]) -> dict[int, list[Event]]:
    """The events of each step, in order: a step that was taken again has several."""
    steps: dict[int, list[Event]] = {}
    for event in events:
        if event["event"] == "step":
            steps.setdefault(int(event["step"]), []).append(event)
    return steps


def _loss(events: Sequence[Event] | None) -> float | None:
    return float(events[-1]["loss"]) if events else None


def _same_losses(
    pairs: Sequence[StepPair], interrupted: Mapping[int, Sequence[Event]], *, exact: bool
) -> Check:
    allowed = 0.0 if exact else TOLERANCE
    missing = [pair.step for pair in pairs if pair.difference is None]
    if missing:
        return Check("losses", False, f"only one run took step {missing[0]}", _TELL)
    worst = max(pairs, key=lambda pair: pair.difference or 0.0)
    if (worst.difference or 0.0) > allowed:
        found = f"step {worst.step}: {worst.straight!r} left alone, {worst.interrupted!r} interrupted"
        return Check("losses", False, found, _TELL)
    for step, events in interrupted.items():
        losses = [float(event["loss"]) for event in events]
        if max(losses) - min(losses) > allowed:
            return Check("losses", False, f"step {step}, taken again, had another loss", _TELL)
    again = sum(len(events) - 1 for events in interrupted.values())
    how = "to the last bit" if exact else f"to {TOLERANCE:g} (largest difference {worst.difference:.2g})"
    return Check("losses", True, f"{len(pairs)} steps equal {how}; {again} of them taken again")


def _rows(
    straight: Mapping[int, Sequence[Event]], interrupted: Mapping[int, Sequence[Event]], rows: int
) -> Check:
    """Whether each row was seen once an epoch: the last time that a step was taken is the one that counts."""
    other = [
        step
        for step, events in interrupted.items()
        if step in straight and sorted(events[-1]["rows"]) != sorted(straight[step][-1]["rows"])
    ]
    if other:
        return Check("rows", False, f"step {other[0]} took other rows than the run left alone", _TELL)
    last = max(interrupted)
    epochs = float(interrupted[last][-1]["epoch"])  # rounded: 0.0 of a very long one
    steps_an_epoch = round(last / epochs) if epochs else last + 1
    whole = 0
    for epoch, steps in _epochs(last, steps_an_epoch):
        seen = Counter(row for step in steps if step in interrupted for row in interrupted[step][-1]["rows"])
        twice = [row for row, count in seen.items() if count > 1]
        if twice:
            return Check("rows", False, f"row {min(twice)} was seen twice in epoch {epoch}", _TELL)
        if len(steps) == steps_an_epoch:
            whole += 1
            if lost := set(range(rows)) - seen.keys():
                return Check("rows", False, f"row {min(lost)} was lost in epoch {epoch}", _TELL)
    found = f"no row was seen twice in an epoch; {whole} whole epochs of {rows} rows, none lost"
    if not whole:
        found = f"no row was seen twice (not one whole epoch of {rows} rows was trained; take more --steps)"
    return Check("rows", True, found)


def _epochs(last: int, steps_an_epoch: int) -> Iterator[tuple[int, range]]:
    """The number (from 1) and the steps of each epoch up to a step."""
    for number, first in enumerate(range(1, last + 1, steps_an_epoch), 1):
        yield number, range(first, min(first + steps_an_epoch, last + 1))


def _checkpoints(preemptions: Sequence[Preemption], *, asked_first: bool) -> Check:
    for one in preemptions:
        if one.resumed is None:
            found = f"after the preemption at step {one.asked} no machine went on"
        elif one.resumed != one.saved:
            found = (
                f"the output held a checkpoint of step {one.saved}, but step {one.resumed} was gone on from"
            )
        elif asked_first and one.saved != one.reached:
            found = (
                f"asked to stop after step {one.reached}, the run kept a checkpoint of step {one.saved} only"
            )
        else:
            continue
        return Check("checkpoints", False, found, "maas runs logs shows what a run said.")
    found = ", ".join(f"{one.saved} (lost at {one.reached})" for one in preemptions)
    return Check("checkpoints", True, f"each new machine went on from the declared output: step {found}")


def _in_time(preemptions: Sequence[Preemption], grace_s: float) -> Check:
    longest = max((one.seconds for one in preemptions), default=0.0)
    found = f"asked to stop, the run ended after {longest:.1f} s; {grace_s:g} s are given"
    hint = "Checkpoints take too long: train an adapter, or give the output a faster disk."
    return Check("grace", longest < grace_s, found, "" if longest < grace_s else hint)
