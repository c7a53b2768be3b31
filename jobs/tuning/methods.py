"""How the weights are adapted: one table of methods. PEFT makes the adapters, bitsandbytes the small bases.

Nothing heavy is imported until a method is prepared, so that the client can read the table too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tuning import trainables
from tuning.anatomy import (
    Anatomy,
    anatomy_of,
    is_frozen,
    last_part,
    linear_layers,
    logical_size,
    resolve_targets,
)
from tuning.config import MethodConfig
from tuning.errors import InputError

__all__ = ["METHODS", "Method", "count_parameters", "quantization_of", "resolve_targets"]

NF4, INT8 = frozenset({"nf4"}), frozenset({"int8"})
QUANTIZED = NF4 | INT8
# An exact singular value decomposition is fast up to this width; above it a randomized one takes its place.
WIDE = 1024


class AroundStep(Protocol):
    """What a method does in each optimizer step besides training."""

    def before(self) -> None:
        """Called with whole gradients, before they are clipped."""

    def after(self, step: int) -> None:
        """Called when the weights have moved, while their gradients are still there; steps count from 1."""


class NothingMore:
    """Most methods only train."""

    def before(self) -> None:
        """Nothing to add to the gradients."""

    def after(self, step: int) -> None:
        """Nothing to do with the new weights."""


@dataclass(frozen=True)
class Method:
    """One way to adapt a model.

    `prepare(model, config, steps)` gives the model to train in `steps` steps, and raises InputError where
    config and model do not fit; `count(anatomy, config)` says how many numbers that will be. `keys` are the
    keys of MethodConfig that it reads besides `quantization`, whose formats that it can stand on are in
    `takes_quantized`. `fp32_base`: the base is loaded in fp32 whatever the precision. `recomputes`: gradient
    checkpointing is possible. `moments` are the numbers that the optimizer keeps for each trained one.
    """

    prepare: Callable[..., Any]
    count: Callable[[Anatomy, MethodConfig], int]
    keys: frozenset[str]
    takes_quantized: frozenset[str] = frozenset()
    is_adapter: bool = True
    is_mergeable: bool = True
    fp32_base: bool = False
    recomputes: bool = True
    moments: int = 2
    around_step: Callable[[Any, Any], AroundStep] = lambda _model, _optimizer: NothingMore()


def quantization_of(config: MethodConfig) -> str:
    """The format of the frozen base: none, nf4 or int8."""
    return "nf4" if config.name == "qlora" else config.quantization


def count_parameters(model: Any) -> tuple[int, int]:
    """(all, trainable) parameters; shared ones count once, packed ones as the numbers that they stand for."""
    sizes = [(logical_size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def _prepare_full(model: Any, config: MethodConfig, _steps: int = 1) -> Any:
    model.requires_grad_(True)
    if config.freeze_layers:
        trainables.full(anatomy_of(model), config)  # raises where there are too few layers
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not is_frozen(name, config.freeze_layers)
    return model


def _adapter(configure: Callable[[Any, MethodConfig, int], Any]) -> Callable[..., Any]:
    """A `prepare` that puts PEFT's adapter on the model; `configure(model, config, steps)` says which."""

    def prepare(model: Any, config: MethodConfig, steps: int = 1) -> Any:
        from tuning.quantization import spared_import

        with spared_import(quantization_of(config)), warnings.catch_warnings():
            from peft import get_peft_model  # PEFT costs seconds to import: only adapters pay for it

            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
            return get_peft_model(model, configure(model, config, steps))

    return prepare


def _layers(model: Any, config: MethodConfig) -> dict[str, Any]:
    """What every adapter on layers is told."""
    targets = resolve_targets(linear_layers(model), config.target_modules)
    return {"target_modules": targets, "task_type": "CAUSAL_LM"}


def _lora(**more: Any) -> Callable[..., Any]:
    def configure(model: Any, config: MethodConfig, _steps: int) -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            **more,
            **_layers(model, config),
        )

    return _adapter(configure)


def _prepare_pissa(model: Any, config: MethodConfig, _steps: int = 1) -> Any:
    """LoRA that begins with the main directions of each weight, which are taken out of the base."""
    from tuning.pissa import remember_start

    width = max(min(shape) for shape in linear_layers(model).values())
    start = "pissa" if width <= WIDE else "pissa_niter_16"
    return remember_start(_lora(init_lora_weights=start)(model, config))


def _adalora(model: Any, config: MethodConfig, steps: int) -> Any:
    """A warm-up at full rank, ranks taken away in the middle, and a last part with what is left."""
    from peft import AdaLoraConfig

    if steps < 2:
        raise InputError("adalora gives ranks away over the steps and needs at least 2; train longer.")
    rank = trainables.initial_rank(config)
    return AdaLoraConfig(
        init_r=rank,
        target_r=config.rank,
        lora_alpha=config.alpha * rank / config.rank,  # PEFT divides by the rank that it begins with
        lora_dropout=config.dropout,
        total_step=steps,
        tinit=steps // 10,
        tfinal=steps * 3 // 10,
        deltaT=max(1, steps // 100),
        **_layers(model, config),
    )


def _prepare_adalora(model: Any, config: MethodConfig, steps: int = 1) -> Any:
    adapted = _adapter(_adalora)(model, config, steps)
    for name, value in adapted.named_parameters():
        if ".ranknum." in name:  # PEFT lets it learn where it casts it: on a base that is not fp32
            value.requires_grad = False
    return adapted


def _around_adalora(model: Any, optimizer: Any) -> AroundStep:
    from tuning.adalora import RankAllocation

    return RankAllocation(model, optimizer)


def _loha(model: Any, config: MethodConfig, _steps: int) -> Any:
    from peft import LoHaConfig

    return LoHaConfig(r=config.rank, alpha=config.alpha, **_layers(model, config))


def _lokr(model: Any, config: MethodConfig, _steps: int) -> Any:
    from peft import LoKrConfig

    return LoKrConfig(r=config.rank, alpha=config.alpha, **_layers(model, config))


def _oft(model: Any, config: MethodConfig, _steps: int) -> Any:
    from peft import OFTConfig

    trainables.oft(anatomy_of(model), config)  # raises where the blocks do not fit
    return OFTConfig(oft_block_size=config.rank, **_layers(model, config))


def _vera(model: Any, config: MethodConfig, _steps: int) -> Any:
    """The shared random matrices are saved with the adapter: another machine might draw others."""
    from peft import VeraConfig

    return VeraConfig(
        r=config.rank, vera_dropout=config.dropout, save_projection=True, **_layers(model, config)
    )


def _ia3(model: Any, config: MethodConfig, _steps: int) -> Any:
    from peft import IA3Config

    told = _layers(model, config)
    inner = [name for name in told["target_modules"] if last_part(name) in trainables.FEEDFORWARD_OUT]
    return IA3Config(feedforward_modules=inner, **told)


def _prefix(_model: Any, config: MethodConfig, _steps: int) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(num_virtual_tokens=config.virtual_tokens, task_type="CAUSAL_LM")


def _prompt(_model: Any, config: MethodConfig, _steps: int) -> Any:
    """Begins with the embeddings of some real tokens: random numbers would be far longer than these."""
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        num_virtual_tokens=config.virtual_tokens,
        prompt_tuning_init="SAMPLE_VOCAB",
        task_type="CAUSAL_LM",
    )


def _p_tuning(_model: Any, config: MethodConfig, _steps: int) -> Any:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(
        num_virtual_tokens=config.virtual_tokens,
        encoder_hidden_size=trainables.PROMPT_ENCODER_WIDTH,
        task_type="CAUSAL_LM",
    )


def _virtual(configure: Callable[[Any, MethodConfig, int], Any]) -> Callable[..., Any]:
    """A `prepare` that puts virtual tokens before every text."""

    def prepare(model: Any, config: MethodConfig, steps: int = 1) -> Any:
        from tuning.virtualtokens import read_virtual_tokens

        return read_virtual_tokens(_adapter(configure)(model, config, steps))

    return prepare


def _keys(words: str) -> frozenset[str]:
    return frozenset(words.split())


LOW_RANK, VIRTUAL = _keys("rank alpha dropout target_modules"), _keys("virtual_tokens")

METHODS: Mapping[str, Method] = {
    "lora": Method(_lora(), trainables.low_rank, LOW_RANK, QUANTIZED),
    "rslora": Method(_lora(use_rslora=True), trainables.low_rank, LOW_RANK, QUANTIZED),
    "dora": Method(_lora(use_dora=True), trainables.dora, LOW_RANK, NF4),
    "pissa": Method(_prepare_pissa, trainables.low_rank, LOW_RANK, fp32_base=True),
    "adalora": Method(
        _prepare_adalora,
        trainables.adalora,
        LOW_RANK,
        QUANTIZED,
        moments=4,  # AdamW's two, and how much each number matters and varies
        around_step=_around_adalora,
    ),
    "loha": Method(_adapter(_loha), trainables.loha, _keys("rank alpha target_modules"), INT8),
    "lokr": Method(_adapter(_lokr), trainables.lokr, _keys("rank alpha target_modules"), INT8),
    "oft": Method(_adapter(_oft), trainables.oft, _keys("rank target_modules"), QUANTIZED),
    "vera": Method(_adapter(_vera), trainables.vera, _keys("rank dropout target_modules"), QUANTIZED),
    "ia3": Method(_adapter(_ia3), trainables.ia3, _keys("target_modules"), QUANTIZED),
    "prefix": Method(
        _virtual(_prefix), trainables.prefix, VIRTUAL, QUANTIZED, is_mergeable=False, recomputes=False
    ),
    "prompt": Method(_virtual(_prompt), trainables.prompt, VIRTUAL, QUANTIZED, is_mergeable=False),
    "p-tuning": Method(_virtual(_p_tuning), trainables.p_tuning, VIRTUAL, QUANTIZED, is_mergeable=False),
    "qlora": Method(_lora(), trainables.low_rank, LOW_RANK, NF4),
    "full": Method(_prepare_full, trainables.full, _keys("freeze_layers"), is_adapter=False, fp32_base=True),
}
