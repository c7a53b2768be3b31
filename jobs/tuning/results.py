"""What a finished run leaves: the model, the samples, and at last the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tuning import outcome
from tuning.bootstrap import summary
from tuning.capsule import CAPSULE, capsule_of
from tuning.card import CARD, license_of, model_card, name_of, use_by_python
from tuning.evaluation import Scores
from tuning.events import write_json, write_text
from tuning.methods import METHODS, quantization_of
from tuning.models import save_model
from tuning.prompts import Manner, write_manner
from tuning.run import Run


def save_result(run: Run, before: Scores, after: Scores, weights: Mapping[str, torch.Tensor] | None) -> None:
    """Write model, samples, capsule and at last result.json, whose presence means success. Raises OSError.

    `weights` are the model's state where the model itself holds only a part of it.
    """
    output, sources = run.files.output, outcome.hashes_of(run.files.sources)
    result = {**describe_result(run, before, after), "hashes": sources}
    model_hashes = outcome.fill_folder_atomically(
        output / outcome.MODEL, lambda folder: _fill(folder, run, weights, result)
    )
    outcome.write_samples(output / outcome.SAMPLES, run.held_out, before=before.answers, after=after.answers)
    write_json(output / CAPSULE, capsule_of(run))
    result["hashes"] = {**sources, "model": model_hashes}
    run.events.write("finished", steps=run.progress.step, metrics=after.metrics)
    write_json(output / outcome.RESULT, result)


def describe_result(run: Run, before: Scores, after: Scores) -> dict[str, Any]:
    """What result.json says, but for the hashes."""
    config, progress = run.config, run.progress
    method = METHODS[config.method.name]
    parameters, trainable = run.sizes
    return {
        "task": config.task,
        "method": config.method.name,
        "objective": config.training.objective,
        "base_model": run.files.model,
        "base_license": license_of(run.files.model),
        "adapter": method.is_adapter,
        "mergeable": method.is_adapter and method.is_mergeable,
        "quantization": quantization_of(config.method),
        **summary(run.task, before, after, config.training.seed),
        "rows": run.data.count_rows(len(run.held_out)),
        "warnings": run.warnings,
        "contamination": run.data.contamination.to_dict(),
        "steps": progress.step,
        "model_step": run.model_step or progress.step,
        "best_step": progress.best_step,
        "stopped_early": progress.step < run.plan.steps,
        "tokens_seen": progress.tokens_seen,
        "train_loss": progress.train_loss,
        "validation_loss": progress.best_loss if run.model_step else progress.validation_loss,
        "train_seconds": round(progress.train_seconds, 3),
        "parameters": parameters,
        "trainable_parameters": trainable,
        "trainable_share": round(trainable / parameters, 6),
    }


def _fill(
    folder: Path, run: Run, weights: Mapping[str, torch.Tensor] | None, result: Mapping[str, Any]
) -> None:
    """Write the model, how it is asked, and its card into a folder."""
    save_model(folder, run.model, run.tokenizer, run.data.labels, weights)
    write_manner(folder, Manner(run.config.task, run.data.is_plain_text))
    title = f"{name_of(run.files.model)} for {run.config.task}"
    write_text(folder / CARD, model_card(result, title=title, use=use_by_python(result)))
