"""Rows of a data file as the two formats that services take: chat messages, or prompt and completion.

Rows are read as training reads them, one at a time, and written as JSON Lines in UTF-8 without a byte-order
mark: JSON forbids one (RFC 8259), and every reader of JSON Lines takes a file without.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from maas_client.bundled import tuning_module
from maas_client.errors import DataError

if TYPE_CHECKING:
    from tuning.chatrows import Example, Message
    from tuning.rows import Row

Shape = Literal["messages", "prompt/completion", "preference"]
CONVERSION = 1
"""Goes up when the same row is written in another way, so that a run is never taken for an older one."""


@dataclass(frozen=True)
class Written:
    """A file that was written: its rows, size and SHA-256 (hex)."""

    path: Path
    rows: int
    size_bytes: int
    sha256: str


def convert_file(
    source: Path,
    task: str,
    shape: Shape,
    into: Path,
    *,
    held_out: Path | None = None,
    share: float = 0,
    seed: int = 0,
) -> tuple[Written, Written | None]:
    """Write the rows of a file in a service's format; the folder must exist. Memory does not grow with it.

    With `held_out`, a share of the rows goes there instead: the same rows that the bundled training script
    holds out for that seed. Raises DataError for a row that cannot be used, by its line.
    """
    chosen = frozenset[int]()
    if held_out is not None:
        chosen = held_out_places(sum(1 for _ in _rows(source, task)), share, seed)
    with ExitStack() as files:
        main = files.enter_context(RowWriter(into))
        other = files.enter_context(RowWriter(held_out)) if held_out is not None else None
        for place, row in enumerate(_rows(source, task)):
            writer = other if other is not None and place in chosen else main
            writer.write(converted(row.example, shape, source.name, row.line))
    if not main.rows:
        raise DataError(
            f"No rows are left to train on in {source}.", hint="Give more rows or a smaller validation.split."
        )
    return main.written(), other.written() if other else None


def held_out_places(rows: int, share: float, seed: int) -> frozenset[int]:
    """Which of so many rows (from 0) are held out: at least one, drawn by the seed as the script draws."""
    count = max(1, round(share * rows))
    return frozenset(random.Random(f"{seed} split").sample(range(rows), min(count, rows)))


def plain_text_line(source: Path, task: str) -> int | None:
    """The line of the file's first row where that is plain text, which no service's format holds; else None.

    Raises DataError where the first row cannot be used.
    """
    first = next(_rows(source, task), None)
    return first.line if first is not None and first.example.text is not None else None


def converted(example: Example, shape: Shape, name: str, line: int) -> Mapping[str, Any]:
    """One row in a service's format. Raises DataError for one that the format cannot hold."""
    if example.text is not None:
        raise DataError(f"{name}, line {line}: plain text has no prompt.", hint=PLAIN_TEXT_HINT)
    tools = {"tools": list(example.tools)} if example.tools else {}
    if shape == "preference":
        return _preference(example, tools)
    if example.rejected:
        raise DataError(
            f"{name}, line {line}: a pair of answers cannot be written as one.",
            hint="Learn from pairs with training.objective: dpo.",
        )
    if shape == "messages":
        return {"messages": [_message(turn) for turn in example.messages], **tools}
    roles = [turn.role for turn in example.messages]
    if roles != ["user", "assistant"]:
        raise DataError(
            f"{name}, line {line}: one prompt with one completion is expected.", hint=PLAIN_TEXT_HINT
        )
    prompt, completion = example.messages
    return {"prompt": prompt.content, "completion": completion.content}


def _preference(example: Example, tools: Mapping[str, Any]) -> Mapping[str, Any]:
    """A pair of answers in Foundry's own form."""
    shared = [one for one, other in zip(example.messages, example.rejected, strict=False) if one == other]
    asked = list(takewhile(lambda turn: not turn.weight, shared))
    return {
        "input": {"messages": [_message(replace(turn, weight=1)) for turn in asked], **tools},
        "preferred_output": [_message(turn) for turn in example.messages[len(asked) :]],
        "non_preferred_output": [_message(turn) for turn in example.rejected[len(asked) :]],
    }


PLAIN_TEXT_HINT = 'Write rows as {"prompt": ..., "completion": ...}, or train with backend azureml or local.'


def _message(turn: Message) -> dict[str, Any]:
    """A message with only what it says: a weight where an answer is not to be learned, calls as text."""
    written: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.role == "assistant" and not turn.weight:
        written["weight"] = 0
    if turn.tool_calls:
        written["tool_calls"] = [_call(call) for call in turn.tool_calls]
    optional = {"tool_call_id": turn.tool_call_id, "name": turn.name}
    return written | {key: value for key, value in optional.items() if value is not None}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call whose arguments are JSON in a string, as chat services write them."""
    function = dict(call["function"])
    arguments = function.get("arguments", {})
    if not isinstance(arguments, str):
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": function}


def _rows(source: Path, task: str) -> Iterator[Row]:
    """The rows, as training reads them. Raises DataError."""
    rows = tuning_module("rows")
    try:
        yield from rows.read_rows(source, task)
    except (rows.RowError, rows.DataError) as error:
        hint = f"Look at every row: maas data check {source} --task {task}"
        raise DataError(f"{source.name}: {str(error).rstrip('.')}.", hint=hint) from None


class RowWriter:
    """Writes rows to a new file, which appears under its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self.rows = 0

    def __enter__(self) -> RowWriter:
        self._file: BinaryIO = self._draft.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._draft.replace(self._path)
        else:
            self._draft.unlink(missing_ok=True)

    def write(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._file.write(line)
        self._digest.update(line)
        self._size_bytes += len(line)
        self.rows += 1

    def written(self) -> Written:
        return Written(self._path, self.rows, self._size_bytes, self._digest.hexdigest())
