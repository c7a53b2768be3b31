"""Training rows: what a row may be for a task, and how a data file is read, row by row in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning import tasks
from tuning.chatrows import Example, Message, RowError, closest, parse_chat, quote, type_name
from tuning.datafile import DataError, mixed_formats, read_records
from tuning.preferencerows import chosen_row, preferred_row
from tuning.taskrows import entities_row, label_row, pair_row, question_row, tags_row, text_row

__all__ = [
    "FORMATS",
    "TASKS",
    "DataError",
    "Example",
    "Message",
    "Row",
    "RowError",
    "accepted_formats",
    "parse_row",
    "read_rows",
    "row_format",
]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of row: the keys that make it (several words for one key stand together), and its reader.

    A row with `sign` is of this format even where the other keys are missing, which its reader then says.
    """

    keys: tuple[str, ...]
    read: Callable[[dict[str, Any], str], Example]
    sign: tuple[str, ...] = ()

    def is_whole(self, row: dict[str, Any]) -> bool:
        """Whether the row has all of the keys."""
        return all(any(word in row for word in key.split("|")) for key in self.keys)

    def is_meant(self, row: dict[str, Any]) -> bool:
        """Whether the row has a key that no other format has."""
        return any(word in row for word in self.sign)


FORMATS = {
    "chat": Format(("messages",), lambda row, _task: parse_chat(row), ("messages",)),
    "prompt/chosen/rejected": Format(("chosen", "rejected"), chosen_row, ("chosen", "rejected")),
    "input/preferred_output/non_preferred_output": Format(
        ("input", "preferred_output", "non_preferred_output"),
        preferred_row,
        ("preferred_output", "non_preferred_output"),
    ),
    "prompt/completion": Format(
        ("prompt", "completion"), pair_row("prompt", "completion"), ("prompt", "completion")
    ),
    "text/label": Format(("text", "label|category"), label_row, ("label", "category")),
    "source/target": Format(("source", "target"), pair_row("source", "target")),
    "context/question/answers": Format(("context", "question", "answers|answer"), question_row),
    "document/summary": Format(("document", "summary"), pair_row("document", "summary")),
    "tokens/tags": Format(("tokens", "tags"), tags_row),
    "text/entities": Format(("text", "entities"), entities_row),
    "text": Format(("text",), text_row),
}
TASKS = tuple(tasks.TASKS)
_WORDS = {name: tuple("|".join(shape.keys).split("|")) for name, shape in FORMATS.items()}
_TOP_KEYS = (*dict.fromkeys(word for words in _WORDS.values() for word in words), "tools")
# Keys that may be misspelled in a row of a format: its own, and those that would make it another one.
_NEAR = {
    **_WORDS,
    "chat": ("messages", "tools"),
    "prompt/chosen/rejected": ("prompt", "chosen", "rejected", "tools"),
    "text": ("text", "label", "category", "entities"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """An example and the 1-based line of the file where it starts."""

    line: int
    example: Example


def parse_row(row: object, task: str) -> Example:
    """Turn one decoded row into an example for `task`; raises RowError with the reason it is none."""
    shape = row_format(row)
    assert isinstance(row, dict)  # noqa: S101 - what has a format is one
    if shape not in accepted_formats(task):
        accepted = " or ".join(tasks.TASKS[task].formats)
        reason = f"a {shape} row cannot be used for task {task} (accepted: {accepted})"
        raise RowError(reason, kind="wrong format")
    return FORMATS[shape].read(row, task)


def read_rows(path: Path, task: str) -> Iterator[Row]:
    """Yield the examples of a data file one by one, in bounded memory; `datafile.kind_of` says its kind.

    Raises RowError at the first bad row and DataError when the file as a whole cannot be used.
    """
    seen: str | None = None
    for line, record in read_records(path):
        if isinstance(record, RowError):
            raise record
        try:
            shape = row_format(record)
            if seen is not None and shape != seen:
                raise DataError(f"Line {line}: {mixed_formats(shape, seen)}.")
            example = parse_row(record, task)
        except RowError as error:
            raise RowError(error.reason, line, error.kind) from None
        seen = shape
        yield Row(line, example)
    if seen is None:
        raise DataError(f"{path.name} has no rows.")


def accepted_formats(task: str) -> tuple[str, ...]:
    """The row formats that a task takes; raises ValueError for a task that does not exist."""
    if task not in tasks.TASKS:
        raise ValueError(f"unknown task {task!r} (accepted: {', '.join(TASKS)})")
    return tasks.TASKS[task].formats + tasks.TASKS[task].pairs


def row_format(row: object) -> str:
    """Name the format of a row by its keys, one of FORMATS; raises RowError when the keys fit none or two."""
    if not isinstance(row, dict):
        raise RowError(f"expected a JSON object, found {type_name(row)}")
    fits = [name for name, shape in FORMATS.items() if shape.is_whole(row) or shape.is_meant(row)]
    if "text" in fits and {"text/label", "text/entities"}.intersection(fits):
        fits.remove("text")  # a text with a label or entities is no plain text
    if "prompt/completion" in fits and "prompt/chosen/rejected" in fits and "completion" not in row:
        fits.remove("prompt/completion")  # both have a prompt
    if not fits:
        fits = [name for name in FORMATS if any(word in row for word in _WORDS[name])][:1]
    if len(fits) == 1:
        near = _NEAR[fits[0]]
        for key in row:
            if key not in _TOP_KEYS and (close := closest(key, near)) and close not in row:
                raise RowError(f"unknown key {quote(key)}; did you mean '{close}'?", kind="unknown key")
        return fits[0]
    if fits:
        raise RowError(f"keys of two formats in one row ({' and '.join(fits)})", kind="two formats")
    raise _unknown_keys(row)


def _unknown_keys(row: dict[str, Any]) -> RowError:
    found = ", ".join(quote(key) for key in list(row)[:5]) or "no keys"
    close_keys = [close for key in row if (close := closest(key, _TOP_KEYS))]
    hint = f"; did you mean '{close_keys[0]}'?" if close_keys else ""
    shapes = [" with ".join(f"'{key.partition('|')[0]}'" for key in shape.keys) for shape in FORMATS.values()]
    return RowError(f"found {found}, expected {', '.join(shapes)}{hint}", kind="unknown key")
