"""The fast way through good rows: whole blocks decoded into typed structs, in C.

It accepts only rows that are plainly valid; everything else (tools, weights of 0, unknown keys, any fault)
is left to `tuning.rows.parse_row`, the one place that decides what a row may be and says why it is not one.
What is accepted here is accepted there; a property test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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


class _Chat(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: Annotated[list[_System | _User | _Assistant], msgspec.Meta(min_length=2)]


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
    shapes = [tuple(map(type, row.messages)) for row in rows]
    texts = ["".join([message.content for message in row.messages]) for row in rows]
    sizes = [text_bytes(text) + MESSAGE_BYTES * len(shape) for text, shape in zip(texts, shapes, strict=True)]
    counts = Counter(shapes)
    bad = {shape for shape in counts if shape[0] is _Assistant or _Assistant not in shape}
    if any([message.content.isspace() for row in rows for message in row.messages]):  # noqa: C419 - half the time
        return _without_blank_answers(rows, shapes, sizes)
    if bad:
        sizes = [-1 if shape in bad else size for size, shape in zip(sizes, shapes, strict=True)]
        for shape in bad:
            del counts[shape]
    return Block(sizes, _roles(counts))


def _without_blank_answers(rows: list[_Chat], shapes: list[tuple[type, ...]], sizes: list[int]) -> Block:
    """The same, row by row, for a block with text that is only spaces."""
    counts: Counter[tuple[type, ...]] = Counter()
    for place, (row, shape) in enumerate(zip(rows, shapes, strict=True)):
        blank = any(type(turn) is _Assistant and turn.content.isspace() for turn in row.messages)
        if blank or shape[0] is _Assistant or _Assistant not in shape:
            sizes[place] = -1
        else:
            counts[shape] += 1
    return Block(sizes, _roles(counts))


def _roles(shapes: Counter[tuple[type, ...]]) -> Counter[str]:
    roles: Counter[str] = Counter()
    for shape, count in shapes.items():
        for turn in shape:
            roles[str(turn.__struct_config__.tag)] += count  # type: ignore[attr-defined]
    return roles


def _measure_pairs(pairs: list[tuple[str, str]]) -> Block:
    sizes = [
        -1 if asked.isspace() or answer.isspace() else text_bytes(asked + answer) + 2 * MESSAGE_BYTES
        for asked, answer in pairs
    ]
    good = len(sizes) - sizes.count(-1)
    return Block(sizes, Counter({"user": good, "assistant": good}))


def _measure_texts(rows: list[_Text]) -> Block:
    return Block(
        [-1 if row.text.isspace() else text_bytes(row.text) + MESSAGE_BYTES for row in rows], Counter()
    )


_READERS: dict[str, tuple[type[msgspec.Struct], Callable[[list[Any]], Block]]] = {
    "chat": (_Chat, _measure_chats),
    "prompt/completion": (
        _Prompt,
        lambda rows: _measure_pairs([(row.prompt, row.completion) for row in rows]),
    ),
    "text/label": (_Label, lambda rows: _measure_pairs([(row.text, row.label) for row in rows])),
    "text": (_Text, _measure_texts),
}
