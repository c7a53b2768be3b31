"""What a model folder holds (full weights or an adapter) and where its weights and tokenizer come from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from tuning.errors import InputError


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where to load from: `weights` and `tokenizer` are folders or Hugging Face ids, `adapter` a folder.

    `quantization` is the number format of the weights that the adapter was trained on.
    """

    weights: str
    tokenizer: str
    adapter: Path | None = None
    quantization: str = "none"


def find_model(model: str, base: str | None = None) -> ModelSource:
    """Say where the parts of `model` (a folder or a Hugging Face id) lie; `base` overrides an adapter's own.

    Raises InputError for an adapter that has no safetensors weights or whose base is not there.
    """
    # torch loads with it
    from tuning.models import ADAPTER_WEIGHTS, TOKENIZER_FILES, base_of_adapter, quantization_of_base

    own_base = base_of_adapter(model)
    if own_base is None:
        return ModelSource(weights=model, tokenizer=model)
    folder, weights = Path(model), base or own_base
    if not (folder / ADAPTER_WEIGHTS).is_file():  # PEFT would fall back to a pickle, which can run code
        raise InputError(f"The adapter {folder} has no {ADAPTER_WEIGHTS}; save it as safetensors.")
    if not Path(weights).is_dir() and (weights.startswith((".", "/", "~")) or weights.count("/") != 1):
        raise InputError(f"The base {weights} of the adapter {folder} is not there; pass --base FOLDER.")
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = model if has_tokenizer else weights
    return ModelSource(weights, tokenizer, folder, quantization_of_base(folder))


def count_weights(folder: Path) -> int:
    """How many numbers the safetensors files of a folder hold, read from their headers. Raises InputError."""
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            count += sum(math.prod(entry["shape"]) for entry in tensors)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
            raise InputError(f"{path} is damaged or no safetensors file; copy the model again.") from None
    return count
