"""Expand text templates: `{slot}` picks from a named list, `[a|b|]` picks one alternative."""

from __future__ import annotations

import random
import re
from pathlib import Path

TEXT = Path(__file__).parent / "text"
ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
GAP = re.compile(r" +( |[?.!,](?: |$))")
SLOT = re.compile(r"\{([a-z_]+)\}")


def read_slots(path: Path) -> dict[str, list[str]]:
    """Read `name: value | value | ...` lines; `#` starts a comment line."""
    slots: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, values = line.partition(":")
            slots.setdefault(name.strip(), []).extend(value.strip() for value in values.split("|"))
    return slots


SLOTS = read_slots(TEXT / "slots.txt")


def expand(template: str, rng: random.Random, fixed: dict[str, str] | None = None) -> str:
    """Return one expansion of `template`; `fixed` gives slots their value, the others are drawn.

    The same slot twice in one template gets the same value. An unknown slot raises KeyError.
    """
    chosen = dict(fixed or {})
    while match := ALTERNATIVES.search(template):
        pick = rng.choice(match.group(1).split("|"))
        template = template[: match.start()] + pick + template[match.end() :]

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in chosen:
            chosen[name] = str(rng.randint(2, 99)) if name == "number" else rng.choice(SLOTS[name])
        return chosen[name]

    return GAP.sub(r"\1", SLOT.sub(value, template)).strip()
