"""How the weights are adapted: one table of methods, and the resolution of layer names that they share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tuning.config import MethodConfig
from tuning.errors import InputError


@dataclass(frozen=True)
class Method:
    """`prepare(model, config)` gives the model to train; `is_adapter`: an adapter alone is trained."""

    is_adapter: bool
    prepare: Callable[[nn.Module, MethodConfig], nn.Module]


def _prepare_full(model: nn.Module, _config: MethodConfig) -> nn.Module:
    return model.requires_grad_(True)


def _prepare_lora(model: nn.Module, config: MethodConfig) -> nn.Module:
    from peft import LoraConfig, get_peft_model  # PEFT costs seconds to import: only adapters pay for it

    adapter = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=resolve_targets(model, config.target_modules),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        adapted: nn.Module = get_peft_model(model, adapter)
    return adapted


METHODS = {
    "lora": Method(is_adapter=True, prepare=_prepare_lora),
    "full": Method(is_adapter=False, prepare=_prepare_full),
}


def resolve_targets(model: nn.Module, wanted: str | list[str]) -> list[str]:
    """The layer names that get an adapter, checked against the linear layers that the model really has.

    "all-linear" is every linear layer but the output head. Raises InputError if any name matches no layer.
    """
    layers = linear_layers(model)
    existing = sorted({name.rpartition(".")[2] for name in layers})
    if wanted == "all-linear":
        return existing
    names = [wanted] if isinstance(wanted, str) else wanted
    missing = [name for name in names if not any(_matches(layer, name) for layer in layers)]
    if missing:
        raise InputError(
            f"method.target_modules names {', '.join(missing)}, which the model does not have; "
            f"accepted: all-linear, or some of {', '.join(existing)}."
        )
    return names


def linear_layers(model: nn.Module) -> list[str]:
    """Full names of the linear layers, without the output head."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head]


def _matches(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all, trainable) parameters; shared ones count once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)
