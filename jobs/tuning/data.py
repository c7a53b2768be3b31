"""From data files to token rows: read, split, encode; a row that cannot be used is an error with its line."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuning.batches import TokenRow
from tuning.config import Config
from tuning.errors import InputError
from tuning.masks import encode
from tuning.rows import Row, read_rows


@dataclass(frozen=True)
class Data:
    """Training rows as tokens, held-out rows as they are, all labels, and how many rows were cut."""

    train: list[TokenRow]
    validation: list[Row]
    labels: tuple[str, ...]
    truncated: int

    def validation_sample(self, most: int, seed: int) -> list[Row]:
        """At most `most` held-out rows, drawn by the seed, in the order of the file."""
        if len(self.validation) <= most:
            return self.validation
        places = sorted(random.Random(f"{seed} sample").sample(range(len(self.validation)), most))
        return [self.validation[place] for place in places]

    def count_rows(self, held_out: int) -> dict[str, int]:
        """Rows by what became of them, for the result."""
        return {"train": len(self.train), "validation": held_out, "truncated": self.truncated}


def load_data(train: Path, validation: Path | None, config: Config, tokenizer: Any) -> Data:
    """Read both files, or hold out a share of the training rows. Raises InputError."""
    rows = load_rows(train, config.task)
    held_out = load_rows(validation, config.task) if validation else []
    if validation is None and config.validation.split:
        rows, held_out = hold_out(rows, config.validation.split, config.training.seed)
    if not rows:
        raise InputError(
            f"No rows are left to train on in {train}; give more rows or a smaller validation.split."
        )
    encoded = [encode_row(row, train, tokenizer, config.training.max_length) for row in rows]
    return Data(
        [row for row, _ in encoded], held_out, labels_of(rows + held_out), sum(cut for _, cut in encoded)
    )


def load_rows(path: Path, task: str) -> list[Row]:
    """All rows of a file. Raises InputError for the first bad one, or if there is none."""
    try:
        return list(read_rows(path, task))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def hold_out(rows: list[Row], split: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(rest, held out): at least one row is drawn by the seed; both keep the order of the file."""
    chosen = set(random.Random(f"{seed} split").sample(range(len(rows)), max(1, round(split * len(rows)))))
    rest = [row for place, row in enumerate(rows) if place not in chosen]
    return rest, [rows[place] for place in sorted(chosen)]


def encode_row(row: Row, path: Path, tokenizer: Any, max_length: int) -> tuple[TokenRow, bool]:
    """(tokens, whether the row was cut). Raises InputError with the line if no token carries loss."""
    try:
        encoded = encode(row.example, tokenizer, max_length)
    except InputError as error:
        raise InputError(f"{path.name}, line {row.line}: {str(error).rstrip('.')}.") from error
    ids = torch.tensor(encoded.input_ids, dtype=torch.int32)
    return TokenRow(ids, torch.tensor(encoded.labels, dtype=torch.int32)), encoded.truncated


def labels_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels that occur, sorted."""
    return tuple(sorted({row.example.label for row in rows if row.example.label is not None}))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
