"""Checkpoints: whole or not there at all, hashed, pruned; a damaged one is passed over for the one before.

A checkpoint is a folder to which each process writes the pieces of the weights and of the optimizer's moments
that it holds, as safetensors, with the state of the run as JSON and a manifest of hashes. The order of the
data, the learning rate and every random number follow from the step and the seed, so nothing else is needed
to go on exactly as if nothing had happened, in as many processes as one likes.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from tuning.data import sha256_of
from tuning.distributed import Processes
from tuning.errors import FailedError
from tuning.events import say, write_json
from tuning.pieces import Piece, Stored, write_pieces

WEIGHTS, MOMENTS = "weights-{:05d}.safetensors", "optimizer-{:05d}.safetensors"
STATE, MANIFEST = "state.json", "manifest.json"
WRITING, DROPPED = ".writing-", ".dropped-"
FIRST_LOSSES = 10  # how many a capsule holds
SEEN_WITHIN_S = 60.0
"""So long may a file of another machine take to be seen on this one, where both have mounted the output."""


@dataclass
class Progress:
    """How far a run has come: optimizer steps, tokens trained on, seconds in training, last losses.

    `validated_step` is the step whose validation is in here; `best_step` the one with the lowest validation
    loss, and `without_improvement` counts the validations since. `first_losses` are those of the first steps.
    """

    step: int = 0
    tokens_seen: int = 0
    train_seconds: float = 0.0
    train_loss: float | None = None
    validation_loss: float | None = None
    validated_step: int | None = None
    best_step: int | None = None
    best_loss: float | None = None
    without_improvement: int = 0
    first_losses: list[float] = field(default_factory=list)

    def add_step(self, *, loss: float, tokens: int, seconds: float) -> None:
        """Take note of a finished step."""
        self.step += 1
        self.tokens_seen += tokens
        self.train_loss = loss
        self.train_seconds += seconds
        if self.step <= FIRST_LOSSES:
            self.first_losses.append(loss)

    def note_validation(self, loss: float) -> bool:
        """Take note of the validation loss at this step; returns whether it is the lowest so far."""
        self.validation_loss, self.validated_step = loss, self.step
        is_best = loss < (math.inf if self.best_loss is None else self.best_loss)
        if is_best:
            self.best_loss, self.best_step, self.without_improvement = loss, self.step, 0
        else:
            self.without_improvement += 1
        return is_best


class Holder(Protocol):
    """What has weights and moments to keep: a strategy."""

    def pieces(self) -> Iterator[Piece]:
        """What this process has to write."""

    def restore(self, stored: Stored) -> None:
        """Take weights and moments from a checkpoint. Raises FailedError if it belongs to another model."""


class Checkpoints:
    """The checkpoints of one run, in a folder. All processes call together.

    The newest `keep` stay, and with `keep_best` the one of the best validation loss.
    """

    def __init__(self, folder: Path, keep: int, processes: Processes, *, keep_best: bool = False) -> None:
        self.folder = folder
        self.keep, self.keep_best = keep, keep_best
        self.processes = processes

    def of_step(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step-{step:06d}"

    def save(self, progress: Progress, holder: Holder) -> Path:
        """Write a checkpoint and drop the oldest.

        Raises OSError, SafetensorError, or FailedError where another process could not write; then nothing is
        left behind.
        """
        target = self.of_step(progress.step)
        temporary = self.folder / f"{WRITING}{target.name}"
        together, is_first = self.processes.together, self.processes.is_first
        try:
            together(lambda: _begin(temporary) if is_first else None)
            written = together(lambda: self._write_own(temporary, holder))
            files = {name: facts for share in written for name, facts in share.items()}
            together(lambda: self._publish(temporary, target, progress, files) if is_first else None)
        except BaseException:
            if is_first:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        return target

    def _write_own(self, folder: Path, holder: Holder) -> dict[str, tuple[int, str]]:
        """Write what this process holds; returns size and SHA-256 of each file."""
        rank = self.processes.rank
        paths = (folder / WEIGHTS.format(rank), folder / MOMENTS.format(rank))
        if not (pieces := list(holder.pieces())):
            return {}
        write_pieces(*paths, pieces)
        for path in paths:
            _sync(path)
        return {path.name: (path.stat().st_size, sha256_of(path)) for path in paths}

    def _publish(
        self, temporary: Path, target: Path, progress: Progress, files: Mapping[str, tuple[int, str]]
    ) -> None:
        """Add state and manifest, give the folder its name, and drop the oldest checkpoints."""
        write_json(temporary / STATE, asdict(progress))
        for name, (size, _) in files.items():
            _wait_to_see(temporary / name, size)
        hashes = {
            STATE: sha256_of(temporary / STATE),
            **{name: digest for name, (_, digest) in files.items()},
        }
        write_json(temporary / MANIFEST, dict(sorted(hashes.items())))
        sync_folder(temporary)
        _drop(target)
        temporary.rename(target)
        sync_folder(self.folder, files=False)
        best = self.of_step(progress.best_step) if self.keep_best and progress.best_step else None
        for old in self.newest_first()[self.keep :]:
            if old != best:
                _drop(old)

    def newest_first(self) -> list[Path]:
        """The checkpoint folders, whole or damaged."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def load_newest(self, holder: Holder) -> Progress:
        """Put the newest undamaged checkpoint into a strategy; Progress() if there is none."""
        chosen = self.processes.together(lambda: self._newest_whole() if self.processes.is_first else None)[0]
        return self.load(self.folder / chosen, holder) if chosen else Progress()

    def load_best(self, progress: Progress, holder: Holder) -> str:
        """Put the checkpoint of the best validation loss into a strategy.

        Returns "", or what is wrong with it; then nothing is changed.
        """
        path = self.of_step(progress.best_step or 0)
        damage = self.processes.together(lambda: _damage(path) if self.processes.is_first else "")[0]
        if not damage:
            self.load(path, holder)
        return damage

    def load(self, path: Path, holder: Holder) -> Progress:
        """Put a checkpoint into a strategy. Raises FailedError if it belongs to another model."""
        holder.restore(Stored(sorted(path.glob("*.safetensors"))))
        return Progress(**json.loads((path / STATE).read_text(encoding="utf-8")))

    def _newest_whole(self) -> str | None:
        """The name of the newest checkpoint that is as it was written; half-written ones are removed."""
        for leftover in (*self.folder.glob(f"{WRITING}*"), *self.folder.glob(f"{DROPPED}*")):
            shutil.rmtree(leftover, ignore_errors=True)
        for path in self.newest_first():
            if not (damage := _damage(path)):
                return path.name
            say(f"Checkpoint {path.name} is damaged ({damage}); trying the one before.")
        return None


def require_same_parameters(stored: Stored, trained: Mapping[str, Tensor]) -> None:
    """Raise FailedError unless a checkpoint holds exactly these parameters."""
    sizes = {name: getattr(value, "ds_numel", value.numel()) for name, value in trained.items()}
    if stored.sizes() != sizes:
        raise FailedError("The checkpoint belongs to another model or method; give another --output.")


def sync_folder(folder: Path, *, files: bool = True) -> None:
    """Ask the system to bring a folder (and the files in it) to the disk. Raises OSError."""
    for path in [*(folder.iterdir() if files else ()), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _begin(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _drop(folder: Path) -> None:
    """Remove a checkpoint so that nobody ever sees a part of it. Raises OSError."""
    if folder.exists():
        hidden = folder.with_name(f"{DROPPED}{folder.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _wait_to_see(path: Path, size: int) -> None:
    """Return when a file that another process wrote is seen whole from here. Raises OSError."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not path.exists() or path.stat().st_size != size:
        if time.monotonic() > deadline:
            raise FailedError(f"{path} was written by another process but is not seen by the first one.")
        time.sleep(0.2)


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint, "" if nothing is."""
    try:
        manifest: dict[str, str] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if missing := {STATE, WEIGHTS.format(0)} - manifest.keys():
            return f"it has no {sorted(missing)[0]}"
        for name, digest in manifest.items():
            if sha256_of(path / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
