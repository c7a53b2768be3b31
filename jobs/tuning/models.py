"""Base models and tokenizers: loaded with clear words when they cannot be, and saved for serving."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tuning.errors import InputError
from tuning.events import write_json

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
ADAPTER_CONFIG, LABELS = "adapter_config.json", "labels.json"


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model folder, an adapter folder or a Hugging Face id. Raises InputError."""
    if not (Path(name) / ADAPTER_CONFIG).is_file():
        _check_folder(name)
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in TOKENIZER_FILES):
        raise InputError(f"The model folder {name} has no tokenizer; put its tokenizer.json there.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Cannot load the tokenizer of {name}: {_first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def hidden_size(name: str) -> int:
    """The width of a model's layers, from its config alone. Raises InputError."""
    _check_folder(name)
    try:
        return int(AutoConfig.from_pretrained(name).get_text_config().hidden_size)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"Cannot read the config of the model {name}: {_first_line(error)}") from error


def load_model(name: str, dtype: torch.dtype) -> Any:
    """The causal language model of a folder or Hugging Face id, from safetensors. Raises InputError."""
    _check_folder(name)
    transformers_logging.disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"Cannot load the model {name}: {_first_line(error)}") from error
    if found["missing_keys"]:  # transformers would go on with random numbers in their place
        raise InputError(
            f"The model {name} is incomplete: it lacks {sorted(found['missing_keys'])[0]}; copy it again."
        )
    return model


def load_adapter(base: Any, folder: Path) -> Any:
    """The base model with the adapter of a folder on it. Raises InputError."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
            return PeftModel.from_pretrained(base, str(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"Cannot load the adapter {folder}: {_first_line(error)}") from error


def base_of_adapter(folder: str) -> str | None:
    """The base model that an adapter folder names, None for another folder. Raises InputError."""
    path = Path(folder) / ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not name a base model: {error}.") from error


def _check_folder(name: str) -> None:
    """A folder must hold a model; what is no folder must at least look like a Hugging Face id."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"The folder {name} has no config.json, so it is not a model.")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_file():
        raise InputError(f"There is no model folder {name}; give a folder or a Hugging Face id.")


def check_fit(model: Any, tokenizer: Any, max_length: int) -> None:
    """Raise InputError if the model lacks tokens of the tokenizer, or sees less than a whole row."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise InputError(
            f"The tokenizer has {len(tokenizer)} tokens, the model only {rows}: they do not belong together."
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise InputError(
            f"training.max_length is {max_length}; accepted: up to {positions}, all that the model sees."
        )


def save_model(folder: Path, model: Any, tokenizer: Any, labels: tuple[str, ...], is_adapter: bool) -> None:
    """Write adapter or full weights, tokenizer, template and labels; `folder` must exist. Raises OSError."""
    if is_adapter:
        from peft import get_peft_model_state_dict

        config = model.peft_config["default"]
        config.inference_mode = True
        config.save_pretrained(str(folder))
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        save_file(
            {name: value.contiguous() for name, value in weights.items()},
            folder / "adapter_model.safetensors",
        )
    else:
        model.to(model.config.dtype).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    if labels:
        write_json(folder / LABELS, list(labels))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
