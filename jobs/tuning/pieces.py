"""The tensors of a checkpoint, in pieces: each process writes what it holds, any process reads what it needs.

A piece is a run of numbers of one flattened tensor, stored in a safetensors file under `kind|start|name`. So
it does not matter how many processes wrote a checkpoint, or how each of them had cut the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tuning.errors import FailedError

WEIGHT = "weight"
"""The kind of a parameter itself; the other kinds are the optimizer's words, such as exp_avg."""


@dataclass(frozen=True)
class Piece:
    """The numbers from `start` on of a flattened tensor: parameter `name` itself, or its moment `kind`."""

    name: str
    kind: str
    start: int
    values: torch.Tensor


def write_pieces(weights: Path, moments: Path, pieces: Iterable[Piece]) -> None:
    """Write pieces of parameters and of their moments into a file each. Raises OSError, SafetensorError."""
    tensors: dict[Path, dict[str, torch.Tensor]] = {weights: {}, moments: {}}
    for piece in pieces:
        values = piece.values.detach()
        path = weights if piece.kind == WEIGHT else moments
        tensors[path][f"{piece.kind}|{piece.start}|{piece.name}"] = values.contiguous()
    for path, held in tensors.items():
        save_file(held, path)


@dataclass(frozen=True)
class _Place:
    """Where a piece is stored, and which numbers of its tensor it holds."""

    file: Any
    key: str
    start: int
    size: int


class Stored:
    """Reads tensors from the files of a checkpoint, put together from their pieces."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._places: dict[str, dict[str, dict[int, _Place]]] = {}  # name -> kind -> start -> place
        for path in paths:
            file: Any = safe_open(str(path), framework="pt")
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                kind, start, name = key.split("|", 2)
                place = _Place(file, key, int(start), math.prod(file.get_slice(key).get_shape()))
                self._places.setdefault(name, {}).setdefault(kind, {})[place.start] = place

    def sizes(self) -> dict[str, int]:
        """The parameters that are stored, and how many numbers each has."""
        return {name: _end(kinds[WEIGHT]) for name, kinds in self._places.items() if WEIGHT in kinds}

    def moments(self, name: str) -> list[str]:
        """What the optimizer keeps of a parameter."""
        return [kind for kind in self._places[name] if kind != WEIGHT]

    def read(self, name: str, kind: str, start: int = 0, count: int | None = None) -> torch.Tensor:
        """`count` numbers of a flattened tensor from `start` on; all of it without a count.

        Raises FailedError where some are missing.
        """
        places = self._places[name].get(kind, {})
        end = _end(places) if count is None else start + count
        parts, position = [], start
        for place in sorted(places.values(), key=lambda place: place.start):
            if place.start <= position < min(end, place.start + place.size):
                values = place.file.get_tensor(place.key).flatten()
                parts.append(values[position - place.start : end - place.start])
                position += parts[-1].numel()
        if position != end or not parts:
            raise FailedError(f"The checkpoint lacks a part of {name} ({kind}); give another --output.")
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _end(places: Mapping[int, _Place]) -> int:
    return max((place.start + place.size for place in places.values()), default=0)
