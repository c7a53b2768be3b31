"""The parts of a job file that the training script reads: task, method, training, evaluation, processes.

The text below each key is the documentation (maas_client/spec.py). tuning/config.py in jobs/ holds the same
keys and defaults, and a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

_SPREADING = ("ddp", "zero1", "zero2", "zero3", "fsdp")
_OFFLOADS = {
    "none": ("none",),
    "ddp": ("none",),
    "zero1": ("none", "optimizer"),
    "zero2": ("none", "optimizer"),
    "fsdp": ("none", "all"),
}


class Part(BaseModel):
    """A part of the job file: unknown keys are errors, and `8` is a number where `"8"` is text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


class Task(StrEnum):
    """What the model learns to do; decides the row format, the prompt and the metric."""

    CHAT = "chat"
    TEXT_GENERATION = "text-generation"
    CLASSIFICATION = "classification"
    NER = "ner"
    QA = "qa"
    TRANSLATION = "translation"
    SUMMARIZATION = "summarization"
    DOMAIN = "domain"
    MUSIC = "music"


class MethodSpec(Part):
    """How the weights are adapted. A key that the method does not read is an error."""

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
    """`lora` trains small low-rank matrices beside frozen weights, `qlora` does so on a base in 4 bits.

    `rslora`, `dora`, `pissa`, `adalora`, `loha`, `lokr`, `oft`, `vera` and `ia3` adapt the same layers in
    other ways; `prefix`, `prompt` and `p-tuning` train virtual tokens before each text and cannot be merged;
    `full` trains every weight (docs/methods.md).
    """

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the adapter's matrices: more learns more and costs more memory.

    For `oft` the size of the blocks that are rotated, for `vera` that of its shared matrices (take 256).
    """

    alpha: float = Field(default=32, gt=0)
    """Scale of the update: it is multiplied by alpha / rank (by alpha / the root of rank for `rslora`)."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""

    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Layers that are adapted: `all-linear`, or names such as qkv_proj.

    Each name must exist in every block of the model; a full name chooses one layer.
    """

    quantization: Literal["none", "nf4", "int8"] = "none"
    """Number format of the frozen base while training, by bitsandbytes; `qlora` is `lora` with nf4."""

    virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """Virtual tokens that `prefix`, `prompt` and `p-tuning` train."""

    freeze_layers: int = Field(default=0, ge=0, le=1024)
    """With `full`: the first so many layers, and the embeddings, stay as they are."""


class TrainingSpec(Part):
    """What to learn from, how long and how fast."""

    objective: Literal["sft", "dpo"] = "sft"
    """`sft` learns answers, `dpo` learns from pairs of a better and a worse answer (docs/training.md)."""

    beta: float = Field(default=0.1, gt=0, le=100)
    """With `dpo`: how strongly the model is held to the base model."""

    epochs: float = Field(default=3, gt=0, le=1000)
    """Passes over the training rows."""

    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimizer steps, whatever `epochs` says."""

    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""

    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from 0."""

    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""

    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""

    batch_size: int = Field(default=8, ge=1)
    """Sequences a step on each process (of max_length tokens each when packing)."""

    gradient_accumulation: int = Field(default=1, ge=1)
    """Micro-batches whose gradients are added up before a step."""

    max_length: int = Field(default=1024, ge=8)
    """Tokens a sequence; longer rows are cut."""

    packing: bool = True
    """Put several rows into one sequence; attention never crosses from one row to another."""

    seed: int = Field(default=7, ge=0, le=(1 << 32) - 1)
    """Fixes the split, the order of the rows and the initial weights of the adapter."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward pass; `auto` measures which is faster on the device."""

    gradient_checkpointing: Literal["auto", True, False] = "auto"
    """Recompute activations to save memory; `auto` does so only where memory would not suffice."""

    evaluate_every_steps: int | None = Field(default=None, ge=1)
    """Measure the validation loss every so many steps besides the end of each epoch."""

    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    """Save a checkpoint every so many steps besides the end of each epoch."""

    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints to keep."""

    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after so many validations in a row without a lower validation loss."""

    keep_best: bool = False
    """Make the model of the lowest validation loss the result, instead of the last one."""


class EvaluationSpec(Part):
    """How the model is measured before and after training."""

    max_rows: int = Field(default=200, ge=1)
    """Held-out rows to score."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest answer to generate while scoring; without it the task decides (docs/tasks.md)."""


class DistributedSpec(Part):
    """How many processes train together, and what each of them holds (docs/distributed.md)."""

    strategy: Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"] = "none"
    """`none` is one process; `ddp` keeps a copy of everything in each process.

    DeepSpeed's `zero1` splits the optimizer's state over the processes, `zero2` the gradients too, `zero3`
    the parameters too; `fsdp` is PyTorch's way of splitting all three.
    """

    processes: int = Field(default=1, ge=1, le=64)
    """Processes on each machine: one for each GPU."""

    offload: Literal["none", "optimizer", "all"] = "none"
    """What lies in the machine's memory instead of the GPU's: nothing, the optimizer's state, parameters too.

    `zero1` and `zero2` take `optimizer`, `zero3` takes both words, `fsdp` takes `all`.
    """

    @field_validator("processes")
    @classmethod
    def _processes_fit_strategy(cls, processes: int, info: ValidationInfo) -> int:
        if info.data.get("strategy") == "none" and processes > 1:
            raise ValueError(
                f"found {processes} with strategy none; accepted: 1, or strategy: {', '.join(_SPREADING)}"
            )
        return processes

    @field_validator("offload")
    @classmethod
    def _strategy_offloads(cls, offload: str, info: ValidationInfo) -> str:
        strategy = str(info.data.get("strategy"))
        words = _OFFLOADS.get(strategy, ("none", "optimizer", "all"))
        if offload not in words:
            raise ValueError(f"found {offload} with strategy {strategy}; accepted: {', '.join(words)}")
        return offload
