"""Make train.jsonl and test.jsonl: reports of a night shift and what of them matters to the next one.

Run `python make_rows.py` in this folder. A summary names the machine, what is wrong, who repairs it and when;
all the rest of a report is left out.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
ROWS = {"train.jsonl": 600, "test.jsonl": 100}
NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Grace",
    "Hugo",
    "Ines",
    "Jack",
    "Liam",
    "Maya",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MACHINES = ["press", "oven", "mixer", "printer", "pump", "saw", "crane", "belt"]
FAULTS = {
    "loses oil": ["There was oil under the {machine} again.", "The {machine} lost oil all night."],
    "is too hot": ["The {machine} got far too hot.", "We could not touch the {machine}, it was so hot."],
    "makes noise": ["The {machine} made a loud noise.", "A strange noise came from the {machine}."],
    "does not start": ["In the morning the {machine} did not start.", "The {machine} would not start."],
    "is slow": ["The {machine} was very slow.", "All work waited, because the {machine} was slow."],
}
REPAIRS = [
    "{name} will come on {day} to repair it.",
    "{name} promised to look at it on {day}.",
    "On {day}, {name} brings a new part for it.",
]
CHATTER = [
    "The night was quiet.",
    "It rained until four.",
    "We had soup and bread at midnight.",
    "The new lights are good.",
    "Nobody was ill.",
    "Two trucks came late.",
    "The radio played old songs.",
    "We cleaned the floor twice.",
    "Somebody left a blue jacket here.",
    "The coffee is almost gone.",
]


def report(rng: random.Random) -> dict[str, str]:
    """Make one report and its summary."""
    machine, name, day = rng.choice(MACHINES), rng.choice(NAMES), rng.choice(DAYS)
    fault = rng.choice(sorted(FAULTS))
    news = [rng.choice(FAULTS[fault]), rng.choice(REPAIRS)]
    told = [sentence.format(machine=machine, name=name, day=day) for sentence in news]
    for sentence in rng.sample(CHATTER, rng.randint(2, 4)):
        told.insert(rng.randint(0, len(told)), sentence)
    return {"document": " ".join(told), "summary": f"The {machine} {fault}; {name} repairs it on {day}."}


def rows(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Return the rows of both files, all different; the same seed gives the same rows."""
    rng = random.Random(seed)
    made: dict[str, dict[str, str]] = {}
    while len(made) < sum(ROWS.values()):
        row = report(rng)
        made[row["document"]] = row
    drawn = iter(made.values())
    return {name: [next(drawn) for _ in range(count)] for name, count in ROWS.items()}


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Make train.jsonl and test.jsonl.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    for name, drawn in rows().items():
        lines = [json.dumps(row, ensure_ascii=False) for row in drawn]
        (output / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
