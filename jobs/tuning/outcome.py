"""The output folder: whose run it holds, and what a finished run leaves in it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuning.checkpoints import sync_folder
from tuning.config import Config
from tuning.data import sha256_of
from tuning.errors import InputError
from tuning.evaluation import HeldOut, Scores
from tuning.events import write_json, write_json_lines

RESULT, CONFIG, BEFORE, SAMPLES, MODEL = "result.json", "config.json", "before.json", "samples.jsonl", "model"
# Keys that may change when a run is taken up again: they decide what is told and kept, not what is learned.
FREE_KEYS = {
    "log_every_steps",
    "log_rows",
    "evaluate_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "precision",
}
# Keys that may change while their product, the sequences of a step, stays the same: how they are spread.
SPREAD_KEYS = ("training.batch_size", "training.gradient_accumulation", "distributed.processes")


_DECIDING = {"evaluate_every_steps"}  # where validation decides when to stop, or what to keep


def describe(config: Config, sources: dict[str, Path], chosen: dict[str, Any]) -> dict[str, Any]:
    """What the output's config.json holds: the config, what was chosen, hashes of the sources."""
    return {**asdict(config), "chosen": chosen, "hashes": hashes_of(sources)}


def hashes_of(sources: dict[str, Path]) -> dict[str, str]:
    """The SHA-256 of each file."""
    return {name: sha256_of(path) for name, path in sources.items()}


def earlier_run(output: Path) -> dict[str, Any] | None:
    """The description that an earlier run left in the output folder, or None.

    Raises InputError if it cannot be read.
    """
    try:
        description: dict[str, Any] = json.loads((output / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{output / CONFIG} cannot be read ({error}); give another --output.") from error
    return description


def check_same_run(earlier: dict[str, Any], now: dict[str, Any], output: Path) -> None:
    """Raise InputError, naming what differs, unless both descriptions lead to the same losses.

    Another strategy or number of processes does, if a step keeps its number of sequences.
    """
    parts = ("task", "method", "training", "validation", "distributed", "hashes")
    before, after = (_compared({part: run.get(part) for part in parts}) for run in (earlier, now))
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    training = now["training"]
    free = FREE_KEYS - (_DECIDING if training["early_stopping_patience"] or training["keep_best"] else set())
    changed = [key for key in changed if key.rpartition(".")[2] not in free]
    if changed:
        raise InputError(
            f"{output} holds another run ({', '.join(changed[:5])} differ); give another --output."
        )


def _compared(description: dict[str, Any]) -> dict[str, Any]:
    """What must be equal, flat: of the strategy and the number of processes only what a step consists of."""
    values = flat(description)
    sequences = math.prod(int(values.get(key) or 1) for key in SPREAD_KEYS)
    left = {
        key: value
        for key, value in values.items()
        if key not in SPREAD_KEYS and not key.startswith("distributed.")
    }
    return {**left, "batch_size x gradient_accumulation x processes": sequences}


def flat(value: dict[str, Any], where: str = "") -> dict[str, Any]:
    """The values of nested objects by their dotted names."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flat(item, f"{where}{key}.") if isinstance(item, dict) else {f"{where}{key}": item}
    return found


def read_scores(path: Path) -> Scores | None:
    """Scores that `write_scores` wrote, or None if there are none that can be read."""
    try:
        return Scores(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_scores(path: Path, scores: Scores) -> None:
    """Keep scores for a run that is taken up again. Raises OSError."""
    write_json(path, asdict(scores))


def write_samples(path: Path, held_out: Sequence[HeldOut], **answers: Sequence[str]) -> None:
    """One line a held-out row that was answered: the prompt, what was expected, and each model's answer."""
    lines = []
    for place, held in enumerate(held_out):
        given = {name: texts[place] for name, texts in answers.items()}
        if held.expected and any(given.values()):
            lines.append({"prompt": held.prompt_text, "expected": held.expected, **given})
    write_json_lines(path, lines)


def fill_folder_atomically(folder: Path, fill: Any) -> dict[str, str]:
    """Let `fill(temporary folder)` write, then put the folder in place; returns the SHA-256 of each file."""
    temporary = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        fill(temporary)
        hashes = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        sync_folder(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return hashes
