"""Bases in 4 or 8 bits, by bitsandbytes: loaded for training, and unpacked again to be merged and served."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tuning.errors import InputError
from tuning.spared import spared

# Said on every CPU of some kind, or in every product of a step; nothing that anybody could act on.
KNOWN_NOISE = ("MatMul8bitLt: inputs will be cast", "Failed to load CPU gemm_4bit_forward")


def loading_options(quantization: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What transformers' from_pretrained is told to load a base in `nf4` or `int8`; nothing for `none`.

    4-bit weights are unpacked to `dtype` in each product; `device` is where they are packed. Raises
    InputError where bitsandbytes is missing.
    """
    if quantization == "none":
        return {}
    _require_bitsandbytes()
    from transformers import BitsAndBytesConfig

    packed = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        if quantization == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    return {"quantization_config": packed, "device_map": {"": device}}


@contextmanager
def spared_import(quantization: str) -> Iterator[None]:
    """For a base that is not packed, let PEFT do without bitsandbytes: its import takes a second or more."""
    if quantization != "none":
        yield
        return
    try:
        with spared("bitsandbytes"):
            yield
    finally:
        from peft import import_utils

        import_utils.is_bnb_available.cache_clear()
        import_utils.is_bnb_4bit_available.cache_clear()


def _require_bitsandbytes() -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "A quantized base needs bitsandbytes, which is missing: pip install 'maas-client[quantized]'."
        )
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(KNOWN_NOISE)


def keep_weights_as_they_are(model: Any) -> Any:
    """Let 4-bit layers compute the same in training and evaluation.

    On some CPUs (AVX512-BF16) bitsandbytes repacks the weights in the first evaluation, for products in bf16.
    After that no gradient passes through them: a model that is evaluated before it is trained learns wrongly.
    """
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False
    return model


def format_of(model: Any) -> str:
    """The number format of a model's base: none, nf4 or int8."""
    if getattr(model, "is_loaded_in_4bit", False):
        return "nf4"
    return "int8" if getattr(model, "is_loaded_in_8bit", False) else "none"


def unpack(model: Any, dtype: torch.dtype) -> Any:
    """The same model with plain linear layers in place of packed ones, of the weights that they stand for."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    packed = [
        (name, part) for name, part in model.named_modules() if isinstance(part, Linear4bit | Linear8bitLt)
    ]
    for name, part in packed:
        model.set_submodule(name, _plain(part, dtype))
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
        setattr(model, flag, False)
    for leftover in ("quantization_method", "hf_quantizer"):
        if hasattr(model, leftover):
            delattr(model, leftover)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _plain(part: Any, dtype: torch.dtype) -> nn.Linear:
    """A linear layer with the weights that a packed one stands for."""
    from peft.utils.integrations import dequantize_bnb_weight

    weight = dequantize_bnb_weight(part.weight, state=getattr(part, "state", None))
    with torch.device("meta"):
        plain = nn.Linear(part.in_features, part.out_features, bias=part.bias is not None)
    plain.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if part.bias is not None:
        plain.bias = nn.Parameter(part.bias.to(dtype), requires_grad=False)
    return plain
