"""Training rows: what a row may be for a task, and how a data file is read, row by row in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.chatrows import Example, Message, RowError, closest, encodable, parse_chat, quote, type_name
from tuning.datafile import DataError, mixed_formats, read_records

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

TASKS = ("chat", "text-generation", "classification")
FORMATS = ("chat", "prompt/completion", "text/label", "text")
_TOP_KEYS = ("messages", "tools", "prompt", "completion", "text", "label", "category")


@dataclass(frozen=True, slots=True)
class Row:
    """An example and the 1-based line of the file where it starts."""

    line: int
    example: Example


def parse_row(row: object, task: str) -> Example:
    """Turn one decoded JSON row into an example for `task`; raises RowError with the reason it is none."""
    if not isinstance(row, dict):
        raise RowError(f"expected a JSON object, found {type_name(row)}")
    shape = row_format(row)
    accepted = accepted_formats(task)
    if shape not in accepted:
        reason = f"a {shape} row cannot be used for task {task} (accepted: {' or '.join(accepted)})"
        raise RowError(reason, kind="wrong format")
    if shape == "chat":
        return parse_chat(row)
    if shape == "prompt/completion":
        prompt, completion = _text(row, "prompt"), _text(row, "completion")
        return Example((Message("user", prompt), Message("assistant", completion, 1)))
    if shape == "text":
        return Example((), text=_text(row, "text"))
    return classification_example(_text(row, "text"), _label(row))


def read_rows(path: Path, task: str) -> Iterator[Row]:
    """Yield the examples of a data file one by one, in bounded memory.

    JSON Lines with or without a byte-order mark; CSV when the name ends in .csv or a header comes first.
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


def classification_example(text: str, label: str) -> Example:
    """The conversation that teaches a label: the text asks, the label answers."""
    return Example((Message("user", text), Message("assistant", label, 1)), label=label)


def accepted_formats(task: str) -> tuple[str, ...]:
    """The row formats that a task takes; raises ValueError for a task that does not exist."""
    formats = {
        "chat": ("chat", "prompt/completion"),
        "text-generation": ("text", "prompt/completion"),
        "classification": ("text/label",),
    }
    if task not in formats:
        raise ValueError(f"unknown task {task!r} (accepted: {', '.join(TASKS)})")
    return formats[task]


def row_format(row: object) -> str:
    """Name the format of a row by its keys, one of FORMATS; raises RowError when the keys fit none or two."""
    if not isinstance(row, dict):
        raise RowError(f"expected a JSON object, found {type_name(row)}")
    fits = [
        shape
        for shape, is_there in (
            ("chat", "messages" in row),
            ("prompt/completion", "prompt" in row or "completion" in row),
            ("text/label", "label" in row or "category" in row),
            ("text", "text" in row and "label" not in row and "category" not in row),
        )
        if is_there
    ]
    if len(fits) == 1:
        for key in row:
            if key not in _TOP_KEYS and (close := closest(key, _TOP_KEYS)) and close not in row:
                raise RowError(f"unknown key {quote(key)}; did you mean '{close}'?", kind="unknown key")
        return fits[0]
    if fits:
        raise RowError(f"keys of two formats in one row ({' and '.join(fits)})", kind="two formats")
    found = ", ".join(quote(key) for key in list(row)[:5]) or "no keys"
    close_keys = [close for key in row if (close := closest(key, _TOP_KEYS))]
    hint = f"; did you mean '{close_keys[0]}'?" if close_keys else ""
    expected = "'messages', 'prompt' with 'completion', 'text' with 'label', or 'text'"
    raise RowError(f"found {found}, expected {expected}{hint}", kind="unknown key")


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        raise RowError(f"'{key}' is missing", kind="no content")
    if not isinstance(value, str):
        raise RowError(f"'{key}' must be text, found {type_name(value)}")
    if not value.strip():
        raise RowError(f"'{key}' is empty", kind="empty answer" if key == "completion" else "no content")
    return encodable(value, f"'{key}'")


def _label(row: dict[str, Any]) -> str:
    if "label" in row and "category" in row:
        raise RowError("both 'label' and 'category' are there; keep one", kind="two formats")
    key = "label" if "label" in row else "category"
    value = row[key]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and not value.strip():
        raise RowError(f"'{key}' is empty", kind="empty answer")
    return _text(row, key)
