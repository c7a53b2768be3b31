"""The config file of the scripts, read strictly: every wrong key or value is one clear sentence."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tuning.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class MethodConfig:
    """How the weights are adapted. Which keys a method reads, its entry in tuning/methods.py says.

    `quantization` is the number format of the frozen base, `virtual_tokens` and `freeze_layers` are counts.
    """

    name: Literal[
        "lora",
        "rslora",
        "dora",
        "pissa",
        "adalora",
        "loha",
        "lokr",
        "oft",
        "vera",
        "ia3",
        "prefix",
        "prompt",
        "p-tuning",
        "qlora",
        "full",
    ] = "lora"
    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    quantization: Literal["none", "nf4", "int8"] = "none"
    virtual_tokens: int = 20
    freeze_layers: int = 0


@dataclass(frozen=True)
class TrainingConfig:
    """What to learn from, how long and how fast. `batch_size` counts sequences (packed or not, or pairs of
    them with `dpo`) a step a process; `beta` is how dear it is to leave the base model, with `dpo`.
    """

    objective: Literal["sft", "dpo"] = "sft"
    beta: float = 0.1
    epochs: float = 3
    max_steps: int | None = None
    learning_rate: float = 2e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    batch_size: int = 8
    gradient_accumulation: int = 1
    max_length: int = 1024
    packing: bool = True
    seed: int = 7
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    log_every_steps: int | None = None  # None: every step, but not more often than every 0.2 s
    log_rows: bool = False  # with each step's event the numbers of its rows, as a rehearsal wants them
    evaluate_every_steps: int | None = None
    checkpoint_every_steps: int | None = None
    keep_checkpoints: int = 2
    early_stopping_patience: int | None = None  # validations without improvement
    keep_best: bool = False


@dataclass(frozen=True)
class ValidationConfig:
    """Share of the training rows to hold out, chosen by the seed; not used beside a validation file."""

    split: float = 0.1


@dataclass(frozen=True)
class EvaluationConfig:
    """How the model is measured before and after: how many held-out rows, and how long an answer.

    None takes the length of the task (tuning/tasks.py).
    """

    max_rows: int = 200
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class DistributedConfig:
    """How many processes train together, what each holds, and what lies in the machine's memory (`offload`).

    torchrun starts the processes on one machine, Azure ML on several.
    """

    strategy: Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"] = "none"
    processes: int = 1
    offload: Literal["none", "optimizer", "all"] = "none"


@dataclass(frozen=True)
class Config:
    """Everything that a run is told, except where its files are."""

    task: Literal[
        "chat",
        "text-generation",
        "classification",
        "ner",
        "qa",
        "translation",
        "summarization",
        "domain",
        "music",
    ]
    method: MethodConfig = field(default_factory=MethodConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


# Number keys that may be zero (and those that must stay below one); every other number must be above zero.
MAY_BE_ZERO = {"dropout", "warmup_ratio", "weight_decay", "seed", "split", "freeze_layers"}
BELOW_ONE = {"dropout", "warmup_ratio", "split"}


def read_config(path: Path) -> Config:
    """Read a JSON config file. Raises InputError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"Cannot read the config file {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"The config file {path} is not JSON: {error}.") from error
    return parse_config(value)


def parse_config(value: object) -> Config:
    """Turn plain JSON data into a Config.

    Raises InputError, which names the key, what was found and what is accepted.
    """
    return _parse_section(Config, value, "")


def _parse_section(section: type[T], value: object, where: str) -> T:
    if not isinstance(value, dict):
        raise InputError(f"{where or 'The config'} must be a JSON object, found {json.dumps(value)}.")
    hints = get_type_hints(section)
    for key in value:
        if key not in hints:
            raise InputError(_unknown_key(where, str(key), list(hints)))
    for spec in dataclasses.fields(section):  # type: ignore[arg-type]
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and spec.name not in value:
            raise InputError(
                f"{_join(where, spec.name)} is missing; accepted: {_describe(hints[spec.name])}."
            )
    return section(**{key: _parse_value(hints[key], item, _join(where, key)) for key, item in value.items()})


def _parse_value(hint: Any, value: object, where: str) -> object:
    if dataclasses.is_dataclass(hint):
        return _parse_section(hint, value, where)  # type: ignore[arg-type]
    if not _fits(hint, value):
        raise InputError(f"{where} is {json.dumps(value)}; accepted: {_describe(hint)}.")
    _check_range(where, value)
    return value


def _fits(hint: Any, value: object) -> bool:
    """Whether `value` is of the type that `hint` names; true is not a number, and 3 is a fine float."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(option, value) for option in get_args(hint))
    if get_origin(hint) is list:
        return (
            isinstance(value, list) and bool(value) and all(_fits(get_args(hint)[0], item) for item in value)
        )
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _check_range(where: str, value: object) -> None:
    key = where.rpartition(".")[2]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not (value >= 0 if key in MAY_BE_ZERO else value > 0):  # also refuses NaN
        accepted = "0 or more" if key in MAY_BE_ZERO else "more than 0"
        raise InputError(f"{where} is {value}; accepted: {accepted}.")
    if key in BELOW_ONE and value >= 1:
        raise InputError(f"{where} is {value}; accepted: less than 1.")


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(json.dumps(option) for option in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(hint))
    if get_origin(hint) is list:
        return "a list of names"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, "a JSON object")


def _unknown_key(where: str, key: str, accepted: list[str]) -> str:
    close = difflib.get_close_matches(key, accepted, n=1)
    guess = f"did you mean {close[0]}?" if close else f"accepted: {', '.join(accepted)}."
    return f"Unknown key {_join(where, key)} in the config; {guess}"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
