"""Score a base, merged or adapter model on held-out rows with its task's own metrics; nothing is trained.

    python evaluate.py --config config.json --model run/model --data test.jsonl --output scores

--model is a folder or Hugging Face id; for an adapter, --base gives the base model if it is not where the
adapter says. Labels to choose from come from the model's labels.json, else from --train-labels or the data
itself. Pairs of answers are measured against the base model. OUTPUT gets samples.jsonl and at last
result.json, in which `interval` says how sure the task's metric is. Exit codes: 0 done, 1 failed, 2 bad
input, 130 and 143 stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    from tuning.startup import prepare_process

    prepare_process()

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning import distributed, outcome
from tuning.bootstrap import interval
from tuning.config import Config, read_config
from tuning.data import Data, labels_of, load_rows, sha256_of
from tuning.device import choose_precision
from tuning.errors import FailedError, InputError, StoppedError
from tuning.evaluation import HeldOut, Scorer, Scores, hold
from tuning.events import say, write_json
from tuning.failures import explain
from tuning.loss import SupervisedLoss
from tuning.models import (
    DTYPES,
    LABELS,
    base_of_adapter,
    base_of_run,
    hidden_size,
    load_adapter,
    load_model,
    load_tokenizer,
    quantization_of_base,
)
from tuning.objectives import OBJECTIVES
from tuning.preferences import with_margins
from tuning.rows import Row
from tuning.run import autocast_in
from tuning.stopping import StopRequest
from tuning.tasks import TASKS, Task
from tuning.templates import use_template


@dataclass(frozen=True)
class Files:
    """What is scored on what; `model` and `base` may be Hugging Face ids."""

    model: str
    base: str | None
    data: Path
    train_labels: Path | None
    output: Path
    chat_template: Path | None = None


def evaluate(config: Config, files: Files) -> dict[str, Any]:
    """Score a model, write samples.jsonl and result.json, and return the result.

    Raises InputError for files that cannot be used, FailedError when memory or disk do not suffice,
    StoppedError after a stop signal. Call it from the main thread.
    """
    rows = load_rows(files.data, config.task)
    rows = Data([], rows).validation_sample(config.evaluation.max_rows, config.training.seed)
    start = time.perf_counter()
    with StopRequest() as stop:
        try:
            held_out, scores = _score(config, files, rows, stop)
            files.output.mkdir(parents=True, exist_ok=True)
            result = _result(config, files, scores, rows, time.perf_counter() - start)
            outcome.write_samples(files.output / outcome.SAMPLES, held_out, answer=scores.answers)
            write_json(files.output / outcome.RESULT, result)
        except Exception as error:
            if not isinstance(error, InputError) and (sentence := explain(error, files.output)):
                raise FailedError(sentence) from error
            raise
    return result


def _score(
    config: Config, files: Files, rows: Sequence[Row], stop: StopRequest
) -> tuple[list[HeldOut], Scores]:
    """Load the model and measure it."""
    processes = distributed.join(config.distributed)
    named = base_of_adapter(files.model)
    tokenizer = load_tokenizer(files.model)
    width = hidden_size(files.model if named is None else files.base or named)
    precision, _ = choose_precision(config.training.precision, processes.device, width)
    if files.chat_template is not None:
        use_template(tokenizer, files.chat_template)
    held_out = hold(rows, files.data, tokenizer, config)

    def scorer_of(model: Any) -> Scorer:
        return Scorer(
            config=config,
            loss=SupervisedLoss(model.to(processes.device).eval()),
            tokenizer=tokenizer,
            processes=processes,
            labels=_labels(files, config.task, rows),
            autocast=lambda: autocast_in(precision, processes.device),
            check=lambda: stop.raise_if_asked(0),
        )

    model = None
    if named is not None or _are_pairs(rows):  # on a base in the number format that was trained on
        base = files.base or named or base_of_run(files.model)
        packed = quantization_of_base(Path(files.model))
        model = load_model(base, DTYPES[precision], packed, processes.device)
        if _are_pairs(rows):
            held_out = with_margins(scorer_of(model), held_out)
    if named is not None:
        model = load_adapter(model, Path(files.model))
    else:
        model = load_model(files.model, DTYPES[precision])
    return held_out, _task(config, rows).score(scorer_of(model), held_out)


def _are_pairs(rows: Sequence[Row]) -> bool:
    return bool(rows[0].example.rejected)


def _task(config: Config, rows: Sequence[Row]) -> Task:
    """The task as it is measured on rows of this kind."""
    return OBJECTIVES["dpo" if _are_pairs(rows) else "sft"].measured(TASKS[config.task])


def _labels(files: Files, task: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels that the model may answer: those it learned, if it is known which."""
    if files.train_labels is not None:
        return labels_of([*load_rows(files.train_labels, task), *rows])
    return _learned_labels(files) or labels_of(rows)


def _learned_labels(files: Files) -> tuple[str, ...]:
    """The labels that the model's folder says it learned; none where it says nothing."""
    learned = Path(files.model) / LABELS
    if not learned.is_file():
        return ()
    try:
        return tuple(str(label) for label in json.loads(learned.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{learned} is not a list of labels: {error}.") from error


def _unseen_labels(files: Files, rows: Sequence[Row]) -> list[str]:
    """The labels of the rows that the model never learned, where it is known what it learned."""
    learned = _learned_labels(files)
    return sorted(set(labels_of(rows)) - set(learned)) if learned else []


def _result(
    config: Config, files: Files, scores: Scores, rows: Sequence[Row], seconds: float
) -> dict[str, Any]:
    task = _task(config, rows)
    unseen = _unseen_labels(files, rows)
    return {
        "task": config.task,
        "model": files.model,
        "metric": task.metric,
        "direction": task.direction,
        "metrics": scores.metrics,
        "interval": interval(task, scores, config.training.seed),
        "by_label": scores.by_label,
        "warnings": [f"Labels that the model never learned: {', '.join(unseen)}."] if unseen else [],
        "rows": len(rows),
        "samples": outcome.SAMPLES,
        "seconds": round(seconds, 3),
        "hashes": {"data": sha256_of(files.data)},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and score; returns the exit code."""
    parser = argparse.ArgumentParser(description="Score a model on held-out rows.", allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True, help="JSON file: task, evaluation, ...")
    parser.add_argument("--model", required=True, help="model or adapter folder, or Hugging Face id")
    parser.add_argument("--base", help="base model of an adapter, if it is not where the adapter says")
    parser.add_argument("--data", type=Path, required=True, help="rows to score on")
    parser.add_argument("--train-labels", type=Path, help="training rows, for the labels to choose from")
    parser.add_argument("--chat-template", type=Path, help="Jinja file to use as the chat template")
    parser.add_argument("--output", type=Path, required=True, help="folder for result.json and samples.jsonl")
    given = parser.parse_args(argv)
    try:
        files = Files(
            given.model, given.base, given.data, given.train_labels, given.output, given.chat_template
        )
        result = evaluate(read_config(given.config), files)
    except (InputError, FailedError, StoppedError) as error:
        say(f"error: {error}")
        return error.exit_code
    for warning in result["warnings"]:
        say(f"warning: {warning}")
    say(f"{result['metric']} {result['metrics'][result['metric']]:.4f} on {result['rows']} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
