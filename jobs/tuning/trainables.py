"""How many numbers each method trains, counted from a model's anatomy before the model is loaded.

Only the standard library is imported: `maas plan` says the same numbers as the script.
"""

from __future__ import annotations

import math

from tuning.anatomy import Anatomy
from tuning.config import MethodConfig
from tuning.errors import InputError

# The last layer of a feed-forward part, by the names that models give it: (IA)3 scales its input.
FEEDFORWARD_OUT = ("down_proj", "fc2", "w2", "dense_4h_to_h")
ADALORA_START = 1.5
"""AdaLoRA begins with so many times the rank that it ends with, on average over the layers."""

PROMPT_ENCODER_WIDTH = 128
"""Width of the network through which p-tuning trains its virtual tokens; only what it gives is saved."""


def initial_rank(config: MethodConfig) -> int:
    """The rank that AdaLoRA begins with; always more than it ends with."""
    return max(config.rank + 1, math.ceil(ADALORA_START * config.rank))


def full(anatomy: Anatomy, config: MethodConfig) -> int:
    """Every parameter, but for frozen layers. Raises InputError where all layers would be frozen."""
    if not config.freeze_layers:
        return anatomy.parameters
    if config.freeze_layers not in anatomy.frozen:
        raise InputError(
            f"method.freeze_layers is {config.freeze_layers}, and the model has {anatomy.blocks} layers; "
            f"accepted: 0 to {anatomy.blocks - 1}."
        )
    return anatomy.parameters - anatomy.frozen[config.freeze_layers]


def low_rank(anatomy: Anatomy, config: MethodConfig) -> int:
    """Two matrices a layer."""
    return sum(config.rank * (out + into) for _, (out, into) in anatomy.chosen(config.target_modules))


def dora(anatomy: Anatomy, config: MethodConfig) -> int:
    """LoRA's matrices and the length of each output's weights."""
    return low_rank(anatomy, config) + sum(out for _, (out, _) in anatomy.chosen(config.target_modules))


def adalora(anatomy: Anatomy, config: MethodConfig) -> int:
    """A singular value decomposition a layer, with the rank that it begins with."""
    layers = anatomy.chosen(config.target_modules)
    return sum(initial_rank(config) * (out + into + 1) for _, (out, into) in layers)


def loha(anatomy: Anatomy, config: MethodConfig) -> int:
    """Two low-rank products a layer, multiplied number by number."""
    return 2 * low_rank(anatomy, config)


def lokr(anatomy: Anatomy, config: MethodConfig) -> int:
    """A Kronecker product a layer: a small matrix and a large one, low-rank where that is smaller."""
    total = 0
    for _, (out, into) in anatomy.chosen(config.target_modules):
        (left_out, right_out), (left_in, right_in) = two_factors(out), two_factors(into)
        is_low_rank = config.rank < max(right_out, right_in) / 2
        right = config.rank * (right_out + right_in) if is_low_rank else right_out * right_in
        total += left_out * left_in + right
    return total


def two_factors(number: int) -> tuple[int, int]:
    """The two factors of a number that are nearest to each other, the smaller one first."""
    small = next(factor for factor in range(math.isqrt(number), 0, -1) if number % factor == 0)
    return small, number // small


def oft(anatomy: Anatomy, config: MethodConfig) -> int:
    """A rotation (a skew-symmetric matrix) for each block of a layer's inputs.

    Raises InputError for a size of blocks that does not divide the inputs.
    """
    block, layers = config.rank, anatomy.chosen(config.target_modules)
    widths = sorted({into for _, (_, into) in layers})
    if any(width % block for width in widths):
        common = math.gcd(*widths)
        accepted = [size for size in range(2, min(common, 256) + 1) if common % size == 0]
        raise InputError(
            f"method.rank is {block}, the size of oft's blocks, and must divide the layers' inputs "
            f"({', '.join(map(str, widths))}); accepted: {', '.join(map(str, accepted))}."
        )
    return sum(into // block * (block * (block - 1) // 2) for _, (_, into) in layers)


def vera(anatomy: Anatomy, config: MethodConfig) -> int:
    """Two vectors a layer; the matrices that they scale are random and shared."""
    return sum(out + config.rank for _, (out, _) in anatomy.chosen(config.target_modules))


def ia3(anatomy: Anatomy, config: MethodConfig) -> int:
    """One vector a layer: it scales outputs, or the inputs of a feed-forward part's last layer."""
    layers = anatomy.chosen(config.target_modules)
    return sum(into if name in FEEDFORWARD_OUT else out for name, (out, into) in layers)


def prefix(anatomy: Anatomy, config: MethodConfig) -> int:
    """Keys and values of each virtual token in each block."""
    return config.virtual_tokens * anatomy.blocks * 2 * anatomy.kv_width


def prompt(anatomy: Anatomy, config: MethodConfig) -> int:
    """An embedding for each virtual token."""
    return config.virtual_tokens * anatomy.hidden


def p_tuning(anatomy: Anatomy, config: MethodConfig) -> int:
    """Embeddings of the virtual tokens, and a network of three layers that turns them into others."""
    width, hidden = PROMPT_ENCODER_WIDTH, anatomy.hidden
    return prompt(anatomy, config) + (hidden + 1) * width + (width + 1) * (width + hidden)
