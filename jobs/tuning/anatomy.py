"""What a method must know about a model before it adapts it: its linear layers, its blocks, its widths.

Only the standard library is imported: the client reads the same facts from a model's files, without torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuning.errors import InputError

if TYPE_CHECKING:
    from torch import nn

ALL_LINEAR = "all-linear"
Shape = tuple[int, int]


@dataclass(frozen=True)
class Anatomy:
    """The linear layers of a model (name -> numbers out and in) without its head, and what else is counted.

    `hidden` is the width between blocks, `kv_width` that of one token's keys in one block. `frozen[n]` counts
    the parameters of the embeddings and the first n blocks.
    """

    linear: Mapping[str, Shape]
    parameters: int
    hidden: int
    kv_width: int
    blocks: int
    frozen: Mapping[int, int] = field(default_factory=dict)

    def chosen(self, wanted: str | list[str]) -> list[tuple[str, Shape]]:
        """(last part of the name, shape) of each layer that `method.target_modules` names.

        Raises InputError.
        """
        names = resolve_targets(self.linear, wanted)
        return [
            (last_part(layer), shape)
            for layer, shape in self.linear.items()
            if any(matches(layer, name) for name in names)
        ]


def anatomy_of(model: nn.Module) -> Anatomy:
    """The anatomy of a loaded model of transformers."""
    config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
    sizes = {name: logical_size(value) for name, value in model.named_parameters()}
    blocks = int(config.num_hidden_layers)
    return Anatomy(
        linear=linear_layers(model),
        parameters=sum(sizes.values()),
        hidden=int(config.hidden_size),
        kv_width=kv_width(config.to_dict()),
        blocks=blocks,
        frozen=frozen_sizes(sizes, blocks),
    )


def frozen_sizes(sizes: Mapping[str, int], blocks: int) -> dict[int, int]:
    """For 1, 2, ... first blocks, but not all of them: the parameters in these and in the embeddings."""
    return {
        count: sum(size for name, size in sizes.items() if is_frozen(name, count))
        for count in range(1, blocks)
    }


def kv_width(config: Mapping[str, Any]) -> int:
    """Numbers in one token's keys in one block, from a model's config.json as data; 0 without attention."""
    heads = int(config.get("num_attention_heads") or 0)
    if not heads:
        return 0
    shared = int(config.get("num_key_value_heads") or heads)
    return shared * int(config.get("head_dim") or int(config["hidden_size"]) // heads)


def logical_size(parameter: Any) -> int:
    """How many weights a parameter stands for: a 4-bit one holds two in each of its bytes."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return int(parameter.numel())
    size = 1
    for length in state.shape:
        size *= int(length)
    return size


def linear_layers(model: nn.Module) -> dict[str, Shape]:
    """Names and shapes (out, in) of the linear layers, without the output head."""
    from torch import nn

    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        name: (part.out_features, part.in_features)
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and part is not head
    }


def is_frozen(name: str, blocks: int) -> bool:
    """Whether a parameter belongs to the embeddings or to the first `blocks` blocks."""
    number = block_of(name)
    return number < blocks if number is not None else is_embedding(name)


def is_embedding(name: str) -> bool:
    """Whether a parameter or layer is an embedding, by its name."""
    return any(part.startswith(("embed", "wte", "wpe")) for part in name.split("."))


def block_of(name: str) -> int | None:
    """The number of the block that a layer belongs to: the first number in its name."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def last_part(layer: str) -> str:
    """The name of a layer without those of what it is in."""
    return layer.rpartition(".")[2]


def matches(layer: str, name: str) -> bool:
    """Whether a name of `method.target_modules` means a layer."""
    return layer == name or layer.endswith(f".{name}")


def resolve_targets(layers: Iterable[str], wanted: str | list[str]) -> list[str]:
    """The names that get an adapter, checked against the linear layers that a model really has.

    "all-linear" is every linear layer but the output head. Raises InputError, which lists what exists, if any
    name matches no layer, or a name without a block's number matches in some blocks only.
    """
    layers = list(layers)
    existing = sorted({last_part(layer) for layer in layers})
    if not existing:
        raise InputError("The model has no linear layers that could get an adapter; take method full.")
    if wanted == ALL_LINEAR:
        return existing
    names = [wanted] if isinstance(wanted, str) else wanted
    missing = [name for name in names if not any(matches(layer, name) for layer in layers)]
    if missing:
        close = [match for name in missing for match in difflib.get_close_matches(name, existing, n=1)]
        guess = f"did you mean {', '.join(close)}? " if close else ""
        raise InputError(
            f"method.target_modules names {', '.join(missing)}, which the model does not have; {guess}"
            f"accepted: {ALL_LINEAR}, or some of {', '.join(existing)}."
        )
    for name in names:
        _require_in_every_block(layers, name, existing)
    return names


def _require_in_every_block(layers: list[str], name: str, existing: list[str]) -> None:
    if block_of(name) is not None:
        return
    numbers = {number for layer in layers if (number := block_of(layer)) is not None}
    found = {block_of(layer) for layer in layers if matches(layer, name)} - {None}
    if found and found != numbers:
        raise InputError(
            f"method.target_modules names {name}, which is in {len(found)} of the model's {len(numbers)} "
            f"blocks only; accepted: {ALL_LINEAR}, full names of layers, or what is in every block (the "
            f"model has {', '.join(existing)})."
        )
