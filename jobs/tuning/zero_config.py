"""DeepSpeed's config, made from ours and checked before DeepSpeed sees it; nobody writes one by hand.

Only the standard library is imported.
"""

from __future__ import annotations

import json
from typing import Any

from tuning.config import Config
from tuning.errors import InputError

BUCKET = 25_000_000
"""Numbers that are reduced or gathered at once: 100 MB in fp32."""
_WHOLE_NUMBERS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "steps_per_print",
)
_NEVER = 1 << 62


def zero_config(config: Config, stage: int, *, trained: int, on_gpu: bool) -> dict[str, Any]:
    """What DeepSpeed is told for a run that trains `trained` numbers.

    No operation of DeepSpeed is compiled for it: the optimizer is PyTorch's, also in offloaded memory.
    """
    training, processes = config.training, config.distributed.processes
    bucket = max(2, min(BUCKET, trained) // 2 * 2)
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": on_gpu,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if stage == 3:
        zero |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_max_live_parameters": 2 * BUCKET,
            "stage3_max_reuse_distance": BUCKET,
        }
    away = {"device": "cpu", "pin_memory": on_gpu}
    if config.distributed.offload != "none":
        zero["offload_optimizer"] = away
    if config.distributed.offload == "all":
        zero["offload_param"] = away
    made: dict[str, Any] = {
        "train_batch_size": training.batch_size * training.gradient_accumulation * processes,
        "train_micro_batch_size_per_gpu": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation,
        "gradient_clipping": float(training.max_grad_norm),
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": _NEVER,
    }
    if training.precision == "bf16":  # no module's gradients are reduced in bf16
        made["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    check_zero_config(made, processes)
    return made


def check_zero_config(made: dict[str, Any], processes: int) -> None:
    """Raise InputError where types are wrong ("8" for 8) or the batch sizes do not multiply."""
    for key in _WHOLE_NUMBERS:
        value = made.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"DeepSpeed's {key} is {json.dumps(value)}; accepted: a whole number from 1.")
    stage = made["zero_optimization"]["stage"]
    if isinstance(stage, bool) or stage not in (1, 2, 3):
        raise InputError(f"DeepSpeed's zero_optimization.stage is {json.dumps(stage)}; accepted: 1, 2 or 3.")
    micro, accumulated = made["train_micro_batch_size_per_gpu"], made["gradient_accumulation_steps"]
    if made["train_batch_size"] != micro * accumulated * processes:
        raise InputError(
            f"DeepSpeed's train_batch_size is {made['train_batch_size']}, but {micro} sequences x "
            f"{accumulated} micro-batches x {processes} processes are {micro * accumulated * processes}."
        )
