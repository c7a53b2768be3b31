"""Base models and tokenizers: loaded with clear words when they cannot be, and saved for serving."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tuning.adalora import note_ranks
from tuning.errors import InputError
from tuning.events import write_json
from tuning.hub import require_within_reach
from tuning.pissa import as_lora
from tuning.quantization import format_of, keep_weights_as_they_are, loading_options, spared_import
from tuning.spared import spared
from tuning.virtualtokens import count_virtual_tokens, read_virtual_tokens

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LABELS, BASE, RESULT = "labels.json", "base.json", "result.json"
CPU = torch.device("cpu")


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


def load_model(name: str, dtype: torch.dtype, quantization: str = "none", device: torch.device = CPU) -> Any:
    """The causal language model of a folder or Hugging Face id, from safetensors. Raises InputError.

    With a `quantization` its linear layers are packed, on `device`, and compute in `dtype`.
    """
    _check_folder(name)
    transformers_logging.disable_progress_bar()
    options = loading_options(quantization, dtype, device)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except FileNotFoundError as error:  # a part that the index of the weights names
        raise InputError(f"The model {name} is incomplete ({_first_line(error)}); copy it again.") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"Cannot load the model {name}: {_first_line(error)}") from error
    if found["missing_keys"]:  # transformers would go on with random numbers in their place
        raise InputError(
            f"The model {name} is incomplete: it lacks {sorted(found['missing_keys'])[0]}; copy it again."
        )
    return keep_weights_as_they_are(model) if options else model


def load_adapter(base: Any, folder: Path) -> Any:
    """The base model with the adapter of a folder on it. Raises InputError."""
    try:
        with spared_import(format_of(base)), warnings.catch_warnings():
            from peft import PeftModel

            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
            warnings.filterwarnings("ignore", "The following rank_pattern keys")  # AdaLoRA's, read elsewhere
            model = PeftModel.from_pretrained(base, str(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"Cannot load the adapter {folder}: {_first_line(error)}") from error
    return read_virtual_tokens(model) if model.peft_config["default"].is_prompt_learning else model


def base_of_adapter(folder: str) -> str | None:
    """The base model of an adapter folder, None for another folder. Raises InputError.

    That is the one that the adapter names; where no folder of that name is here, it is the one that the run
    beside it trained on.
    """
    path = Path(folder) / ADAPTER_CONFIG
    if not path.is_file():
        return None
    named = _text_in(path, "base_model_name_or_path")
    run = Path(folder).parent / RESULT
    if named is None:
        raise InputError(f"{path} does not name a base model; pass --base.")
    if not Path(named).is_dir() and run.is_file() and (trained_on := _text_in(run, "base_model")):
        return trained_on
    return named


def base_of_run(folder: str) -> str:
    """The base model that the run beside a model folder trained on. Raises InputError if none says so."""
    run = Path(folder).parent / RESULT
    if run.is_file() and (named := _text_in(run, "base_model")):
        return named
    raise InputError(f"Nothing says what {folder} was trained on; pass --base.")


def quantization_of_base(folder: Path) -> str:
    """The number format of the base that the adapter in a folder was trained on. Raises InputError."""
    path = folder / BASE
    return (_text_in(path, "quantization") or "none") if path.is_file() else "none"


def _text_in(path: Path, key: str) -> str | None:
    """A text in a file of JSON, None where there is none under that key. Raises InputError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    return value if isinstance(value, str) else None


def _check_folder(name: str) -> None:
    """A folder must hold a model; what is no folder must at least look like a Hugging Face id."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"The folder {name} has no config.json, so it is not a model.")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_file():
        raise InputError(f"There is no model folder {name}; give a folder or a Hugging Face id.")
    else:
        require_within_reach(name)


def check_fit(model: Any, tokenizer: Any, max_length: int) -> None:
    """Raise InputError if the model lacks tokens of the tokenizer, or sees less than a whole row."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise InputError(
            f"The tokenizer has {len(tokenizer)} tokens, the model only {rows}: they do not belong together."
        )
    if max_length > (positions := context_length(model)):
        beside = f" beside {count} virtual tokens" if (count := count_virtual_tokens(model)) else ""
        raise InputError(
            f"training.max_length is {max_length}; accepted: up to {positions}, all that the model sees"
            f"{beside}."
        )


def context_length(model: Any) -> int:
    """The tokens of a text with its answer that a model can read, beside its virtual tokens."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    return int(positions) - count_virtual_tokens(model)


def save_model(
    folder: Path,
    model: Any,
    tokenizer: Any,
    labels: tuple[str, ...],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write adapter or full weights, tokenizer, template and labels; `folder` must exist. Raises OSError.

    `weights` are the model's state where the model itself holds only a part of it.
    """
    if hasattr(model, "peft_config"):
        _save_adapter(folder, model, weights)
    else:
        kept = getattr(torch, str(model.config.dtype).removeprefix("torch."))  # saving makes it a text
        whole = None if weights is None else {name: value.to(kept) for name, value in weights.items()}
        save_whole(folder, model.to(kept), whole)
    tokenizer.save_pretrained(str(folder))
    if labels:
        write_json(folder / LABELS, list(labels))


def save_whole(folder: Path, model: Any, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write full weights and the config that belongs to them. Raises OSError."""
    with spared("deepspeed"):  # transformers would look whether the model is one of its engines
        model.save_pretrained(str(folder), state_dict=weights)


def _save_adapter(folder: Path, model: Any, weights: Mapping[str, torch.Tensor] | None) -> None:
    """Write an adapter that any machine can put on its base, whose name (not its place here) it tells."""
    from peft import get_peft_model_state_dict

    note_ranks(model)
    config = model.peft_config["default"]
    found = get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False)
    found, config = as_lora(model, found, config)
    config = copy.deepcopy(config)
    config.inference_mode = True
    config.base_model_name_or_path = _name_elsewhere(config.base_model_name_or_path)
    if getattr(config, "target_modules", None):
        config.target_modules = sorted(config.target_modules)  # a set is written in another order each time
    config.save_pretrained(str(folder))
    save_file({name: value.contiguous() for name, value in found.items()}, folder / ADAPTER_WEIGHTS)
    quantization = format_of(model)
    write_json(folder / BASE, {"name": config.base_model_name_or_path, "quantization": quantization})


def _name_elsewhere(model: str) -> str:
    """What a model is called on other machines: the name of its folder, or its Hugging Face id."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
