"""The fast way through good rows: whole blocks decoded into typed structs, in C.

It accepts only rows that are plainly valid; everything else (tools, weights of 0, unknown keys, any fault)
is left to `tuning.rows.parse_row`, the one place that decides what a row may be and says why it is not one.
What is accepted here is accepted there; a property test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import sub
from typing import Annotated, Any, Literal

import msgspec

from maas_client.data.tokens import MESSAGE_BYTES, text_bytes


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


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of a block: their sizes in estimated bytes (-1: not plainly valid) and turns by role."""

    sizes: list[int]
    roles: Counter[str]


class FastReader:
    """Reads blocks of JSON Lines of one row format."""

    def __init__(self, row_format: str) -> None:
        row_type, self._measure = _READERS[row_format]
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(row_type)

    def read(self, block: bytes, lines: int) -> Block | None:
        """Read a block of whole lines, `lines` of them; None when one is not plainly JSON of the format."""
        try:
            rows = self._decoder.decode_lines(block)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return self._measure(rows) if len(rows) == lines else None


def _measure_chats(rows: list[_Chat]) -> Block:
    talks = [row.messages for row in rows]
    turns = list(chain.from_iterable(talks))
    texts = [turn.content for turn in turns]
    kinds = list(map(type, turns))
    ascii_only = "".join(texts).isascii()
    lengths = map(len, texts) if ascii_only else map(len, map(str.encode, texts))
    reached = list(accumulate(lengths, initial=0))
    ends = list(accumulate(map(len, talks), initial=0))
    places = [reached[end] + MESSAGE_BYTES * end for end in ends]
    sizes = list(map(sub, places[1:], places))
    answered = len(rows) == [kinds[end - 1] for end in ends[1:]].count(_Assistant)
    asked = _Assistant not in [kinds[start] for start in ends[:-1]]
    if not (answered and asked) or any(map(str.isspace, texts)):
        return _one_by_one(talks, sizes)
    return Block(sizes, Counter({name: kinds.count(kind) for kind, name in _ROLES.items()}))


def _one_by_one(talks: list[list[_Turn]], sizes: list[int]) -> Block:
    """The same for a block with a conversation that is not plainly valid."""
    roles: Counter[str] = Counter()
    for place, talk in enumerate(talks):
        kinds = list(map(type, talk))
        blank = any(type(turn) is _Assistant and turn.content.isspace() for turn in talk)
        if blank or kinds[0] is _Assistant or _Assistant not in kinds:
            sizes[place] = -1
        else:
            roles.update(map(_ROLES.__getitem__, kinds))
    return Block(sizes, roles)


def _measure_pairs(pairs: list[tuple[str, str]]) -> Block:
    sizes = [
        -1 if asked.isspace() or answer.isspace() else text_bytes(asked + answer) + 2 * MESSAGE_BYTES
        for asked, answer in pairs
    ]
    good = len(sizes) - sizes.count(-1)
    return Block(sizes, Counter({"user": good, "assistant": good}))


def _measure_texts(rows: list[_Text]) -> Block:
    sizes = [-1 if row.text.isspace() else text_bytes(row.text) + MESSAGE_BYTES for row in rows]
    return Block(sizes, Counter())


_READERS: dict[str, tuple[type[msgspec.Struct], Callable[[list[Any]], Block]]] = {
    "chat": (_Chat, _measure_chats),
    "prompt/completion": (
        _Prompt,
        lambda rows: _measure_pairs([(row.prompt, row.completion) for row in rows]),
    ),
    "text/label": (_Label, lambda rows: _measure_pairs([(row.text, row.label) for row in rows])),
    "text": (_Text, _measure_texts),
}
