"""Which parts of a config do not work together, and why: asked by `maas plan` and again by the script.

Only the standard library is imported. What is refused here was tried with the pinned versions of PEFT and
bitsandbytes; tests/jobs/test_combinations.py and test_methods_spread.py keep trying.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from tuning.config import Config, MethodConfig, TrainingConfig
from tuning.methods import METHODS, quantization_of
from tuning.sharding import OFFLOADS, SHARDS_MODEL
from tuning.tasks import TASKS

Rule = Callable[[Config], str | None]

UNQUANTIZED = {
    "full": "full training changes the weights themselves, and packed weights cannot be changed; take qlora",
    "pissa": "pissa takes its first matrices out of the base, which must not be packed; take qlora or dora",
    "dora": "PEFT's dora does not train beside 8-bit layers; take nf4",
    "loha": "PEFT's loha does not read 4-bit layers; take int8 or qlora",
    "lokr": "PEFT's lokr does not read 4-bit layers; take int8 or qlora",
    "qlora": "qlora is lora on an nf4 base; for another format take lora",
}
WHOLE = ("none", "ddp")
"""Strategies whose processes hold whole gradients and moments of their own."""
VIRTUAL = frozenset({"prefix", "prompt", "p-tuning"})
PACKED_AND_SPLIT = {
    (
        "nf4",
        "zero3",
    ): "bitsandbytes keeps each weight that it has read until the backward pass, so that every "
    "process would hold the whole base again; take fsdp or zero2",
    (
        "int8",
        "zero3",
    ): "bitsandbytes keeps each weight that it has read, so that every process would hold the "
    "whole base again; take zero2, or nf4 with fsdp",
    ("int8", "fsdp"): "the scales of 8-bit layers are lost where they are split; take zero2, or nf4",
}


def refusal(config: Config) -> str | None:
    """Why a config cannot be trained as it is, with what to do instead; None if it can."""
    return next((reason for rule in RULES if (reason := rule(config))), None)


def _unread_keys(config: Config) -> str | None:
    """A key that was set and that the method does not read would be believed to do something."""
    method = config.method
    defaults = MethodConfig(name=method.name)
    keys = METHODS[method.name].keys
    unread = [
        field.name
        for field in dataclasses.fields(method)
        if field.name not in keys
        and field.name not in {"name", "quantization"}
        and getattr(method, field.name) != getattr(defaults, field.name)
    ]
    if not unread:
        return None
    read = ", ".join(_in_order(keys)) or "no other key"
    return f"method.{unread[0]} is not read by {method.name}; leave it out ({method.name} reads {read})."


def _in_order(keys: frozenset[str]) -> Iterator[str]:
    return (field.name for field in dataclasses.fields(MethodConfig) if field.name in keys)


def _quantized_base(config: Config) -> str | None:
    name, wanted = config.method.name, config.method.quantization
    if wanted == "none" or wanted in METHODS[name].takes_quantized:
        return None
    return f"method.quantization {wanted} does not work with {name}: {UNQUANTIZED[name]}."


def _recomputation(config: Config) -> str | None:
    name = config.method.name
    if config.training.gradient_checkpointing is True and not METHODS[name].recomputes:
        return (
            f"training.gradient_checkpointing does not work with {name}: recomputed layers would read its "
            "virtual tokens twice; leave it out, or take prompt."
        )
    return None


def _whole_gradients(config: Config) -> str | None:
    strategy = config.distributed.strategy
    if config.method.name == "adalora" and strategy not in WHOLE:
        return (
            f"distributed.strategy {strategy} does not work with adalora, which weighs whole gradients in "
            f"each process; take {' or '.join(WHOLE)}."
        )
    return None


def _split_base(config: Config) -> str | None:
    name, strategy = config.method.name, config.distributed.strategy
    if reason := PACKED_AND_SPLIT.get((quantization_of(config.method), strategy)):
        packed = name if name == "qlora" else f"method.quantization {config.method.quantization}"
        return f"distributed.strategy {strategy} does not work with {packed}: {reason}."
    if name in VIRTUAL and strategy in SHARDS_MODEL:
        return (
            f"distributed.strategy {strategy} does not work with {name}: what is saved of virtual tokens is "
            "computed from whole parameters, which no process has; take zero2 or ddp."
        )
    return None


def _offload(config: Config) -> str | None:
    strategy, offload = config.distributed.strategy, config.distributed.offload
    if offload == "none" or offload in OFFLOADS[strategy]:
        return None
    accepted = " or ".join(["none", *OFFLOADS[strategy]])
    return f"distributed.offload {offload} does not work with strategy {strategy}; accepted: {accepted}."


def _objective(config: Config) -> str | None:
    training = config.training
    if training.objective == "dpo" and not TASKS[config.task].pairs:
        able = " or ".join(name for name, task in TASKS.items() if task.pairs)
        return f"training.objective dpo does not work with task {config.task}; take task {able}."
    if training.objective == "sft" and training.beta != TrainingConfig().beta:
        return "training.beta is not read by objective sft; leave it out, or take objective dpo."
    return None


RULES: tuple[Rule, ...] = (
    _unread_keys,
    _quantized_base,
    _recomputation,
    _whole_gradients,
    _split_base,
    _offload,
    _objective,
)
