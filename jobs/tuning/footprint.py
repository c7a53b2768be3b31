"""How much memory a step of training takes, part by part, from a model's widths: before the model is there.

Only the standard library is imported: `maas plan` says what this says. The numbers of KEPT are counted, not
fitted: they are the tensors that a block's layers keep for the backward pass. bench/memory_model.py holds the
sum to measured peaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuning.sharding import OFFLOADS, SHARDS_MODEL, Held, held_by_each

FP32, BF16 = 4, 2
BYTES_A_WEIGHT = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}
"""nf4: half a byte, for 64 weights a constant of one byte, for 256 of these one of four. int8: one byte."""
RUNTIME = {"cpu": 430 << 20, "cuda": 900 << 20}
"""What a process holds besides: Python with PyTorch, transformers and PEFT; a GPU's context and workspace."""


@dataclass(frozen=True)
class Shape:
    """A decoder's widths: between blocks, of all queries, of all keys, inside the feed-forward part.

    `linear` counts the weights of the blocks' linear layers, `parameters` all weights.
    """

    hidden: int
    query: int
    key: int
    inner: int
    blocks: int
    vocabulary: int
    linear: int
    parameters: int

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int = 0) -> Shape | None:
        """From a config.json as data, and the number of weights where it is known.

        None where the config says too little, or the number is not that of a decoder with such widths.
        """
        try:
            hidden, blocks = int(config["hidden_size"]), int(config["num_hidden_layers"])
            heads, inner = int(config["num_attention_heads"]), int(config["intermediate_size"])
            vocabulary = int(config["vocab_size"])
        except (KeyError, TypeError, ValueError):
            return None
        width = int(config.get("head_dim") or hidden // heads)
        query, key = heads * width, int(config.get("num_key_value_heads") or heads) * width
        linear = blocks * hidden * (2 * query + 2 * key + 3 * inner)
        norms, table = (2 * blocks + 1) * hidden, vocabulary * hidden
        counted = linear + norms + table * (1 if config.get("tie_word_embeddings") else 2)
        if parameters and min(abs(counted - parameters), abs(counted - table - parameters)) > parameters / 20:
            return None
        return cls(hidden, query, key, inner, blocks, vocabulary, linear, parameters or counted)

    @classmethod
    def of_weights(cls, parameters: int) -> Shape:
        """Without widths, for a model of which only the number of weights is known: a bound from below."""
        return cls(0, 0, 0, 0, 1, 1, parameters, parameters)


@dataclass(frozen=True)
class Kept:
    """Numbers that a block keeps of each token, in widths: between blocks, queries, keys, feed-forward part.

    `low`: products of low rank, in ranks. `weights`: numbers kept for each weight, whatever the tokens.
    """

    hidden: int
    query: int
    key: int
    inner: int
    low: int = 0
    weights: int = 0

    def numbers(self, shape: Shape, rank: int) -> int:
        """Numbers a token."""
        widths = self.hidden * shape.hidden + self.query * shape.query + self.key * shape.key
        return widths + self.inner * shape.inner + self.low * rank


# Inputs and outputs of two norms; queries and what attention made of them; keys and values; the two halves of
# the feed-forward part and their product.
LOW_RANK = Kept(4, 2, 2, 3, low=4)
VIRTUAL = Kept(2, 2, 2, 2)  # frozen layers need none of their inputs
KEPT: Mapping[str, Kept] = {
    **dict.fromkeys(("lora", "rslora", "pissa", "qlora", "oft"), LOW_RANK),
    "adalora": Kept(4, 2, 2, 3, low=8),
    "dora": Kept(8, 4, 6, 7, low=4),  # and two results of each layer
    "loha": Kept(4, 2, 2, 3, weights=1),  # and each layer's change of weights
    "lokr": Kept(4, 2, 2, 3, weights=1),
    "vera": Kept(4, 3, 4, 4, low=4),
    "ia3": Kept(3, 3, 4, 6),  # and each layer's unscaled result
    "full": Kept(4, 2, 2, 3),
    **dict.fromkeys(("prefix", "prompt", "p-tuning"), VIRTUAL),
}
DROPOUT = Kept(2, 2, 0, 1)
"""What dropout on adapters keeps besides: each layer's input as it was dropped out of, and where."""
PLAIN = Kept(0, 2, 1, 1)
"""What layers keep besides that are not lean (tuning/lean.py): the whole projection, and silu of the gate."""
WORKING = 3
"""What a block's backward pass has in hand at its widest: in the feed-forward part, in its widths."""
SCALING = frozenset({"dora", "adalora", "vera", "ia3"})
"""Methods that multiply layers' results by trained numbers, which are in fp32: twice as many, all in fp32."""
CPU_PRODUCTS = 4
"""What products in bf16 hold on a CPU besides tensors, in oneDNN, in such widths: measured, not counted."""


@dataclass(frozen=True)
class Load:
    """What is trained how: all that memory depends on besides the model's widths.

    `tokens` and `targets` (those that carry loss) are those of a micro-batch on one device, `rows` its rows,
    before each of which stand `virtual_tokens`. `masked`: where a mask says who sees whom, a line's tokens.
    `trained` numbers are kept in fp32, with `moments` more each; `fp32_base`: the others are in fp32, too.
    `accumulates`: gradients of an earlier micro-batch are there. `all_logits`: those of all targets are made.
    """

    method: str
    trained: int
    tokens: int
    targets: int
    rows: int = 1
    virtual_tokens: int = 0
    masked: int = 0
    rank: int = 16
    dropout: bool = False
    quantization: str = "none"
    precision: str = "fp32"
    fp32_base: bool = False
    moments: int = 2
    recomputes: bool = False
    accumulates: bool = False
    all_logits: bool = False
    lean: bool = True
    device: str = "cpu"
    strategy: str = "none"
    processes: int = 1
    offload: str = "none"

    @property
    def width(self) -> int:
        """Bytes of a number in forward passes."""
        return FP32 if self.precision == "fp32" else BF16

    @property
    def base_width(self) -> int:
        """Bytes of a frozen number that is not packed, and of one between blocks."""
        return FP32 if self.fp32_base else self.width

    @property
    def all_tokens(self) -> int:
        """Tokens that pass through the blocks."""
        return self.tokens + self.rows * self.virtual_tokens


@dataclass(frozen=True)
class Footprint:
    """Bytes on one device, part by part, and when most is taken; `offloaded`: in the machine's own memory.

    Activations go as gradients come, so that the peak is less than the sum where both are large.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    working: int
    runtime: int
    peak: int
    offloaded: int = 0

    def parts(self) -> dict[str, int]:
        """The parts by name."""
        return {name: value for name, value in vars(self).items() if name not in ("peak", "offloaded")}


def footprint(shape: Shape, load: Load) -> Footprint:
    """The memory of a training step."""
    held = _held(shape, load)
    away = OFFLOADS[load.strategy].get(load.offload, frozenset())
    here = {name: 0 if name in away else size for name, size in vars(held).items()}
    kept, logits, working = _activations(shape, load), _logits(shape, load), _working(shape, load)
    passing = kept + here["gradients"] if load.accumulates else max(kept, here["gradients"])
    runtime = RUNTIME[load.device]
    peak = runtime + here["parameters"] + here["optimizer"] + passing + max(logits, working)
    offloaded = held.total - sum(here.values())
    return Footprint(
        **here,
        activations=kept,
        logits=logits,
        working=working,
        runtime=runtime,
        peak=peak,
        offloaded=offloaded,
    )


def _held(shape: Shape, load: Load) -> Held:
    """What is there between steps, and the gradients, as the strategy spreads them."""
    frozen = shape.parameters - (load.trained if load.method == "full" else 0)
    packed = min(shape.linear, frozen) if load.quantization != "none" else 0
    size = packed * BYTES_A_WEIGHT.get(load.quantization, 0) + (frozen - packed) * load.base_width
    return held_by_each(
        load.strategy, load.processes, trained=load.trained, frozen_bytes=round(size), moments=load.moments
    )


def _activations(shape: Shape, load: Load) -> int:
    """What the forward pass keeps for the backward pass; recomputing, each block's input, and one block."""
    between = load.all_tokens * shape.hidden * load.base_width
    a_weight = KEPT[load.method].weights * load.width
    if load.precision == "bf16" and load.fp32_base:  # the weights as the products read them
        a_weight += BF16
    block = load.all_tokens * _kept_a_token(shape, load) + a_weight * shape.linear / shape.blocks
    if load.recomputes:
        return round((shape.blocks + 1) * between + block)
    return round(shape.blocks * block + between)


def _kept_a_token(shape: Shape, load: Load) -> float:
    """Bytes that a block keeps of a token."""
    parts = [KEPT[load.method], *([DROPOUT] if load.dropout else []), *([] if load.lean else [PLAIN])]
    numbers = load.masked + sum(part.numbers(shape, load.rank) for part in parts)
    if shape.key < shape.query and (load.masked or load.device == "cpu"):
        numbers += 2 * shape.query  # keys and values, repeated for each query
    size = load.width * numbers
    if load.precision == "bf16" and (load.fp32_base or load.device == "cpu"):
        size += 2 * shape.hidden * (FP32 - BF16)  # norms read fp32
    if load.precision == "bf16" and load.fp32_base and load.device == "cpu":
        size += 2 * shape.hidden * FP32  # and keep what they made, before it became bf16
    return size


def _working(shape: Shape, load: Load) -> int:
    """What is in hand in the backward pass; where parameters are split, one block's are there whole."""
    whole = shape.linear // shape.blocks * load.base_width if load.strategy in SHARDS_MODEL else 0
    width = 2 * FP32 if load.method in SCALING and load.precision == "bf16" else load.width
    a_token = WORKING * width
    if load.precision == "bf16" and load.device == "cpu":
        a_token += CPU_PRODUCTS * BF16
    return load.all_tokens * shape.inner * a_token + whole


def _logits(shape: Shape, load: Load) -> int:
    """What the output head and the loss have in hand: some tokens' logits, and all targets' hidden states."""
    if load.all_logits:
        return 3 * FP32 * load.targets * shape.vocabulary
    chunk = min(load.targets, tokens_a_chunk(shape.vocabulary, load.device))
    chunks = chunk * shape.vocabulary * (2 * FP32 if load.precision == "fp32" else 2 * FP32 + BF16)
    states = (2 * load.targets + load.tokens) * shape.hidden * load.width
    head = 2 * shape.vocabulary * shape.hidden * FP32 if load.method == "full" else 0
    return chunks + states + head


def tokens_a_chunk(vocabulary: int, device: str) -> int:
    """Tokens whose logits are in memory at once: what a processor's cache holds, or some of a GPU's memory.

    At least 256: fewer would read the head's weights too often.
    """
    numbers = 1 << 26 if device == "cuda" else 1 << 20
    return max(256, numbers // vocabulary)
