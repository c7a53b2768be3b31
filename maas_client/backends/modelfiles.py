"""A model folder seen without torch: are config, tokenizer and weights whole, and which layers exist."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maas_client.errors import PlanError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_LENGTH_BYTES = 8
_HEADER_LIMIT = 100_000_000
_LINEAR_DIMENSIONS = 2
_EMBEDDINGS = ("embed", "wte", "wpe")
_HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True)
class Weights:
    """What is in a model folder: its config, and names and shapes of its tensors from safetensors headers."""

    folder: Path
    shapes: Mapping[str, Sequence[int]]
    config: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(self.sizes().values())

    def sizes(self) -> dict[str, int]:
        """How many numbers each tensor holds; a head that shares the embedding's counts with that."""
        is_tied = bool(self.config.get("tie_word_embeddings"))
        return {
            name: math.prod(shape)
            for name, shape in self.shapes.items()
            if not (is_tied and _is_head(name.removesuffix(".weight")))
        }

    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Names of the linear layers, without `.weight`, and their shapes (out, in); the head is left out.

        So are experts: transformers loads those of a block as one tensor, which no adapter takes.
        """
        found = {
            name.removesuffix(".weight"): (shape[0], shape[1])
            for name, shape in self.shapes.items()
            if name.endswith(".weight") and len(shape) == _LINEAR_DIMENSIONS
        }
        return {name: shape for name, shape in found.items() if not (_is_head(name) or _is_no_layer(name))}


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
    return _weights(folder, config)


def _is_head(name: str) -> bool:
    return name.rpartition(".")[2] in _HEADS


def _is_no_layer(name: str) -> bool:
    parts = name.split(".")
    return "experts" in parts or any(part.startswith(_EMBEDDINGS) for part in parts)


def _weights(folder: Path, config: Mapping[str, Any]) -> Weights:
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
    text = config.get("text_config")
    return Weights(folder, shapes, text if isinstance(text, dict) else config)


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
