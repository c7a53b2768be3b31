"""Make handbook.txt: a long, dry handbook about a garden that is not, in plain text.

Run `python make_rows.py` in this folder. Paragraphs are parted by blank lines, as in any text file.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
PLANTS = 110
STEMS = [
    "bel",
    "cor",
    "dan",
    "fen",
    "gal",
    "hul",
    "jor",
    "kel",
    "lum",
    "mor",
    "nar",
    "pel",
    "quil",
    "ros",
    "sel",
    "tam",
    "ul",
    "ver",
    "wil",
    "zan",
]
ENDS = ["anthus", "ella", "etta", "ica", "idora", "iflor", "inia", "ossa", "unda", "ysia"]
COLORS = ["red", "blue", "green", "yellow", "black", "white", "brown", "gray", "orange", "purple"]
SOILS = ["sand", "clay", "peat", "gravel", "leaf mold", "loam"]
PLACES = ["the north wall", "the pond", "the old gate", "the apple trees", "the stone bench", "the fence"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
FRIENDS = ["bees", "moths", "snails", "beetles", "birds", "ants"]
TROUBLES = ["frost", "wind", "rust", "mildew", "drought", "wet feet"]
CURES = ["ash", "milk", "soap water", "straw", "nettle tea", "a cold frame"]
PARAGRAPHS = [
    "The {plant} grows to {height} centimeters. Its flowers are {color}, its leaves {color2}. "
    "It wants {soil} and stands best by {place}.",
    "Sow the {plant} in {month} and cover it with {soil}. After {days} days the first leaves show. Thin the "
    "rows to {gap} centimeters.",
    "The {plant} suffers from {trouble}. Give it {cure} every {days} days, and never water it at noon.",
    "In {month} the {friend} come to the {plant}. Leave them alone: where there are {friend}, the {plant} "
    "bears twice as much.",
    "Cut the {plant} back in {month}, a hand above the ground. What is cut goes by {place} and feeds "
    "the soil.",
    "Of the {plant} there are {count} kinds in the garden. The {color} one is the oldest; it came with the "
    "{friend} by {place}.",
]


def plants(rng: random.Random) -> list[str]:
    """Return the names of plants, all different."""
    names = sorted(first + second + end for first in STEMS for second in ("", "a", "i") for end in ENDS)
    return rng.sample(names, PLANTS)


def chapter(plant: str, rng: random.Random) -> list[str]:
    """Return three to five paragraphs about one plant, whose facts stay the same within the chapter."""
    color, color2 = rng.sample(COLORS, 2)
    facts = {
        "plant": plant,
        "color": color,
        "color2": color2,
        "soil": rng.choice(SOILS),
        "place": rng.choice(PLACES),
        "friend": rng.choice(FRIENDS),
        "trouble": rng.choice(TROUBLES),
        "cure": rng.choice(CURES),
    }
    told = []
    for pattern in rng.sample(PARAGRAPHS, rng.randint(3, 5)):
        numbers = {"height": 5 * rng.randint(2, 40), "days": rng.randint(3, 21), "gap": 5 * rng.randint(1, 8)}
        month, count = rng.choice(MONTHS), rng.randint(2, 9)
        told.append(pattern.format(**facts, **numbers, month=month, count=count))
    return told


def handbook(seed: int = SEED) -> str:
    """Return the text; the same seed gives the same text."""
    rng = random.Random(seed)
    return "\n\n".join(paragraph for plant in plants(rng) for paragraph in chapter(plant, rng)) + "\n"


def main() -> None:
    """Write handbook.txt."""
    parser = argparse.ArgumentParser(description="Make handbook.txt.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    (output / "handbook.txt").write_text(handbook(), encoding="utf-8")


if __name__ == "__main__":
    main()
