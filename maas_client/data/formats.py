"""Which format and task the rows of a file have, and one line decoded."""

from __future__ import annotations

from pathlib import Path

from maas_client.bundled import tuning_module
from maas_client.errors import DataError, UsageError

FORMATS_HINT = "JSON Lines, CSV, TSV, CoNLL, ABC or text; maas data check --help names the rows of each task."
_ROWS_TO_LOOK_AT = 1000
_TASK_OF = {
    "chat": "chat",
    "prompt/completion": "chat",
    "prompt/chosen/rejected": "chat",
    "input/preferred_output/non_preferred_output": "chat",
    "text/label": "classification",
    "text": "text-generation",
    "tokens/tags": "ner",
    "text/entities": "ner",
    "context/question/answers": "qa",
    "source/target": "translation",
    "document/summary": "summarization",
}
_TASK_OF_KIND = {"abc": "music", "prose": "domain"}


def task_of_file(path: Path, task: str | None) -> str:
    """The task that the first row fits, or `task` when its rows fit that; raises DataError and UsageError."""
    rows, files = tuning_module("rows"), tuning_module("datafile")
    if task is not None and task not in rows.TASKS:
        raise UsageError(f"There is no task {task}.", hint=f"Accepted: {', '.join(rows.TASKS)}.")
    try:
        row_format = first_format(path)
        with files.open_data(path) as stream:
            kind = files.kind_of(path, stream)
    except files.DataError as error:
        raise DataError(error.reason, hint=FORMATS_HINT) from None
    found = task or _TASK_OF_KIND.get(kind) or _TASK_OF.get(row_format, "chat")
    accepted = rows.accepted_formats(found)
    if row_format not in (*accepted, "unknown"):
        raise DataError(
            f"{path.name} has {row_format} rows; task {found} takes {' or '.join(accepted)} rows.",
            hint="Name the task that fits the rows, or convert them.",
        )
    return found


def first_format(path: Path) -> str:
    """The format of the first row that has one, or "unknown". Raises tuning.datafile.DataError."""
    rows, files = tuning_module("rows"), tuning_module("datafile")
    looked_at = 0
    for _, record in files.read_records(path):
        looked_at += 1
        try:
            return str(rows.row_format(record))
        except rows.RowError:
            if looked_at >= _ROWS_TO_LOOK_AT:
                break
    if not looked_at:
        raise files.DataError(f"{path.name} has no rows.")
    return "unknown"


def decoded(data: bytes) -> object:
    """The decoded line, or the RowError that says why it cannot be decoded."""
    files = tuning_module("datafile")
    try:
        return files.decode_row(data)
    except tuning_module("rows").RowError as error:
        return error
