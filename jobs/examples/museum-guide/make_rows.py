"""Make train.tsv and test.tsv: short English sentences about a museum's rooms and their German translations.

Run `python make_rows.py` in this folder. A sentence, a tab and its translation a line. No pair of test.tsv is
in train.tsv, but all of its words are.
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 7
ROWS_A_PATTERN = 160
TEST_ROWS = 150
# English noun | nominative | dative
NOUNS = [
    line.split("|")
    for line in (
        "clock|die Uhr|der Uhr",
        "door|die Tür|der Tür",
        "table|der Tisch|dem Tisch",
        "chair|der Stuhl|dem Stuhl",
        "picture|das Bild|dem Bild",
        "window|das Fenster|dem Fenster",
        "lamp|die Lampe|der Lampe",
        "mirror|der Spiegel|dem Spiegel",
        "ship|das Schiff|dem Schiff",
        "crown|die Krone|der Krone",
        "bell|die Glocke|der Glocke",
        "book|das Buch|dem Buch",
        "map|die Karte|der Karte",
        "piano|das Klavier|dem Klavier",
    )
]
ADJECTIVES = [
    line.split("|")
    for line in (
        "old|alt",
        "new|neu",
        "big|groß",
        "small|klein",
        "heavy|schwer",
        "light|leicht",
        "red|rot",
        "green|grün",
        "black|schwarz",
        "white|weiß",
        "broken|kaputt",
        "beautiful|schön",
    )
]
# English | German, with {n} and {m} nouns, {a} and {b} adjectives
SENTENCES = [
    ("The {n} is {a}.", "{N} ist {a}."),
    ("Where is the {n}?", "Wo ist {n}?"),
    ("The {n} stands next to the {m}.", "{N} steht neben {dat}."),
    ("The {n} is not {a} but {b}.", "{N} ist nicht {a}, sondern {b}."),
    ("The {n} and the {m} are {a}.", "{N} und {m} sind {a}."),
    ("Is the {n} {a} or {b}?", "Ist {n} {a} oder {b}?"),
    ("Here is the {n}, there is the {m}.", "Hier ist {n}, dort ist {m}."),
    ("The {n} is behind the {m}.", "{N} ist hinter {dat}."),
    ("Why is the {n} so {a}?", "Warum ist {n} so {a}?"),
]


def capitalized(text: str) -> str:
    """Return `text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def sentences(english: str, german: str) -> list[tuple[str, str]]:
    """Return every sentence that a pattern makes, once, with its translation."""
    made = {}
    for (noun, other), (first, second) in itertools.product(
        itertools.permutations(NOUNS, 2), itertools.permutations(ADJECTIVES, 2)
    ):
        words = {"n": noun[1], "N": capitalized(noun[1]), "m": other[1], "dat": other[2]}
        text = english.format(n=noun[0], m=other[0], a=first[0], b=second[0])
        made[text] = german.format(**words, a=first[1], b=second[1])
    return list(made.items())


def rows(seed: int = SEED) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the pairs of train.tsv and test.tsv; the same seed gives the same pairs."""
    rng = random.Random(seed)
    drawn = []
    for pattern in SENTENCES:
        every = sentences(*pattern)
        drawn += rng.sample(every, min(ROWS_A_PATTERN, len(every)))
    rng.shuffle(drawn)
    return drawn[TEST_ROWS:], drawn[:TEST_ROWS]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Make train.tsv and test.tsv.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    output: Path = parser.parse_args().output
    for name, drawn in zip(("train.tsv", "test.tsv"), rows(), strict=True):
        (output / name).write_text("".join(f"{a}\t{b}\n" for a, b in drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
