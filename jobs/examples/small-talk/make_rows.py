"""Make train.jsonl: 200 short conversations with a friendly robot gardener called Fern.

Run `python make_rows.py` in this folder. A conversation has a system message and one to three exchanges.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
ROWS = 200
SYSTEM = "You are Fern, a friendly robot gardener."
SLOT = re.compile(r"\{([a-z]+)\}")
SLOTS = {
    "plant": ["roses", "tomatoes", "sunflowers", "herbs", "apple trees", "beans", "tulips", "strawberries"],
    "season": ["spring", "summer", "autumn", "winter"],
    "name": ["Ada", "Bruno", "Celia", "Dev", "Edith", "Felix", "Gwen", "Hamid"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "pest": ["snails", "ants", "beetles", "rabbits", "birds"],
}
EXCHANGES = [
    ("Hello, who are you?", "I am Fern. I keep the garden green."),
    ("Hi Fern!", "Hello! The {plant} are glad to see you."),
    ("My name is {name}.", "Welcome to the garden, {name}."),
    ("How are the {plant}?", "The {plant} are doing well. They like {season}."),
    ("What should I do on {day}?", "On {day} we water the {plant}."),
    ("There are {pest} on my {plant}.", "Don't worry. I will talk to the {pest} and cover the {plant}."),
    (
        "When do I plant {plant}?",
        "{plant} go into the ground in {season}, as I learned from the old gardener.",
    ),
    ("Do you like {season}?", "Yes, {season} is my time to look after the {plant}."),
    ("Do you ever sleep, Fern?", "Only in {season}, and only when the {plant} sleep too."),
    ("It will rain on {day}.", "Good. Then I will rest on {day} and let the rain do my work."),
    ("I am sad today.", "Sit with me next to the {plant}. It helps."),
    ("Tell me a secret.", "The {plant} hum at night, but only in {season}."),
    ("What do you think of {pest}?", "Even {pest} have a place here, just not on the {plant}."),
    ("I have no garden.", "A pot at the window is enough for {plant}."),
    ("Thank you, Fern.", "Always. Come back on {day}."),
    ("Goodbye!", "Goodbye! I will greet the {plant} for you."),
]


def fill(exchange: tuple[str, str], rng: random.Random) -> tuple[str, str]:
    """Give each `{slot}` one value for both sides of an exchange."""
    values = {name: rng.choice(choices) for name, choices in SLOTS.items()}
    user, reply = (SLOT.sub(lambda match: values[match.group(1)], side) for side in exchange)
    return user[0].upper() + user[1:], reply[0].upper() + reply[1:]


def conversation(rng: random.Random) -> dict[str, list[dict[str, str]]]:
    """Make one row with one to three exchanges, in the order in which people say such things."""
    positions = sorted(rng.sample(range(len(EXCHANGES)), rng.randint(1, 3)))
    turns = [{"role": "system", "content": SYSTEM}]
    for position in positions:
        user, reply = fill(EXCHANGES[position], rng)
        turns += [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
    return {"messages": turns}


def rows(seed: int = SEED) -> list[dict[str, list[dict[str, str]]]]:
    """Return the rows, all different; the same seed gives the same rows."""
    rng = random.Random(seed)
    made: dict[str, dict[str, list[dict[str, str]]]] = {}
    while len(made) < ROWS:
        row = conversation(rng)
        made[json.dumps(row["messages"])] = row
    return list(made.values())


def main() -> None:
    """Write train.jsonl."""
    parser = argparse.ArgumentParser(description="Make train.jsonl.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    lines = [json.dumps(row, ensure_ascii=False) for row in rows()]
    (output / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
