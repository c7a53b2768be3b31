"""Make tunes.abc: dances in ABC notation, composed by rules.

Run `python make_rows.py` in this folder. A tune has two parts of four bars, each repeated. Notes wander over
the scale of the key by steps and small leaps, every bar fills its meter, and a part ends on the key's note.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
TUNES = 360
BARS_A_PART = 4
# The scale from the note below the key's note upward, and the place of the key's note in it.
KEYS = {
    "C": (["G,", "A,", "B,", "C", "D", "E", "F", "G", "A", "B", "c", "d"], 3),
    "G": (["D", "E", "F", "G", "A", "B", "c", "d", "e", "f", "g", "a"], 3),
    "D": (["A,", "B,", "C", "D", "E", "F", "G", "A", "B", "c", "d", "e"], 3),
    "A": (["E", "F", "G", "A", "B", "c", "d", "e", "f", "g", "a", "b"], 3),
    "F": (["C", "D", "E", "F", "G", "A", "B", "c", "d", "e", "f", "g"], 3),
    "Em": (["B,", "C", "D", "E", "F", "G", "A", "B", "c", "d", "e", "f"], 3),
    "Am": (["E", "F", "G", "A", "B", "c", "d", "e", "f", "g", "a", "b"], 3),
}
# Rhythms of a bar in eighths.
METERS = {
    "2/4": [(2, 2), (1, 1, 2), (2, 1, 1), (1, 1, 1, 1)],
    "3/4": [(2, 2, 2), (4, 2), (2, 1, 1, 2), (3, 1, 2), (1, 1, 2, 2)],
    "4/4": [(2, 2, 2, 2), (2, 1, 1, 2, 2), (4, 2, 2), (1, 1, 1, 1, 2, 2), (3, 1, 2, 2)],
    "6/8": [(3, 3), (2, 1, 2, 1), (1, 1, 1, 3), (1, 1, 1, 2, 1), (3, 2, 1)],
}
LAST = {"2/4": (4,), "3/4": (6,), "4/4": (4, 4), "6/8": (3, 3)}
NAMES = [
    "Miller",
    "Baker",
    "Weaver",
    "Tailor",
    "Shepherd",
    "Sailor",
    "Gardener",
    "Fiddler",
    "Potter",
    "Fisher",
]
KINDS = {"2/4": "Polka", "3/4": "Waltz", "4/4": "Reel", "6/8": "Jig"}
ADJECTIVES = ["Merry", "Sleepy", "Early", "Late", "Little", "Old", "Young", "Wandering", "Golden", "Silent"]


def note(name: str, length: int) -> str:
    """Write a note with its length in eighths."""
    return name if length == 1 else f"{name}{length}"


def part(scale: list[str], home: int, meter: str, rng: random.Random) -> str:
    """Compose four bars that end on the key's note."""
    place, bars = home + rng.choice((0, 2, 4)), []
    for number in range(BARS_A_PART):
        is_last = number == BARS_A_PART - 1
        rhythm = LAST[meter] if is_last else rng.choice(METERS[meter])
        names = []
        for length in rhythm:
            names.append(note(scale[place], length))
            place = min(len(scale) - 1, max(0, place + rng.choice((-2, -1, -1, 1, 1, 2))))
        if is_last:
            names[-1] = note(scale[home], rhythm[-1])
        bars.append("".join(names) if meter == "6/8" else " ".join(names))
    return " | ".join(bars)


def tune(number: int, rng: random.Random) -> str:
    """Compose one tune."""
    meter, key = rng.choice(sorted(METERS)), rng.choice(sorted(KEYS))
    scale, home = KEYS[key]
    title = f"The {rng.choice(ADJECTIVES)} {rng.choice(NAMES)}'s {KINDS[meter]}"
    parts = "\n".join(f"|: {part(scale, home, meter, rng)} :|" for _ in range(2))
    return f"X:{number}\nT:{title}\nM:{meter}\nL:1/8\nK:{key}\n{parts}\n"


def tunes(seed: int = SEED) -> str:
    """Return all tunes; the same seed gives the same tunes."""
    rng = random.Random(seed)
    return "\n".join(tune(number, rng) for number in range(1, TUNES + 1))


def main() -> None:
    """Write tunes.abc."""
    parser = argparse.ArgumentParser(description="Make tunes.abc.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    (output / "tunes.abc").write_text(tunes(), encoding="utf-8")


if __name__ == "__main__":
    main()
