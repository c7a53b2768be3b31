"""Small exercises with one right answer: sums, copying, sorting, fields, translations and tunes."""

from __future__ import annotations

import json
import random

from models.grammar import SLOTS, TEXT, expand

LANGUAGES = ("French", "German", "Spanish")
SENTENCES = (
    ("I see {0}.", "Je vois {0}.", "Ich sehe {0}.", "Veo {0}."),
    ("Here is {0}.", "Voici {0}.", "Hier ist {0}.", "Aquí está {0}."),
    ("Where is {0}?", "Où est {0} ?", "Wo ist {0}?", "¿Dónde está {0}?"),
    ("{0} and {1}", "{0} et {1}", "{0} und {1}", "{0} y {1}"),
    ("{0}", "{0}", "{0}", "{0}"),
)
MASCULINE_ACCUSATIVE = "der "
KEYS = {"C": "CDEFGABc", "G": "GABcdefg", "D": "DEFGABcd", "Am": "ABcdefga"}
METERS = {"4/4": 8, "3/4": 6, "6/8": 6}


def read_words() -> list[list[str]]:
    """Return rows of one noun in English, French, German and Spanish."""
    lines = (TEXT / "words.txt").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")] for line in lines if line and not line.startswith("#")]


WORDS = read_words()


def arithmetic(rng: random.Random) -> tuple[str, str]:
    """A sum or a difference of two small numbers."""
    first, second = sorted((rng.randint(0, 50), rng.randint(0, 50)), reverse=True)
    if rng.random() < 0.5:
        return f"What is {first} + {second}?", str(first + second)
    return f"What is {first} - {second}?", str(first - second)


def ordering(rng: random.Random) -> tuple[str, str]:
    """Copy, reverse or sort three or four words."""
    words = rng.sample(SLOTS["color"] + SLOTS["animal"] + SLOTS["place"], rng.randint(3, 4))
    listed = ", ".join(words)
    task, result = rng.choice(
        [("Repeat", words), ("Write in reverse order", words[::-1]), ("Sort by alphabet", sorted(words))]
    )
    return f"{task}: {listed}", ", ".join(result)


def fields(rng: random.Random) -> tuple[str, str]:
    """Find the name, the city and the amount in a sentence and answer as JSON."""
    found = {key: rng.choice(SLOTS[key]) for key in ("name", "city", "amount")}
    sentence = expand(
        "[{name} from {city} [paid|sent|spent] {amount}.|In {city}, {name} [lost|won|found] {amount}."
        "|{amount} went to {name} in {city}.]",
        rng,
        found,
    )
    keys = rng.sample(sorted(found), rng.randint(1, 3))
    return f"Give {', '.join(keys)} as JSON. {sentence}", json.dumps({key: found[key] for key in keys})


def translation(rng: random.Random) -> tuple[str, str]:
    """Translate a short sentence from English into one of three languages."""
    language = rng.randrange(3)
    pattern = rng.choice(SENTENCES)
    nouns = rng.sample(WORDS, 2)
    target = [noun[language + 1] for noun in nouns]
    if LANGUAGES[language] == "German" and pattern[0].startswith("I see"):
        target = [word.replace(MASCULINE_ACCUSATIVE, "den ", 1) for word in target]
    english = pattern[0].format(*(noun[0] for noun in nouns))
    result = pattern[language + 1].format(*target)
    return (
        f"Translate into {LANGUAGES[language]}: {english[0].upper() + english[1:]}",
        result[0].upper() + result[1:],
    )


def tune(rng: random.Random) -> tuple[str, str]:
    """A short tune in ABC notation whose bars fill their meter."""
    meter = rng.choice(sorted(METERS))
    key = rng.choice(sorted(KEYS))
    scale, at, bars = KEYS[key], rng.randrange(8), []
    for _ in range(4):
        left, bar = METERS[meter], ""
        while left:
            at = min(7, max(0, at + rng.choice((-2, -1, 1, 2))))
            length = rng.choice([length for length in (1, 2, 2) if length <= left])
            bar += scale[at] + ("2" if length == 2 else "")
            left -= length
        bars.append(bar)
    head = f"X:1\nT:{expand('The {size} {animal}', rng).title()}\nM:{meter}\nL:1/8\nK:{key}\n"
    return f"Write a tune in {meter} in the key of {key}.", head + " | ".join(bars) + " |]"


PUZZLES = (arithmetic, ordering, fields, translation, tune)
