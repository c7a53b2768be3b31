"""Make train.jsonl and test.jsonl: questions about night buses, each with a better and a worse answer.

Run `python make_rows.py` in this folder. The worse answer is polite and says nothing, or it is like the
better one but names another line or another time.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
COUNTS = {"train.jsonl": 224, "test.jsonl": 64}
STOPS = {
    "the mill": "N1",
    "the old harbor": "N1",
    "the hospital": "N2",
    "the swimming hall": "N2",
    "the university": "N3",
    "the brick works": "N3",
    "the lake": "N4",
    "the central station": "N4",
}
QUESTIONS = [
    "How do I get to {stop} after {hour}?",
    "Is there a bus to {stop} at {hour} at night?",
    "I finish work at {hour}. What goes to {stop}?",
    "It is {hour} and I want to go to {stop}.",
    "Does anything still run to {stop} around {hour}?",
    "My friend arrives at {hour} and lives near {stop}. Which bus?",
]
ANSWERS = [
    "{line} at {time}, from the town hall.",
    "Take {line} at {time}. It stops at {stop}.",
    "{line}, {time}. It goes on to {stop}.",
    "At {time} with {line}, as far as {stop}.",
]
EMPTY = [
    "We are sorry, nobody is here to ask.",
    "Please look at the map of {stop}.",
    "There may be a bus to {stop}.",
]
TIMES = {
    "midnight": "0:10",
    "half past twelve": "0:40",
    "one o'clock": "1:10",
    "two o'clock": "2:10",
    "half past two": "2:40",
    "three o'clock": "3:10",
}


def pair(rng: random.Random) -> dict[str, str]:
    """Make one row: a question, the answer that is preferred, and one that is not."""
    stop, hour = rng.choice(list(STOPS)), rng.choice(list(TIMES))
    right = {"stop": stop, "hour": hour, "line": STOPS[stop], "time": TIMES[hour]}
    other_line = {"line": rng.choice(sorted({*STOPS.values()} - {STOPS[stop]}))}
    other_time = {"time": rng.choice(sorted({*TIMES.values()} - {TIMES[hour]}))}
    answer, kind = rng.choice(ANSWERS), rng.choice(["line", "time", "empty", "empty"])
    wrong = {**right, **(other_line if kind == "line" else other_time)}
    return {
        "prompt": rng.choice(QUESTIONS).format(**right),
        "chosen": answer.format(**right),
        "rejected": (rng.choice(EMPTY) if kind == "empty" else answer).format(**wrong),
    }


def rows(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each file, no two with one question; the same seed gives the same rows."""
    rng = random.Random(seed)
    made: dict[str, dict[str, str]] = {}
    while len(made) < len(STOPS) * len(TIMES) * len(QUESTIONS):
        row = pair(rng)
        made.setdefault(row["prompt"], row)
    every = list(made.values())
    rng.shuffle(every)
    return {"train.jsonl": every[: COUNTS["train.jsonl"]], "test.jsonl": every[-COUNTS["test.jsonl"] :]}


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
