"""Checkpoints: whole or not there at all, hashed, pruned; a damaged one is passed over for the one before.

A checkpoint is a folder with the trained weights and the optimizer's moments as safetensors, the state of the
run as JSON, and a manifest of hashes. The order of the data, the learning rate and every random number follow
from the step and the seed, so nothing else is needed to go on exactly as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tuning.data import sha256_of
from tuning.errors import FailedError
from tuning.events import say, write_json

WEIGHTS, MOMENTS, STATE, MANIFEST = (
    "weights.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
)


@dataclass
class Progress:
    """How far a run has come: optimizer steps, tokens trained on, seconds in training, last loss."""

    step: int = 0
    tokens_seen: int = 0
    train_seconds: float = 0.0
    train_loss: float | None = None
    validation_loss: float | None = None


class Checkpoints:
    """The checkpoints of one run, in a folder; only the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Write a checkpoint and drop the oldest.

        Raises OSError or SafetensorError; then nothing is left behind.
        """
        target = self.folder / f"step-{progress.step:06d}"
        temporary = self.folder / f".writing-{target.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            save_file(_trained(model), temporary / WEIGHTS)
            save_file(_moments(model, optimizer), temporary / MOMENTS)
            write_json(temporary / STATE, asdict(progress))
            write_json(
                temporary / MANIFEST, {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
            )
            sync_folder(temporary)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
            sync_folder(self.folder, files=False)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in self.newest_first()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def newest_first(self) -> list[Path]:
        """The checkpoint folders, whole or damaged."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def load_newest(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Put the newest undamaged checkpoint into model and optimizer; Progress() if there is none."""
        for path in self.newest_first():
            if damage := _damage(path):
                say(f"Checkpoint {path.name} is damaged ({damage}); trying the one before.")
                continue
            _restore(path, model, optimizer)
            return Progress(**json.loads((path / STATE).read_text(encoding="utf-8")))
        return Progress()


def sync_folder(folder: Path, *, files: bool = True) -> None:
    """Ask the system to bring a folder (and the files in it) to the disk. Raises OSError."""
    for path in [*(folder.iterdir() if files else ()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _trained(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's tensors under `parameter name|moment`."""
    return {
        f"{name}|{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint, "" if nothing is."""
    try:
        manifest: dict[str, str] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name in (WEIGHTS, MOMENTS, STATE):
            if sha256_of(path / name) != manifest[name]:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights, moments = load_file(path / WEIGHTS), load_file(path / MOMENTS)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if weights.keys() != trained.keys():
        raise FailedError(f"{path} belongs to another model or method; give another --output.")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    state: dict[torch.Tensor, dict[str, Any]] = {}
    for key, value in moments.items():
        name, moment = key.rsplit("|", 1)
        place = (
            torch.device("cpu") if moment == "step" and value.device.type == "cpu" else trained[name].device
        )
        state.setdefault(trained[name], {})[moment] = value.to(place)
    optimizer.state.update(state)
