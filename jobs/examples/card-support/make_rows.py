"""Make train.jsonl and test.jsonl: messages to a card company, labeled with the reason for writing.

Run `python make_rows.py` in this folder. The phrases are in phrases.json. A message joins an opening, a core
and a request; which cores meet which requests differs between the two files, so remembering is no help.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
TRAIN_ROWS_A_LABEL = 100
TEST_ROWS_A_LABEL = 25
HELD_OUT_EVERY = 4
TRIES_A_ROW = 50
SLOT = re.compile(r"\{([a-z]+)\}")
SENTENCE_START = re.compile(r"(?:^|[.?!] )[a-z]")


def fill(text: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """Replace each `{slot}` by one of its values."""
    return SLOT.sub(lambda match: rng.choice(slots[match.group(1)]), text)


def is_held_out(core: int, request: int) -> bool:
    """Tell whether the pair of core and request number belongs to test.jsonl."""
    return (core + request) % HELD_OUT_EVERY == 0


def as_typed(text: str, rng: random.Random) -> str:
    """Sometimes write a message as a customer in a hurry does: lower case or without the last full stop."""
    text = SENTENCE_START.sub(lambda match: match.group().upper(), text)
    if rng.random() < 0.15:
        text = text.lower()
    return text.rstrip(".?") if rng.random() < 0.15 else text


def messages(
    label: dict[str, list[str]], shared: dict[str, dict[str, list[str]]], held_out: bool, rng: random.Random
) -> list[str]:
    """Return the different messages of one label for one of the two files."""
    pairs = [
        (core, request)
        for (core_at, core), (request_at, request) in itertools.product(
            enumerate(label["cores"]), enumerate(label["requests"])
        )
        if is_held_out(core_at, request_at) == held_out
    ]
    wanted = TEST_ROWS_A_LABEL if held_out else TRAIN_ROWS_A_LABEL
    made: dict[str, str] = {}
    for core, request in itertools.islice(
        itertools.cycle(rng.sample(pairs, len(pairs))), wanted * TRIES_A_ROW
    ):
        opening = rng.choice(shared["frames"]["openings"])
        text = as_typed(fill(f"{opening} {core} {request}".strip(), shared["slots"], rng), rng)
        made.setdefault(text.lower().rstrip(".?"), text)
        if len(made) == wanted:
            return list(made.values())
    raise ValueError("phrases.json has too few phrases for a label; add cores or requests")


def rows(held_out: bool, seed: int = SEED) -> list[dict[str, str]]:
    """Return the rows of test.jsonl (`held_out`) or train.jsonl, mixed; the same seed gives the same rows."""
    phrases = json.loads((FOLDER / "phrases.json").read_text(encoding="utf-8"))
    rng = random.Random(f"{seed} {held_out}")
    found = [
        {"text": text, "label": name}
        for name, label in phrases["labels"].items()
        for text in messages(label, phrases, held_out, rng)
    ]
    rng.shuffle(found)
    return found


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Make train.jsonl and test.jsonl.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    for name, held_out in (("train.jsonl", False), ("test.jsonl", True)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows(held_out)]
        (output / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
