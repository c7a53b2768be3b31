"""What a run computes with, chosen from the device and the installed packages, and why.

`choose` is a pure function of facts. `install` puts what was chosen into a model; what does not give the
numbers of what it replaces, or does not run here, steps aside, and that is said too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuning.attention import PACKED, use_packed_attention, why_not_packed
from tuning.lean import OTHER_KIND, Parts, make_lean
from tuning.loss import HeadLoss, chunked_head_loss, usable_head_loss
from tuning.sharding import SHARDS_MODEL

FLASH_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class DeviceFacts:
    """A device: `cpu` or `cuda`, its name, its compute capability, and the packages that are there for it."""

    kind: str
    name: str = ""
    capability: tuple[int, int] = (0, 0)
    packages: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Choice:
    """One thing that was chosen, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Choices:
    """What a run computes with: all that may differ from device to device."""

    attention: Choice
    layers: Choice
    head_loss: Choice
    loading: Choice
    optimizer: Choice
    compiling: Choice

    def to_dict(self) -> dict[str, dict[str, str]]:
        """JSON-ready data."""
        return {name: {"what": one.what, "why": one.why} for name, one in vars(self).items()}


def facts_of(device: torch.device) -> DeviceFacts:
    """Look at a device and at what is installed for it."""
    if device.type != "cuda":
        return DeviceFacts(device.type)
    found = {name for name in ("liger_kernel",) if importlib.util.find_spec(name)}
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    return DeviceFacts("cuda", name, capability, frozenset(found))


def choose(facts: DeviceFacts, *, precision: str, strategy: str, virtual_tokens: bool) -> Choices:
    """What a run on such a device computes with.

    `virtual_tokens`: the model reads such before each row, and makes its own masks.
    """
    return Choices(
        attention=_attention(facts, precision, virtual_tokens),
        layers=_layers(facts, precision, strategy),
        head_loss=_head_loss(facts, strategy),
        loading=Choice("ahead", "a thread lays out and pins batches while the GPU computes")
        if facts.kind == "cuda"
        else Choice("in turn", "on a CPU nothing is faster meanwhile"),
        optimizer=Choice("fused AdamW", "one pass over weights and moments"),
        compiling=_compiling(facts, strategy),
    )


def _compiling(facts: DeviceFacts, strategy: str) -> Choice:
    """torch.compile pays where the same passes come again and again, and nothing else has fused them."""
    if strategy in SHARDS_MODEL:
        return Choice("no", "layers whose weights come and go would be compiled in pieces")
    if facts.kind == "cuda":
        return Choice(
            "no", "the passes are fused kernels already, and lines have another length in each step"
        )
    return Choice("no", "it takes up to 80 s, and has little to add to layers of few passes")


def _attention(facts: DeviceFacts, precision: str, virtual_tokens: bool) -> Choice:
    if virtual_tokens:
        return Choice("sdpa", "virtual tokens need masks of their own")
    if facts.kind != "cuda":
        return Choice("sdpa", "short lines by mask, long ones row by row")
    if facts.capability < FLASH_CAPABILITY:
        capability = ".".join(map(str, facts.capability))
        return Choice("sdpa", f"compute capability {capability} has no flash kernels")
    if precision != "bf16":
        return Choice("sdpa", "flash kernels do not compute in fp32")
    return Choice(PACKED, "flash kernels take rows that lie side by side, without masks")


def _layers(facts: DeviceFacts, precision: str, strategy: str) -> Choice:
    if strategy == "zero3":
        return Choice("plain", "each layer gathers its own weights")
    if facts.kind == "cuda" and "liger_kernel" in facts.packages:
        return Choice("liger", "Liger's norms and feed-forward parts, LoRA added inside the products")
    if facts.kind == "cuda":
        return Choice("lean", "fewer passes over memory; Liger's kernels are not installed (extra gpu)")
    if precision == "bf16":
        return Choice("lean but norms", "fewer passes over memory; norms need more digits than bf16 has")
    return Choice("lean", "fewer passes over memory")


def _head_loss(facts: DeviceFacts, strategy: str) -> Choice:
    if strategy in SHARDS_MODEL:
        return Choice("plain", "the head's weights are split over the processes")
    if facts.kind == "cuda" and "liger_kernel" in facts.packages:
        return Choice("liger", "fused linear cross-entropy: logits are never whole in memory")
    return Choice("chunked", "logits are never whole in memory")


@dataclass(frozen=True)
class Installed:
    """What `install` came to: the choices as they are in place, and what the loss is told."""

    choices: Choices
    head_loss: HeadLoss | None
    tells_rows: bool


def install(
    model: Any, choices: Choices, device: torch.device, autocast: Callable[[], Any], *, virtual_tokens: bool
) -> Installed:
    """Put what was chosen into a model that is whole and on its device."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    count = sum(make_lean(model, parts, autocast) for parts in _parts(choices.layers.what, device))
    layers = replace(choices.layers, what=f"{choices.layers.what} ({count})")
    if choices.layers.what != "plain" and not count:
        layers = Choice("plain", "the model's layers are not known")
    attention = _attend_so(choices.attention, model, device, autocast)
    head_loss, loss = _usable(choices.head_loss, model, device)
    made = replace(choices, attention=attention, layers=layers, head_loss=head_loss)
    return Installed(made, loss, tells_rows=not virtual_tokens)


def _attend_so(choice: Choice, model: Any, device: torch.device, autocast: Callable[[], Any]) -> Choice:
    """Let the model attend as chosen, or say why it goes on as before."""
    if choice.what != PACKED:
        return choice
    if reason := why_not_packed(model, device, autocast):
        return Choice("sdpa", reason)
    use_packed_attention(model)
    return choice


def _parts(layers: str, device: torch.device) -> Iterator[Parts]:
    """The operations to try in turn: what one does not fit the next may."""
    if layers == "liger":
        with suppress(*OTHER_KIND):
            yield _liger_parts()
    if layers == "lean but norms":
        yield Parts(rms_norm=None)
    elif layers != "plain":
        yield Parts(rms_norm=_rms_norm) if device.type == "cuda" else Parts()


def _usable(choice: Choice, model: Any, device: torch.device) -> tuple[Choice, HeadLoss | None]:
    """The first way to make the loss that fits the model, from the chosen one down to the plain one."""
    ways: dict[str, HeadLoss] = {"liger": _liger_head_loss, "chunked": chunked_head_loss}
    names = list(ways)
    for name in names[names.index(choice.what) :] if choice.what in ways else []:
        try:
            if (usable := usable_head_loss(model, ways[name], device)) is not None:
                return choice if name == choice.what else Choice(name, f"{choice.what} does not run"), usable
        except OTHER_KIND:
            continue
    if choice.what in ways:
        choice = Choice("plain", "the model does more with logits than its head makes")
    return choice, None


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """PyTorch's fused kernel, which computes in fp32 inside."""
    return functional.rms_norm(x, (x.shape[-1],), weight, epsilon)


def _liger_parts() -> Parts:
    from liger_kernel.ops import LigerFusedGateUpSiLUMulFunction
    from liger_kernel.transformers.functional import liger_rms_norm

    def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        out: Tensor = liger_rms_norm(x, weight, epsilon, in_place=False)
        return out

    def swiglu(gate_and_up: Tensor) -> Tensor:
        out: Tensor = LigerFusedGateUpSiLUMulFunction.apply(gate_and_up)
        return out

    return Parts(rms_norm=rms_norm, swiglu=swiglu)


def _liger_head_loss(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    if not len(targets):  # its kernel takes at least one
        return chunked_head_loss(head, hidden, targets)
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    exact = torch.float32 if head.weight.requires_grad else None
    loss: Tensor = liger_fused_linear_cross_entropy(
        hidden, head.weight, targets, head.bias, reduction="sum", accum_dtype=exact
    )
    return loss
