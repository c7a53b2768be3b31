"""Rows with a better and a worse answer: which files have them, and how Azure AI Foundry takes them.

Foundry's own, {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}, go to
it as they are; others are written as such.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.bundled import tuning_module
from maas_client.data.convert import held_out_places
from maas_client.data.formats import first_format
from maas_client.errors import DataError

if TYPE_CHECKING:
    from maas_client.data.convert import Written

KEYS = ("input", "preferred_output", "non_preferred_output")
_LONGEST = 16 * 1024 * 1024


def has_pairs(path: Path) -> bool:
    """Whether the first row of a file is a pair of answers, in any form; False where that cannot be told."""
    try:
        return first_format(path) in tuning_module("tasks").PREFERENCES
    except tuning_module("datafile").DataError:
        return False


def require_objective(path: Path, objective: str) -> None:
    """Raise DataError unless the rows of a file are of the kind that the objective learns from."""
    are_pairs = has_pairs(path)
    if are_pairs and objective == "sft":
        raise DataError(
            f"{path} has pairs of a better and a worse answer, and training.objective is sft.",
            hint="Set training.objective: dpo to learn from them.",
        )
    if objective == "dpo" and not are_pairs:
        raise DataError(
            f"training.objective is dpo, and {path} has no pairs of a better and a worse answer.",
            hint='Write rows as {"prompt": ..., "chosen": ..., "rejected": ...} (docs/training.md).',
        )


def is_preference_file(path: Path) -> bool:
    """Whether the first row of a file is a pair in Foundry's own form; False where that cannot be told."""
    try:
        with path.open("rb") as file:
            lines = (
                line.removeprefix(codecs.BOM_UTF8) for line in iter(lambda: file.readline(_LONGEST), b"")
            )
            first = json.loads(next((line for line in lines if line.strip()), b"null"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and any(key in first for key in KEYS[1:])


def goes_as_it_is(path: Path, method: str) -> bool:
    """Whether the rows of a file are sent byte for byte: pairs in Foundry's own form."""
    return method == "dpo" and is_preference_file(path)


def problems_of(path: Path, *, most: int = 20) -> tuple[int, tuple[str, ...]]:
    """How many rows the file has, and what is wrong with the first `most` bad ones, by line."""
    rows, found = 0, list[str]()
    for line, record in _records(path):
        rows += 1
        if len(found) < most and (reason := _reason(record)):
            found.append(f"{path.name}:{line}: {reason}")
    return rows, tuple(found)


def hold_out_lines(
    source: Path, into: Path, held_out: Path, *, share: float, seed: int
) -> tuple[Written, Written]:
    """Copy a file line by line, byte for byte, and a share of its rows to another file, drawn by the seed."""
    from maas_client.data.convert import Written

    count = sum(1 for _ in _lines(source))
    chosen = held_out_places(count, share, seed)
    digests = {path: hashlib.sha256() for path in (into, held_out)}
    counts, sizes = dict.fromkeys(digests, 0), dict.fromkeys(digests, 0)
    with into.open("wb") as main, held_out.open("wb") as other:
        for place, line in enumerate(_lines(source)):
            path, file = (held_out, other) if place in chosen else (into, main)
            file.write(line)
            digests[path].update(line)
            counts[path] += 1
            sizes[path] += len(line)
    made = [Written(path, counts[path], sizes[path], digests[path].hexdigest()) for path in (into, held_out)]
    return made[0], made[1]


def _lines(path: Path) -> Iterator[bytes]:
    """The lines that are not blank, each with its end; a byte-order mark is left out."""
    with tuning_module("datafile").open_data(path) as stream:
        for line in stream:
            if line.strip():
                yield line if line.endswith(b"\n") else line + b"\n"


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    files = tuning_module("datafile")
    try:
        yield from files.read_records(path)
    except files.DataError as error:
        raise DataError(error.reason) from None


def _reason(record: Any) -> str:
    """Why a record is no preference row, "" where it is one."""
    if not isinstance(record, dict):
        return str(getattr(record, "reason", "expected a JSON object"))
    if missing := [key for key in KEYS if key not in record]:
        return f"'{missing[0]}' is missing; a preference row has {', '.join(KEYS)}"
    messages = record["input"].get("messages") if isinstance(record["input"], dict) else None
    if not isinstance(messages, list) or not messages:
        return "'input' must hold 'messages' with at least one message"
    for key in KEYS[1:]:
        answer = record[key]
        if not isinstance(answer, list) or not answer:
            return f"'{key}' must be a list of messages"
        if not all(isinstance(turn, dict) and turn.get("role") in {"assistant", "tool"} for turn in answer):
            return f"'{key}' must hold messages of the assistant"
    return ""
