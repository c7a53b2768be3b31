"""A question for a new endpoint: the first held-out row, from the run's samples or from the job's data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maas_client.run import Artifact
    from maas_client.spec import JobSpec


def first_sample(artifact: Artifact) -> Mapping[str, Any] | None:
    """The first held-out row that the run kept with its answers before and after, if it kept any."""
    path = artifact.folder / "samples.jsonl"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return dict(json.loads(line)) if line.strip() else None


def held_out_question(spec: JobSpec) -> Mapping[str, Any] | None:
    """The first held-out row of a job as `prompt`, `expected` and the `messages` to ask.

    None where there is nothing to ask: the data is not here any more, or is text without questions.
    """
    from maas_client.bundled import tuning_module

    try:
        return next(filter(None, map(_question, _held_out(spec))), None)
    except (tuning_module("errors").InputError, OSError):
        return None


def _held_out(spec: JobSpec) -> Iterator[Any]:
    """The rows of the validation file, else those of the training file that are held out of it."""
    from maas_client.bundled import tuning_module
    from maas_client.data.convert import held_out_places

    rows = tuning_module("rows")
    validation, task = spec.data.validation, spec.task.value
    if validation.file is not None:
        source, chosen = validation.file, None
    else:
        source = spec.data.train
        count = sum(1 for _ in rows.read_rows(source, task))
        chosen = held_out_places(count, validation.split, spec.training.seed)
    for place, row in enumerate(rows.read_rows(source, task)):
        if chosen is None or place in chosen:
            yield row


def _question(row: Any) -> Mapping[str, Any] | None:
    """A row whose last turn is an answer to something, as a question; None for others."""
    turns = row.example.messages
    if row.example.text is not None or len(turns) < 2 or turns[-1].role != "assistant":
        return None
    if not all(isinstance(turn.content, str) for turn in turns):
        return None
    asked = [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
    return {"prompt": turns[-2].content, "expected": turns[-1].content, "messages": asked}
