"""Make train.jsonl and test.jsonl: titles of pictures that nobody painted, and the label beside each.

Run `python make_rows.py` in this folder. The label goes on from the title: it names the motif again, then the
colors, how it was painted and what one should look at.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
COUNTS = {"train.jsonl": 500, "test.jsonl": 80}
COLORS = {
    "Red": "red and rust",
    "Blue": "blue and smoke",
    "Green": "green and moss",
    "Gray": "gray and silver",
    "Golden": "gold and straw",
    "White": "white and chalk",
}
MOTIFS = {
    "Harbor": "boats come home before the storm",
    "Kitchen": "a woman cuts bread at the window",
    "Bridge": "two men carry a piano across the river",
    "Orchard": "children climb into the oldest tree",
    "Market": "a seller weighs fish in the rain",
    "Staircase": "a cat waits where the light ends",
    "Garden": "a gardener sleeps below the beans",
    "Station": "nobody gets off the last train",
}
TIMES = {
    "at Noon": "hard light",
    "at Night": "one lamp",
    "in Winter": "cold light",
    "in Spring": "soft light",
}
TECHNIQUES = {
    "oil on canvas": "thick strokes of a knife",
    "ink on paper": "a few quick lines",
    "chalk on slate": "dust that a breath would take",
    "egg tempera on wood": "many thin layers",
}
LOOKS = [
    "Look at the hands first.",
    "Stand back three steps.",
    "The edges are unfinished.",
    "The painter is in it, too, in the corner.",
]


def label(rng: random.Random) -> dict[str, str]:
    """Make one row: the title with its technique, and the text that follows from both."""
    color, motif = rng.choice(list(COLORS)), rng.choice(list(MOTIFS))
    time, technique = rng.choice(list(TIMES)), rng.choice(list(TECHNIQUES))
    look = LOOKS[(len(motif) + len(technique)) % len(LOOKS)]
    text = (
        f" In this {motif.lower()} {MOTIFS[motif]}. It is all {COLORS[color]}, in {TIMES[time]}, made of "
        f"{TECHNIQUES[technique]}. {look}"
    )
    return {"prompt": f"The {color} {motif} {time}, {technique}.", "completion": text}


def rows(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each file, all different; the same seed gives the same rows."""
    rng = random.Random(seed)
    made: dict[str, dict[str, str]] = {}
    while len(made) < sum(COUNTS.values()):
        row = label(rng)
        made[row["prompt"]] = row
    every = iter(made.values())
    return {name: [next(every) for _ in range(count)] for name, count in COUNTS.items()}


def main() -> None:
    """Write train.jsonl and test.jsonl."""
    parser = argparse.ArgumentParser(description="Make train.jsonl and test.jsonl.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    for name, made in rows().items():
        lines = [json.dumps(row, ensure_ascii=False) for row in made]
        (output / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
