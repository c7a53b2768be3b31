"""The fast way through good rows: whole blocks decoded into typed structs, in C.

It accepts only rows that are plainly valid; everything else (tools, weights of 0, unknown keys, any fault)
is left to `tuning.rows.parse_row`, the one place that decides what a row may be and says why it is not one.
What is accepted here is accepted there; a property test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, compress
from operator import attrgetter, not_
from typing import Annotated, Any, Literal

import msgspec

from maas_client.bundled import tuning_module
from maas_client.data.duplicates import BETWEEN_TURNS
from maas_client.data.tokens import MESSAGE_BYTES, text_bytes

_TURN_BYTES = MESSAGE_BYTES - 1  # what a turn adds to its text when the byte between two turns is counted


class _System(msgspec.Struct, tag_field="role", tag="system", gc=False, forbid_unknown_fields=True):
    content: str


class _User(msgspec.Struct, tag_field="role", tag="user", gc=False, forbid_unknown_fields=True):
    content: str


class _Assistant(msgspec.Struct, tag_field="role", tag="assistant", gc=False, forbid_unknown_fields=True):
    content: Annotated[str, msgspec.Meta(min_length=1)]
    weight: Literal[1] = 1


_Turn = _System | _User | _Assistant
_ROLES: dict[type, str] = {_System: "system", _User: "user", _Assistant: "assistant"}


class _Chat(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: Annotated[list[_Turn], msgspec.Meta(min_length=2)]


class _Prompt(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    completion: Annotated[str, msgspec.Meta(min_length=1)]


class _Label(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1)]
    label: Annotated[str, msgspec.Meta(min_length=1)]


class _Text(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1)]


class _Translation(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    source: Annotated[str, msgspec.Meta(min_length=1)]
    target: Annotated[str, msgspec.Meta(min_length=1)]


class _Summary(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    document: Annotated[str, msgspec.Meta(min_length=1)]
    summary: Annotated[str, msgspec.Meta(min_length=1)]


class _Question(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    context: Annotated[str, msgspec.Meta(min_length=1)]
    question: Annotated[str, msgspec.Meta(min_length=1)]
    answers: Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of a block: sizes in estimated bytes, keys of equal rows, turns by role.

    A size of -1 says that the row is not plainly valid; its key then means nothing.
    """

    sizes: list[int]
    keys: list[int]
    roles: Counter[str]


class FastReader:
    """Reads blocks of JSON Lines of one row format, for one task."""

    def __init__(self, row_format: str, task: str) -> None:
        row_type, measure = _READERS[row_format]
        prompts = tuning_module("prompts")
        self._prompt = Prompt(task, prompts.ask, prompts.ask_about)
        self._measure = measure
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(row_type)

    def read(self, block: bytes, lines: int) -> Block | None:
        """Read a block of whole lines, `lines` of them; None when one is not plainly JSON of the format."""
        try:
            rows = self._decoder.decode_lines(block)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return self._measure(rows, self._prompt) if len(rows) == lines else None


@dataclass(frozen=True, slots=True)
class Prompt:
    """How the task asks: `ask(task, text)`, or `ask_about(context, question)`."""

    task: str
    ask: Callable[[str, str], str]
    ask_about: Callable[[str, str], str]


def _measure_chats(rows: list[_Chat], _prompt: Prompt) -> Block:
    talks = [row.messages for row in rows]
    texts = [[turn.content for turn in talk] for talk in talks]
    joined = list(map(BETWEEN_TURNS.join, texts))
    lengths = list(map(len, joined))
    for place in compress(range(len(joined)), map(not_, map(str.isascii, joined))):
        lengths[place] = len(joined[place].encode())
    sizes = [length + _TURN_BYTES * len(talk) + 1 for length, talk in zip(lengths, talks, strict=True)]
    keys = list(map(hash, joined))
    firsts, lasts = [type(talk[0]) for talk in talks], [type(talk[-1]) for talk in talks]
    plain = _Assistant not in firsts and lasts.count(_Assistant) == len(lasts)
    if not plain or any(map(str.isspace, chain.from_iterable(texts))):
        return Block(sizes, keys, _look_at_each(talks, sizes))
    kinds = list(map(type, chain.from_iterable(talks)))
    return Block(sizes, keys, Counter({name: kinds.count(kind) for kind, name in _ROLES.items()}))


def _look_at_each(talks: list[list[_Turn]], sizes: list[int]) -> Counter[str]:
    """Set the sizes of conversations that are not plainly valid to -1; the turns by role of the others."""
    roles: Counter[str] = Counter()
    for place, talk in enumerate(talks):
        kinds = list(map(type, talk))
        blank = any(type(turn) is _Assistant and turn.content.isspace() for turn in talk)
        if blank or kinds[0] is _Assistant or _Assistant not in kinds:
            sizes[place] = -1
        else:
            roles.update(map(_ROLES.__getitem__, kinds))
    return roles


def _pairs_of(question: str, answer: str) -> Callable[[list[Any], Prompt], Block]:
    """The measure of rows with a text to ask with and a text to answer."""
    asked, answered = attrgetter(question), attrgetter(answer)

    def measure(rows: list[Any], prompt: Prompt) -> Block:
        texts = list(map(asked, rows))
        blank = [text.isspace() for text in texts]
        return _measure_pairs([prompt.ask(prompt.task, text) for text in texts], map(answered, rows), blank)

    return measure


def _measure_questions(rows: list[_Question], prompt: Prompt) -> Block:
    blank = [
        row.context.isspace() or row.question.isspace() or any(map(str.isspace, row.answers)) for row in rows
    ]
    asked = [prompt.ask_about(row.context, row.question) for row in rows]
    return _measure_pairs(asked, [row.answers[0] for row in rows], blank)


def _measure_pairs(asked: list[str], answers: Iterable[str], blank: list[bool]) -> Block:
    """Rows of two turns; `blank` says of each whether its question has nothing but blanks."""
    pairs = list(zip(asked, answers, strict=True))
    joined = list(map(BETWEEN_TURNS.join, pairs))
    sizes = [
        -1 if is_blank or answer.isspace() else text_bytes(text) + 2 * _TURN_BYTES + 1
        for is_blank, (_, answer), text in zip(blank, pairs, joined, strict=True)
    ]
    good = len(sizes) - sizes.count(-1)
    return Block(sizes, list(map(hash, joined)), Counter({"user": good, "assistant": good}))


def _measure_texts(rows: list[_Text], _prompt: Prompt) -> Block:
    texts = [row.text for row in rows]
    sizes = [-1 if text.isspace() else text_bytes(text) + MESSAGE_BYTES for text in texts]
    return Block(sizes, list(map(hash, texts)), Counter())


_READERS: dict[str, tuple[type[msgspec.Struct], Callable[[list[Any], Prompt], Block]]] = {
    "chat": (_Chat, _measure_chats),
    "prompt/completion": (_Prompt, _pairs_of("prompt", "completion")),
    "text/label": (_Label, _pairs_of("text", "label")),
    "text": (_Text, _measure_texts),
    "source/target": (_Translation, _pairs_of("source", "target")),
    "document/summary": (_Summary, _pairs_of("document", "summary")),
    "context/question/answers": (_Question, _measure_questions),
}

FORMATS = frozenset(_READERS)
