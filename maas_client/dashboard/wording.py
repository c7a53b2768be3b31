"""Words and numbers for people: durations, sizes, metrics, and events as sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

LINE_CHARACTERS = 1000
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def number(facts: Mapping[str, Any], name: str) -> float | None:
    """A fact as a float; None where it is missing or no number."""
    value = facts.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def whole(facts: Mapping[str, Any], name: str) -> int | None:
    """A fact as an int; None where it is missing or no finite number."""
    value = number(facts, name)
    return None if value is None or not math.isfinite(value) else int(value)


def one_line(text: str) -> str:
    """Text that is safe to draw: what carriage returns left, no escape sequences, no control characters."""
    text = text[: 8 * LINE_CHARACTERS].rstrip("\r\n").rsplit("\r", 1)[-1]
    text = _ESCAPES.sub("", text).replace("\n", " ").expandtabs(4)
    return _CONTROLS.sub("", text)[:LINE_CHARACTERS]


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    if not math.isfinite(seconds):
        return "?"
    left = max(0, int(seconds))
    if left < 60:
        return f"{left} s"
    if left < 3600:
        return f"{left // 60} min {left % 60:02d} s"
    if left < 86400:
        return f"{left // 3600} h {left % 3600 // 60:02d} min"
    return f"{left // 86400} d {left % 86400 // 3600} h"


def ago(seconds: float) -> str:
    """A duration in its largest unit, for what is past: `12 s ago`, `3 min ago`."""
    left = max(0, int(seconds)) if math.isfinite(seconds) else 0
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if left >= unit_s:
            return f"{left // unit_s} {unit} ago"
    return f"{left} s ago"


def size(count: float) -> str:
    """Bytes as `812 MB` or `1.4 GB` (powers of 1000)."""
    for unit_bytes, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit_bytes:
            return (
                f"{count / unit_bytes:.1f} {unit}"
                if count < 10 * unit_bytes
                else f"{count / unit_bytes:,.0f} {unit}"
            )
    return f"{count:.0f} B"


def amount(value: float) -> str:
    """A count that may be large: `950`, `1,234`, `3.1 M`."""
    if not math.isfinite(value):
        return str(value)
    if value >= 1e9:
        return f"{value / 1e9:,.1f} G"
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"


def figure(value: float) -> str:
    """A loss or a metric with three decimals, fewer when it is large."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of two figures, with its sign."""
    return ("-" if value < 0 else "+") + figure(abs(value))


def percent(share: float) -> str:
    """A share from 0 to 1 in whole percent; 100 % only where all is done."""
    return f"{int(share * 100 + 1e-9)} %"


def metric_names(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Names of metrics in the order in which they came."""
    return [*before, *(name for name in after if name not in before)]


def change(name: str, before: float | None, after: float | None, arrow: str) -> str:
    """`accuracy 0.120 -> 0.830 (+0.710)`, or the one figure that is there."""
    if before is not None and after is not None:
        return f"{name} {figure(before)} {arrow} {figure(after)} ({signed(after - before)})"
    known = after if before is None else before
    return name if known is None else f"{name} {figure(known)}"


def describe(event: Mapping[str, Any]) -> str:
    """An event as one line; an unknown one as its name and facts."""
    kind = event.get("event")
    tell = _SENTENCES.get(kind) if isinstance(kind, str) else None
    return one_line(tell(event) if tell is not None else _facts(event))


def _facts(event: Mapping[str, Any]) -> str:
    facts = [f"{key} {value}" for key, value in list(event.items())[:8] if key not in {"time", "event"}]
    return " ".join([str(event.get("event") or "event"), *([f"({', '.join(facts)})"] if facts else [])])


def _started(event: Mapping[str, Any]) -> str:
    steps, resumed = whole(event, "steps_total"), whole(event, "resumed_from_step")
    words = [f"goes on after step {resumed}" if resumed else "training started"]
    if steps is not None:
        words.append(f"{steps:,} steps")
    words += [str(event[key]) for key in ("device", "precision") if event.get(key)]
    trained, everything = number(event, "trainable_parameters"), number(event, "parameters")
    if trained is not None and everything:
        words.append(f"{amount(trained)} of {amount(everything)} parameters train")
    return ", ".join(words)


def _validation(event: Mapping[str, Any]) -> str:
    loss, step = number(event, "loss"), whole(event, "step")
    return f"validation loss {'?' if loss is None else figure(loss)}{_at_step(step)}"


def _evaluation(event: Mapping[str, Any]) -> str:
    metrics, rows = event.get("metrics"), whole(event, "rows")
    found = metrics if isinstance(metrics, Mapping) else {}
    told = [
        f"{name} {figure(value)}" for name in list(found)[:4] if (value := number(found, name)) is not None
    ]
    over = f" over {rows:,} rows" if rows is not None else ""
    when = f" {event['when']} training" if event.get("when") in ("before", "after") else ""
    return f"evaluation{when}{over}: {', '.join(told) or 'no metrics'}"


def _checkpoint(event: Mapping[str, Any]) -> str:
    return f"checkpoint{_at_step(whole(event, 'step'))}"


def _stopped(event: Mapping[str, Any]) -> str:
    return f"stopped by {event.get('reason', 'a signal')}{_at_step(whole(event, 'step'))}"


def _failed(event: Mapping[str, Any]) -> str:
    return f"failed: {event.get('message', 'no message')}"


def _finished(event: Mapping[str, Any]) -> str:
    steps = whole(event, "steps")
    return "finished" if steps is None else f"finished after {steps:,} steps"


def _at_step(step: int | None) -> str:
    return "" if step is None else f" at step {step:,}"


_SENTENCES = {
    "started": _started,
    "validation": _validation,
    "evaluation": _evaluation,
    "checkpoint": _checkpoint,
    "stopped": _stopped,
    "failed": _failed,
    "finished": _finished,
}
