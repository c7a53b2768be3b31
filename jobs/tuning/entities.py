"""Named entities: from tags to marked text, and the compact text in which a model names them.

An entity is a line `label: words`, in the order of the text; `none` says that there is none. The words stand
for their first place after the entity before; where another place is meant, its number follows the label
(`location #2: Paris`), so that what is written can always be read back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NONE = "none"
OUTSIDE = "O"
_TAG = re.compile(r"O|([BIESLU])-(.+)")
_BEGINS, _ENDS = frozenset("BSU"), frozenset("ESLU")
_LINE = re.compile(r"(?P<label>[^:\n]+?)(?: #(?P<number>[1-9][0-9]{0,3}))?: (?P<words>.+)")


@dataclass(frozen=True, slots=True)
class Entity:
    """A labeled part of a text: the characters from `start` up to `end`."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text and its entities, in order and apart from each other."""

    text: str
    entities: tuple[Entity, ...]


def is_tag(word: str) -> bool:
    """Whether a word is a tag: O, or a place (B, I, E, S, L or U) and a label, as in B-location."""
    return _TAG.fullmatch(word) is not None


def is_label(label: str) -> bool:
    """Whether a label can be written before its words and read back."""
    line = _LINE.fullmatch(f"{label}: x")
    is_whole = line is not None and line["label"] == label == label.strip()
    return is_whole and " #" not in label and label.splitlines() == [label]


def from_tags(tokens: Sequence[str], tags: Sequence[str]) -> MarkedText:
    """The tokens with a blank between each, and the entities that IOB2, IOB1 or BIOES tags mark.

    As in conlleval, an entity also begins where an inner tag has another label than the token before.
    """
    entities: list[Entity] = []
    place, is_open = 0, False
    for token, tag in zip(tokens, tags, strict=True):
        match = _TAG.fullmatch(tag)
        end = place + len(token)
        if match is None or match[2] is None:
            is_open = False
        else:
            goes_on = is_open and match[1] not in _BEGINS and entities[-1].label == match[2]
            start = entities.pop().start if goes_on else place
            entities.append(Entity(start, end, match[2]))
            is_open = match[1] not in _ENDS
        place = end + 1
    return MarkedText(" ".join(tokens), tuple(entities))


def to_tags(length: int, entities: Sequence[Entity]) -> list[str]:
    """The IOB2 tag of each of `length` characters."""
    tags = [OUTSIDE] * length
    for entity in entities:
        tags[entity.start] = f"B-{entity.label}"
        tags[entity.start + 1 : entity.end] = [f"I-{entity.label}"] * (entity.end - entity.start - 1)
    return tags


def write_entities(marked: MarkedText) -> str:
    """The entities as the text that a model is to answer."""
    return "\n".join(_written(marked)) or NONE


def _written(marked: MarkedText) -> Iterator[str]:
    reached = 0
    for entity in marked.entities:
        words = " ".join(marked.text[entity.start : entity.end].split())
        number = _places(words, marked.text, reached).index((entity.start, entity.end)) + 1
        yield f"{entity.label}{f' #{number}' if number > 1 else ''}: {words}"
        reached = entity.end


def read_entities(answer: str, text: str) -> list[Entity]:
    """The entities that an answer names.

    One whose words are nowhere left in the text gets a place of its own behind the text: it is wrong, and
    counts as named. A line that names nothing is passed over.
    """
    found: list[Entity] = []
    reached, beyond = 0, len(text)
    for line in answer.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        place = _place(match["words"], text, reached, int(match["number"] or 1), found)
        if place is None:
            place = (beyond + 1, beyond + 2)
            beyond += 2
        else:
            reached = place[1]
        found.append(Entity(*place, match["label"]))
    return sorted(found, key=lambda entity: entity.start)


def _place(
    words: str, text: str, reached: int, number: int, taken: Sequence[Entity]
) -> tuple[int, int] | None:
    """Where the words stand: the place of that number from `reached` on, else the first that is free."""
    anywhere = [
        (start, end)
        for start, end in _places(words, text, 0)
        if all(end <= entity.start or entity.end <= start for entity in taken)
    ]
    ahead = [place for place in anywhere if place[0] >= reached]
    if len(ahead) >= number:
        return ahead[number - 1]
    return anywhere[0] if anywhere else None


def _places(words: str, text: str, reached: int) -> list[tuple[int, int]]:
    """Where the words stand from `reached` on: first the places that cut no other word, then the others."""
    blank = r"\s+"
    pattern = re.compile(f"(?=({blank.join(map(re.escape, words.split()))}))")
    found = [match.span(1) for match in pattern.finditer(text, reached)]
    return sorted(found, key=lambda place: (_cuts_a_word(text, *place), place))


def _cuts_a_word(text: str, start: int, end: int) -> bool:
    return (start > 0 and text[start - 1].isalnum() and text[start].isalnum()) or (
        end < len(text) and text[end - 1].isalnum() and text[end].isalnum()
    )
