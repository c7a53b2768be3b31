"""Make train.conll and test.conll: notes of a delivery service with persons, cities and goods marked.

Run `python make_rows.py` in this folder. A token and its tag a line, a blank line after each note.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
ROWS = {"train.conll": 900, "test.conll": 150}
FIRST = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jack",
    "Kira",
    "Liam",
    "Maya",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
]
LAST = ["Berg", "Costa", "Diaz", "Evans", "Ford", "Garcia", "Hill", "Ito", "Jones", "Klein"]
CITIES = "London|Paris|Berlin|Madrid|Rome|Oslo|Lisbon|Vienna|New York|Dublin|Prague|Cape Town|Athens|Tokyo"
COLORS = ["red", "blue", "green", "yellow", "black", "white", "brown", "gray"]
THINGS = "jacket|lamp|kettle|book|chair|backpack|watch|blanket|mug|tent|keyboard|rug|phone case|table lamp"
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
PATTERNS = [
    "Bring the {good} to {person} in {city} on {day} .",
    "{person} moved from {city} to {city} .",
    "The {good} for {person} is still in {city} .",
    "{person} sends the {good} back .",
    "Please call {person} before {day} .",
    "A {good} and a {good} go to {city} .",
    "{person} and {person} share one {good} .",
    "The driver was in {city} on {day} but {person} was not at home .",
    "Nobody was at home on {day} .",
    "Is the {good} from {city} or from {city} ?",
    "{person} asks where the {good} is .",
    "The van leaves {city} at noon .",
    "Leave the box at the door , please .",
    "Tell {person} that the {good} is not {color} .",
]
SLOT = re.compile(r"\{([a-z]+)\}")


def value(slot: str, rng: random.Random) -> str:
    """Draw what fills a slot."""
    if slot == "person":
        first = rng.choice(FIRST)
        return f"{first} {rng.choice(LAST)}" if rng.random() < 0.5 else first
    if slot == "good":
        thing = rng.choice(THINGS.split("|"))
        return f"{rng.choice(COLORS)} {thing}" if rng.random() < 0.5 else thing
    if slot == "city":
        return rng.choice(CITIES.split("|"))
    return rng.choice(DAYS if slot == "day" else COLORS)


def note(rng: random.Random) -> str:
    """Make one note: a token and its tag a line."""
    lines = []
    for word in rng.choice(PATTERNS).split():
        match = SLOT.fullmatch(word)
        if match is None:
            lines.append(f"{word} O")
            continue
        is_entity = match[1] in ("person", "good", "city")
        for place, token in enumerate(value(match[1], rng).split()):
            lines.append(f"{token} {('I-' if place else 'B-') + match[1] if is_entity else 'O'}")
    return "\n".join(lines)


def notes(seed: int = SEED) -> dict[str, list[str]]:
    """Return the notes of both files, all different; the same seed gives the same notes."""
    rng = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < sum(ROWS.values()):
        made[note(rng)] = None
    drawn = list(made)
    rng.shuffle(drawn)
    return {"train.conll": drawn[: ROWS["train.conll"]], "test.conll": drawn[ROWS["train.conll"] :]}


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Make train.conll and test.conll.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    for name, texts in notes().items():
        (output / name).write_text("\n\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
