"""A model folder seen without torch: are config, tokenizer and weights whole, and which layers exist."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from maas_client.errors import PlanError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_LENGTH_BYTES = 8
_HEADER_LIMIT = 100_000_000
_LINEAR_DIMENSIONS = 2
_NOT_LINEAR = ("embed", "wte", "wpe")


@dataclass(frozen=True)
class Weights:
    """Names and shapes of a model's tensors, from the headers of its safetensors files."""

    folder: Path
    shapes: Mapping[str, Sequence[int]]

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def layers(self) -> dict[str, Sequence[int]]:
        """Names of the modules with a weight matrix, without `.weight`, and the shapes of the matrices."""
        return {
            name.removesuffix(".weight"): shape
            for name, shape in self.shapes.items()
            if name.endswith(".weight") and len(shape) == _LINEAR_DIMENSIONS
        }

    def linear_shapes(self, targets: Iterable[str] | None) -> list[tuple[int, int]]:
        """Shapes of the layers that `targets` name; of all linear layers but the head when None."""
        chosen = []
        for name, (rows, columns) in self.layers().items():
            leaf = name.rpartition(".")[2]
            is_plain = leaf != "lm_head" and not leaf.startswith(_NOT_LINEAR)
            if is_plain if targets is None else any(_names(target, name) for target in targets):
                chosen.append((rows, columns))
        return chosen


def check_model(folder: Path) -> Weights:
    """See that a folder holds a whole model. Raises PlanError with what is missing."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            hint = "Name the base model, or merge the adapter into it first."
            raise PlanError(f"{folder} holds an adapter, not a model.", hint=hint)
        hint = "A model folder is what save_pretrained writes."
        raise PlanError(f"{folder} is not a model folder: it has no config.json.", hint=hint)
    config = _json_object(folder / "config.json")
    if "model_type" not in config:
        hint = "Take config.json from the model that the weights belong to."
        raise PlanError(f"{folder / 'config.json'} names no model_type.", hint=hint)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        hint = "Copy tokenizer.json and tokenizer_config.json of the base model into it."
        raise PlanError(f"{folder} has no tokenizer.", hint=hint)
    return _weights(folder)


def check_targets(weights: Weights, targets: Sequence[str]) -> None:
    """See that each target module names a layer of the model. Raises PlanError with those that exist."""
    layers = weights.layers()
    missing = [target for target in targets if not any(_names(target, name) for name in layers)]
    missing = [target for target in missing if target != "lm_head"]
    if not missing:
        return
    there = sorted({leaf for name in layers if not (leaf := name.rpartition(".")[2]).startswith(_NOT_LINEAR)})
    close = [match for name in missing for match in get_close_matches(name, there, n=1)]
    hint = f"Did you mean {', '.join(close)}?" if close else "Write method.target_modules: all-linear."
    words = f"has no layer {', '.join(missing)}; it has {', '.join(there)}"
    raise PlanError(f"The model in {weights.folder} {words}.", hint=hint)


def _names(target: str, module: str) -> bool:
    return module == target or module.endswith(f".{target}")


def _weights(folder: Path) -> Weights:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({str(name) for name in dict(_json_object(index).get("weight_map", {})).values()})
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            hint = "Download or copy the missing files."
            raise PlanError(f"{folder} lacks {', '.join(missing)}, which its index names.", hint=hint)
        paths = [folder / name for name in files]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        hint = "Only safetensors files are read; save the model as safetensors."
        raise PlanError(f"{folder} has no weights (*.safetensors).", hint=hint)
    shapes: dict[str, Sequence[int]] = {}
    for path in paths:
        shapes.update(_header_shapes(path))
    return Weights(folder, shapes)


def _header_shapes(path: Path) -> dict[str, Sequence[int]]:
    """Names and shapes in a safetensors header. Raises PlanError for a torn or foreign file."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if not 0 < length <= min(size - _LENGTH_BYTES, _HEADER_LIMIT):
                raise ValueError(length)
            tensors = dict(json.loads(file.read(length)))
        tensors.pop("__metadata__", None)
        end = max((int(facts["data_offsets"][1]) for facts in tensors.values()), default=0)
        shapes: dict[str, Sequence[int]] = {
            name: tuple(int(each) for each in facts["shape"]) for name, facts in tensors.items()
        }
    except (ValueError, TypeError, KeyError, IndexError):
        raise PlanError(
            f"{path} is not a safetensors file.", hint="Copy it again from where it came."
        ) from None
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}.", hint="Change its permissions.") from None
    if _LENGTH_BYTES + length + end > size:
        raise PlanError(f"{path} is cut short.", hint="Copy or download it again.")
    return shapes


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise PlanError(f"{path} cannot be read as JSON.", hint="Copy it again from where it came.")
    return value
