"""The text that tiny-phi3 learns from: conversations and passages from the project's own templates."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from models.grammar import TEXT, expand
from models.puzzles import PUZZLES

OPENERS = (
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "Hello! ",
    "Hi there. ",
    "Good morning. ",
    "Please help. ",
    "Sorry, ",
    "Excuse me. ",
)
CLOSERS = (
    " Thanks.",
    " Thank you!",
    " Please help.",
    " Can you help me?",
    " What should I do?",
    " What is going on?",
)
SUBJECT = ("What is this message about?", "Give this message a subject.", "Write a title for this message.")
SAME = ("Do these two messages ask for the same thing?", "Same topic or not?")
OTHER_WORDS = ("Say this in other words:", "Rewrite this message:", "Write a message that means the same:")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: who speaks and what is said."""

    role: str
    content: str


@dataclass(frozen=True)
class Document:
    """One training text: a conversation when `messages` is set, else the plain `text`."""

    messages: tuple[Message, ...] = ()
    text: str = ""


@dataclass
class Intent:
    """What one kind of customer message looks like and how it is answered."""

    domain: str
    title: str
    answers: list[str] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)

    def message(self, rng: random.Random) -> str:
        """Return one message of this intent, sometimes with a greeting, a thank-you or a slip."""
        text = reworded(expand(rng.choice(self.phrases), rng), rng)
        if rng.random() < 0.25:
            extra = capitalized(expand(rng.choice(CONTEXTS), rng))
            text = f"{extra} {text}" if rng.random() < 0.5 else f"{text} {extra}"
        if rng.random() < 0.15:
            text = rng.choice(OPENERS) + text
        if rng.random() < 0.15:
            text += rng.choice(CLOSERS)
        return roughen(text, rng)

    def answer(self, rng: random.Random) -> str:
        """Return one answer to a message of this intent."""
        return expand(rng.choice(self.answers), rng)


def reworded(text: str, rng: random.Random) -> str:
    """Sometimes put other words of the same meaning into a customer's message."""
    if rng.random() < 0.4:
        return text

    def other(match: re.Match[str]) -> str:
        found = match.group()
        if rng.random() < 0.5:
            return found
        pick = rng.choice(SYNONYMS[found.lower()])
        return capitalized(pick) if found[0].isupper() and not found.isupper() else pick

    return SYNONYM.sub(other, text)


def roughen(text: str, rng: random.Random) -> str:
    """Sometimes write `text` as people do in a hurry: lower case, no full stop, two letters swapped."""
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.12:
        text = text.rstrip(".?!")
    if rng.random() < 0.05 and len(text) > 8:
        at = rng.randrange(1, len(text) - 3)
        text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def content_lines(name: str) -> list[str]:
    """Return the lines of a text file without blank lines and comments."""
    lines = (TEXT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("# ")]


def read_intents() -> list[Intent]:
    """Read intents.txt."""
    intents: list[Intent] = []
    for line in content_lines("intents.txt"):
        if line.startswith("## "):
            domain, _, title = line[3:].partition(": ")
            intents.append(Intent(domain, title))
        elif line.startswith("> "):
            intents[-1].answers.append(line[2:])
        else:
            intents[-1].phrases.append(line)
    return intents


def read_label_tasks() -> dict[str, list[tuple[str, str]]]:
    """Read labels.txt: instruction -> (label, template) pairs."""
    tasks: dict[str, list[tuple[str, str]]] = {}
    for line in content_lines("labels.txt"):
        if line.startswith("## "):
            tasks[line.partition(": ")[2]] = []
        else:
            label, _, template = line.partition(" = ")
            tasks[next(reversed(tasks))].append((label, template))
    return tasks


def read_pairs(name: str) -> list[tuple[str, str]]:
    """Read `user => reply` lines."""
    return [(line.partition(" => ")[0], line.partition(" => ")[2]) for line in content_lines(name)]


def read_stories() -> list[list[str]]:
    """Read stories.txt: blocks of sentence patterns, one sentence of each makes a story."""
    blocks: list[list[str]] = [[]]
    for line in content_lines("stories.txt"):
        if line == "---":
            blocks.append([])
        else:
            blocks[-1].append(line)
    return blocks


def read_synonyms() -> dict[str, list[str]]:
    """Read synonyms.txt: the first word of a group in lower case -> the others."""
    groups = [line.split(" | ") for line in content_lines("synonyms.txt")]
    return {group[0].lower(): group[1:] for group in groups}


INTENTS = read_intents()
SYNONYMS = read_synonyms()
SYNONYM = re.compile(r"\b(?:" + "|".join(sorted(SYNONYMS, key=len, reverse=True)) + r")\b", re.IGNORECASE)
CONTEXTS = content_lines("contexts.txt")
LABEL_TASKS = read_label_tasks()
FACTS = read_pairs("facts.txt")
SMALL_TALK = read_pairs("smalltalk.txt")
STORIES = read_stories()


def chat(*turns: str, system: str = "") -> Document:
    """Make a conversation from user and assistant turns in order."""
    head = (Message("system", system),) if system else ()
    roles = ("user", "assistant")
    return Document(head + tuple(Message(roles[index % 2], turn) for index, turn in enumerate(turns)))


def instructed(rng: random.Random, instruction: str, text: str, answer: str) -> Document:
    """Put an instruction into the system message or before the user's text."""
    if rng.random() < 0.5:
        return chat(text, answer, system=instruction)
    return chat(f"{instruction}\n{text}", answer)


def capitalized(text: str) -> str:
    """Return `text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def draw_pair(pair: tuple[str, str], rng: random.Random) -> tuple[str, str]:
    """Expand both sides of a `user => reply` pair with the same slots."""
    user, _, reply = expand("\x1f".join(pair), rng).partition("\x1f")
    return capitalized(user.strip()), capitalized(reply.strip())


def support(rng: random.Random) -> Document:
    """A customer asks, the assistant answers; sometimes with a greeting first or thanks after."""
    intent = rng.choice(INTENTS)
    turns = [intent.message(rng), intent.answer(rng)]
    if rng.random() < 0.15:
        turns = [*draw_pair(SMALL_TALK[0], rng), *turns]
    if rng.random() < 0.15:
        turns += draw_pair(SMALL_TALK[2], rng)
    system = "You answer customers in one or two sentences." if rng.random() < 0.2 else ""
    return chat(*turns, system=system)


def subject(rng: random.Random) -> Document:
    """Name what a message is about."""
    intent = rng.choice(INTENTS)
    return instructed(rng, rng.choice(SUBJECT), intent.message(rng), intent.title)


def choice(rng: random.Random) -> Document:
    """Pick the title that fits a message out of three or four of the same domain."""
    intent = rng.choice(INTENTS)
    others = [other.title for other in INTENTS if other.domain == intent.domain and other is not intent]
    titles = [intent.title, *rng.sample(others, min(len(others), rng.randint(2, 3)))]
    rng.shuffle(titles)
    return instructed(rng, "Choose: " + " / ".join(titles), intent.message(rng), intent.title)


def same(rng: random.Random) -> Document:
    """Tell whether two messages mean the same."""
    first = rng.choice(INTENTS)
    near = rng.random() < 0.6
    others = [one for one in INTENTS if one is not first and (not near or one.domain == first.domain)]
    second = first if rng.random() < 0.5 or not others else rng.choice(others)
    text = f"1. {first.message(rng)}\n2. {second.message(rng)}"
    return instructed(rng, rng.choice(SAME), text, "yes" if first is second else "no")


def paraphrase(rng: random.Random) -> Document:
    """Say a message in other words."""
    intent = rng.choice(INTENTS)
    return chat(f"{rng.choice(OTHER_WORDS)} {intent.message(rng)}", intent.message(rng))


def domain(rng: random.Random) -> Document:
    """Name the department that should answer a message."""
    intent = rng.choice(INTENTS)
    return instructed(rng, "Which department answers this?", intent.message(rng), intent.domain)


def label(rng: random.Random) -> Document:
    """Pick a label for a text."""
    instruction = rng.choice(sorted(LABEL_TASKS))
    name = rng.choice(sorted({pair[0] for pair in LABEL_TASKS[instruction]}))
    templates = [template for found, template in LABEL_TASKS[instruction] if found == name]
    text = roughen(capitalized(expand(rng.choice(templates), rng)), rng)
    return instructed(rng, instruction, text, name)


def knowledge(rng: random.Random) -> Document:
    """A question about the world, asked in a chat or printed as a passage."""
    question, answer = draw_pair(rng.choice(FACTS), rng)
    return (
        chat(question, answer)
        if rng.random() < 0.7
        else Document(text=f"Question: {question}\nAnswer: {answer}")
    )


def small_talk(rng: random.Random) -> Document:
    """One to three friendly exchanges."""
    turns: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        turns += draw_pair(rng.choice(SMALL_TALK), rng)
    return chat(*turns)


def puzzle(rng: random.Random) -> Document:
    """An exercise with one right answer."""
    return chat(*rng.choice(PUZZLES)(rng))


def story(rng: random.Random) -> Document:
    """A story of four sentences, as plain text or on request."""
    text = " ".join(capitalized(expand(rng.choice(block), rng)) for block in STORIES)
    return chat("Tell me a story.", text) if rng.random() < 0.3 else Document(text=text)


MIX = (
    (support, 18), (subject, 14), (choice, 8), (same, 10), (paraphrase, 8), (domain, 4),
    (label, 12), (knowledge, 12), (small_talk, 8), (puzzle, 10), (story, 6),
)  # fmt: skip


def documents(seed: int) -> Iterator[Document]:
    """Yield documents without end; the same seed gives the same documents."""
    rng = random.Random(seed)
    kinds, weights = zip(*MIX, strict=True)
    while True:
        yield rng.choices(kinds, weights)[0](rng)
