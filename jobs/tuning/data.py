"""From data files to token rows: read, split, encode; a row that cannot be used is an error with its line."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tuning.batches import TokenRow
from tuning.config import Config
from tuning.contamination import Contamination, find_repeats
from tuning.errors import InputError
from tuning.masks import encode
from tuning.rows import Row, read_rows
from tuning.tasks import TASKS

Encode = Callable[[Row, Path, Any, Config], tuple[list[Any], bool]]


@dataclass(frozen=True)
class Data:
    """Training rows as tokens or pairs of such, held-out rows as they are, all labels, and how many were cut.

    `unseen_labels` are those of held-out rows that no training row has.
    """

    train: list[Any]
    validation: list[Row]
    labels: tuple[str, ...] = ()
    truncated: int = 0
    unseen_labels: tuple[str, ...] = ()
    contamination: Contamination = field(default_factory=Contamination)
    is_plain_text: bool = False

    def validation_sample(self, most: int, seed: int) -> list[Row]:
        """At most `most` held-out rows, drawn by the seed, in the order of the file."""
        if len(self.validation) <= most:
            return self.validation
        places = sorted(random.Random(f"{seed} sample").sample(range(len(self.validation)), most))
        return [self.validation[place] for place in places]

    def warnings(self) -> list[str]:
        """What speaks against trusting the measured numbers, a sentence each."""
        found = [self.contamination.sentence()] if self.contamination.rows else []
        if not self.validation:
            found.append("No rows are held out, so nothing is measured (validation.split is 0).")
        if self.truncated:
            found.append(f"{self.truncated} training rows are longer than training.max_length and were cut.")
        if self.unseen_labels:
            names = ", ".join(self.unseen_labels[:5]) + (", ..." if len(self.unseen_labels) > 5 else "")
            found.append(f"Labels of held-out rows that no training row has: {names}.")
        return found

    def count_rows(self, held_out: int) -> dict[str, int]:
        """Rows by what became of them, for the result."""
        return {"train": len(self.train), "validation": held_out, "truncated": self.truncated}


def load_data(
    train: Path, validation: Path | None, config: Config, tokenizer: Any, encode_one: Encode | None = None
) -> Data:
    """Read both files, or hold out a share of the training rows. Raises InputError.

    `encode_one` makes what is trained on from a row; None: tokens.
    """
    rows = load_rows(train, config.task, config.training.objective)
    held_out = load_rows(validation, config.task, config.training.objective) if validation else []
    if validation is None and config.validation.split:
        rows, held_out = hold_out(rows, config.validation.split, config.training.seed)
    if not rows:
        raise InputError(
            f"No rows are left to train on in {train}; give more rows or a smaller validation.split."
        )
    for key in ("keep_best", "early_stopping_patience"):
        if getattr(config.training, key) and not held_out:
            raise InputError(f"training.{key} needs held-out rows; set validation.split or give a file.")
    contamination = find_repeats(rows, held_out)
    if contamination.is_total:
        raise InputError(
            f"Every held-out row is among the training rows too (line {contamination.lines[0][0]} is line "
            f"{contamination.lines[0][1]}), so nothing would be measured; give other rows in data.validation."
        )
    encoded = [(encode_one or encode_row)(row, train, tokenizer, config) for row in rows]
    if all(is_cut for _, is_cut in encoded):
        raise InputError(
            f"All {len(rows)} training rows of {train.name} are longer than training.max_length "
            f"({config.training.max_length} tokens); raise it, or shorten the rows."
        )
    return Data(
        train=[tokens for parts, _ in encoded for tokens in parts],
        validation=held_out,
        labels=labels_of(rows + held_out),
        truncated=sum(is_cut for _, is_cut in encoded),
        unseen_labels=tuple(sorted(set(labels_of(held_out)) - set(labels_of(rows)))),
        contamination=contamination,
        is_plain_text=all(row.example.text is not None for row in rows),
    )


def load_rows(path: Path, task: str, objective: str | None = None) -> list[Row]:
    """All rows of a file. Raises InputError for the first bad one, or if there is none.

    With an `objective` they must be of the kind that it learns from.
    """
    try:
        rows = list(read_rows(path, task))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    are_pairs = bool(rows[0].example.rejected)
    if are_pairs and objective == "sft":
        raise InputError(
            f"{path.name} has pairs of a better and a worse answer; set training.objective to dpo to learn "
            "from them."
        )
    if objective == "dpo" and not are_pairs:
        raise InputError(
            f"training.objective is dpo, and {path.name} has no pairs; give rows with prompt, chosen and "
            "rejected."
        )
    return rows


def hold_out(rows: list[Row], split: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(rest, held out): at least one row is drawn by the seed; both keep the order of the file."""
    chosen = set(random.Random(f"{seed} split").sample(range(len(rows)), max(1, round(split * len(rows)))))
    rest = [row for place, row in enumerate(rows) if place not in chosen]
    return rest, [rows[place] for place in sorted(chosen)]


def encode_row(row: Row, path: Path, tokenizer: Any, config: Config) -> tuple[list[TokenRow], bool]:
    """(tokens, whether the row was cut); a long text comes in several parts where the task splits it.

    Raises InputError with the line if no token carries loss.
    """
    max_length = config.training.max_length
    splits = TASKS[config.task].splits_long_text
    try:
        encoded = encode(row.example, tokenizer, None if splits else max_length)
    except InputError as error:
        raise InputError(f"{path.name}, line {row.line}: {str(error).rstrip('.')}.") from error
    ids = torch.tensor(encoded.input_ids, dtype=torch.int32)
    whole = TokenRow(ids, torch.tensor(encoded.labels, dtype=torch.int32))
    return (_parts(whole, max_length) if splits else [whole]), encoded.truncated


def _parts(row: TokenRow, length: int) -> list[TokenRow]:
    """A row in parts of at most `length` tokens; each begins with the token that the one before ended with.

    So every token but the very first is predicted exactly once.
    """
    starts = range(0, max(1, len(row.ids) - 1), length - 1)
    return [TokenRow(row.ids[start : start + length], row.labels[start : start + length]) for start in starts]


def labels_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels that occur, of rows or of the entities in them, sorted."""
    labels = {row.example.label for row in rows if row.example.label is not None}
    marked = [row.example.marked for row in rows if row.example.marked is not None]
    return tuple(sorted(labels | {entity.label for text in marked for entity in text.entities}))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
