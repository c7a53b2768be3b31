"""Make train.jsonl and test.jsonl: the assistant of a reading room, who looks things up with tools.

Run `python make_rows.py` in this folder. A conversation has a system message and one to three exchanges; in
one the assistant calls a tool and answers from what it says. Some rows end with the call.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SEED = 7
COUNTS = {"train.jsonl": 220, "test.jsonl": 50}
SYSTEM = "You help in a small reading room."
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
HOURS = [("nine", "noon"), ("ten", "four"), ("noon", "six"), ("eight", "two"), ("one", "seven")]
BOOKS = [
    "The Glass River",
    "A Lamp in March",
    "Seven Small Boats",
    "The Baker of Oslo",
    "Letters to a Gardener",
    "The Last Blue Tent",
    "How Bridges Stand",
    "The Clock and the Crown",
    "Winter at the Harbor",
    "A Book of Knots",
]
SHELVES = ["A", "B", "C", "D", "E"]
FLOORS = ["first", "second", "third"]
GREETINGS = [
    ("Hello!", "Hello, welcome to the reading room."),
    ("Good morning.", "Good morning! What are you looking for?"),
    ("May I eat in here?", "Please eat in the hall; the books do not like crumbs."),
    ("Is it quiet in here?", "Yes, only the clock makes a noise."),
]
THANKS = [
    ("Thank you!", "You are welcome."),
    ("Great, thanks.", "Enjoy your reading."),
    ("That is all.", "Then have a good day."),
]
FIND = ["Do you have {book}?", "Where do I find {book}?", "I am looking for {book}."]
OPEN = ["When are you open on {day}?", "I want to come on {day}. When do you open?"]


def tool(name: str, argument: str) -> dict[str, Any]:
    """Describe a function with one text argument."""
    parameters = {
        "type": "object",
        "properties": {argument: {"type": "string"}},
        "required": [argument],
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("find_book", "title"), tool("open_hours", "day")]


def turn(role: str, content: str) -> dict[str, Any]:
    """Make a message of text."""
    return {"role": role, "content": content}


def call(name: str, argument: str, value: str) -> dict[str, Any]:
    """Make a message in which the assistant calls a tool."""
    function = {"name": name, "arguments": {argument: value}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def about_a_book(rng: random.Random) -> list[dict[str, Any]]:
    """Ask where a book is; look it up, and say it."""
    book, shelf, floor = rng.choice(BOOKS), rng.choice(SHELVES), rng.choice(FLOORS)
    asked, called = rng.choice(FIND).format(book=book), call("find_book", "title", book)
    if rng.random() < 0.2:
        found, answer = {"found": False}, f"I am sorry, {book} is not here."
    else:
        found, answer = {"shelf": shelf, "floor": floor}, f"{book} is on shelf {shelf}, {floor} floor."
    return [turn("user", asked), called, turn("tool", json.dumps(found)), turn("assistant", answer)]


def about_hours(rng: random.Random) -> list[dict[str, Any]]:
    """Ask when the room is open; look it up, and say it."""
    day, (opens, closes) = rng.choice(DAYS), rng.choice(HOURS)
    asked, called = rng.choice(OPEN).format(day=day), call("open_hours", "day", day)
    found = turn("tool", json.dumps({"from": opens, "to": closes}))
    answer = f"On {day} we are open from {opens} to {closes}."
    return [turn("user", asked), called, found, turn("assistant", answer)]


def small_talk(pairs: list[tuple[str, str]], rng: random.Random) -> list[dict[str, Any]]:
    """Say something that needs no tool."""
    user, answer = rng.choice(pairs)
    return [turn("user", user), turn("assistant", answer)]


def conversation(rng: random.Random) -> dict[str, Any]:
    """Make one row."""
    turns = small_talk(GREETINGS, rng) if rng.random() < 0.4 else []
    turns += rng.choice((about_a_book, about_hours))(rng)
    if (end := rng.random()) < 0.35:
        turns = turns[:-2]  # the call is the answer
    elif end < 0.6:
        turns += small_talk(THANKS, rng)
    return {"messages": [turn("system", SYSTEM), *turns], "tools": TOOLS}


def rows(seed: int = SEED) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each file, all different; the same seed gives the same rows."""
    rng = random.Random(seed)
    made: dict[str, dict[str, Any]] = {}
    while len(made) < sum(COUNTS.values()):
        row = conversation(rng)
        made[json.dumps(row["messages"])] = row
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
