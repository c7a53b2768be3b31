"""Make train.jsonl and test.jsonl: questions about an order, whose answer is words of the text.

Run `python make_rows.py` in this folder. No text of test.jsonl is in train.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
TEXTS = {"train.jsonl": 420, "test.jsonl": 60}
QUESTIONS_A_TEXT = 2
NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Grace", "Hugo", "Ines", "Jack", "Paul"]
CITIES = ["London", "Paris", "Berlin", "Madrid", "Rome", "Oslo", "Vienna", "Prague"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NUMBERS = ["two", "three", "four", "five", "six", "seven", "eight"]
THINGS = ["jackets", "lamps", "kettles", "books", "chairs", "watches", "tents", "rugs"]
PRICES = ["10", "20", "30", "50", "60", "80", "100", "200"]
TEXT_PATTERNS = [
    "On {day}, {name} from {city} ordered {number} {thing} for {price} euros.",
    "{name} ordered {number} {thing} on {day}. They go to {city} and cost {price} euros.",
    "{number} {thing} were ordered by {name} in {city}. The price is {price} euros, due on {day}.",
    "An order came from {city} on {day}: {number} {thing}, {price} euros. It was {name}.",
]
QUESTIONS = {
    "name": ["Who ordered the {thing}?", "Who placed the order?"],
    "city": ["Where do the {thing} go?", "Which city is it?"],
    "day": ["On which day was it?", "Which day is named?"],
    "number": ["How many {thing} are there?", "How many were ordered?"],
    "thing": ["What was ordered?", "What did {name} want?"],
    "price": ["How much is it?", "What do the {thing} cost?"],
}


def order(rng: random.Random) -> tuple[str, dict[str, str]]:
    """Make a text and the facts in it."""
    facts = {
        "name": rng.choice(NAMES),
        "city": rng.choice(CITIES),
        "day": rng.choice(DAYS),
        "number": rng.choice(NUMBERS),
        "thing": rng.choice(THINGS),
        "price": rng.choice(PRICES),
    }
    text = rng.choice(TEXT_PATTERNS).format(**facts)
    return text[0].upper() + text[1:], facts


def questions(text: str, facts: dict[str, str], rng: random.Random) -> list[dict[str, object]]:
    """Ask about some of the facts; a price is right with and without its currency."""
    made = []
    for key in rng.sample(sorted(QUESTIONS), QUESTIONS_A_TEXT):
        question = rng.choice(QUESTIONS[key]).format(**facts)
        answers = [f"{facts[key]} euros", facts[key]] if key == "price" else [facts[key]]
        made.append({"context": text, "question": question, "answers": answers})
    return made


def rows(seed: int = SEED) -> dict[str, list[dict[str, object]]]:
    """Return the rows of both files; the same seed gives the same rows."""
    rng = random.Random(seed)
    texts: dict[str, dict[str, str]] = {}
    while len(texts) < sum(TEXTS.values()):
        text, facts = order(rng)
        texts[text] = facts
    made: dict[str, list[dict[str, object]]] = {}
    drawn = iter(texts.items())
    for name, count in TEXTS.items():
        made[name] = [row for _ in range(count) for row in questions(*next(drawn), rng)]
        rng.shuffle(made[name])
    return made


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
