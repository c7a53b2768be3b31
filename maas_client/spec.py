"""JobSpec: what the user wants, as read from a job file or built in Python.

The text below each key is the documentation: docs/job-file.md and the JSON Schema are generated from it
(specwords.description reads it, and only then: pydantic would read it each time a command starts).
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$"
DURATION_PATTERN = r"^[1-9][0-9]{0,5}(s|m|h|d)$"
_SPREADING = ("ddp", "zero1", "zero2", "zero3", "fsdp")
_OFFLOADS = {
    "none": ("none",),
    "ddp": ("none",),
    "zero1": ("none", "optimizer"),
    "zero2": ("none", "optimizer"),
    "fsdp": ("none", "all"),
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN)]
FilePath = Annotated[Path, Field(strict=False)]


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


def duration_s(text: str) -> int:
    """Seconds in a duration such as `90s`, `30m`, `4h` or `2d`. Raises ValueError."""
    if re.fullmatch(DURATION_PATTERN, text) is None:
        raise ValueError(f"{text!r} is not a duration such as 30m or 4h")
    return int(text[:-1]) * _SECONDS[text[-1]]


class Part(BaseModel):
    """A part of the job file: unknown keys are errors, and `8` is a number where `"8"` is text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


class ValidationSpec(Part):
    """Held-out rows, measured on and never trained on: a file, or a share of the training file."""

    split: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training rows to hold out, chosen by the seed. Not used when `file` is given."""

    file: FilePath | None = None
    """A file of held-out rows, in the format of the training file."""


class DataSpec(Part):
    """The rows to learn from. Paths are relative to the job file."""

    train: FilePath
    """JSON Lines, CSV, TSV, CoNLL, ABC or plain text, with the rows of the task (docs/tasks.md)."""

    validation: ValidationSpec = ValidationSpec()
    """Where the held-out rows come from."""

    chat_template: FilePath | None = None
    """A Jinja file that takes the place of the model's chat template, in training and when served."""


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


class ComputeSpec(Part):
    """Which machines of Azure run the job. Not used on this machine."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9-]{1,31}$")
    """A cluster of the workspace; made, scaled to zero, where it is not there and `size` is given.

    Without a name the job runs on serverless compute.
    """

    size: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]{4,60}$")
    """Size of its machines, such as Standard_NC24ads_A100_v4 (`maas models gpus` lists them)."""

    instances: int = Field(default=1, ge=1, le=100)
    """Machines; `distributed.processes` is the number of processes on each."""

    priority: Literal["dedicated", "low"] = "dedicated"
    """`low` is cheaper, and its machines may be taken away: the run goes on from its newest checkpoint."""

    environment: str | None = Field(default=None, min_length=3)
    """An environment of the workspace or of a registry (azureml:NAME:VERSION, azureml://registries/...).

    Without it one is made from the bundled image and packages.
    """

    shared_memory: str = Field(default="16g", pattern=r"^[1-9][0-9]{0,4}[mg]$")
    """Shared memory of the job's container, such as 16g."""

    timeout: Duration | None = None
    """The run is ended after this long: a number and s, m, h or d."""

    identity: Literal["none", "managed", "user"] = "none"
    """Whose rights the job's code has towards Azure."""


class FoundrySpec(Part):
    """How Azure AI Foundry fine-tunes. Used by backend foundry only."""

    route: Literal["auto", "classic", "openai"] = "auto"
    """`classic` is a FineTuning job of a hub or workspace, `openai` one of a Foundry resource.

    `auto` takes the one that the catalog knows for the model.
    """

    training_type: Literal["standard", "globalStandard", "developerTier"] | None = None
    """Where the openai route trains; without it the service decides."""

    learning_rate_multiplier: float | None = Field(default=None, gt=0, le=10)
    """Learning rate of the openai route, as a multiple of the service's own.

    `training.learning_rate` has no exact counterpart there and is not sent.
    """


class RegisterSpec(Part):
    """Keep the result as a version in the model registry."""

    name: Name
    """Name in the registry; versions count from 1."""


class DeploySpec(Part):
    """Serve the registered version at an endpoint."""

    name: Name
    """Name of the endpoint."""

    ttl: Duration = "4h"
    """The endpoint ends by itself after this long: a number and s, m, h or d."""

    port: int = Field(default=0, ge=0, le=65535)
    """Port on 127.0.0.1 for a local endpoint; 0 takes a free one."""

    size: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]{4,60}$")
    """Size of the machines of a managed online endpoint, such as Standard_NC24ads_A100_v4."""

    instances: int = Field(default=1, ge=1, le=100)
    """Machines of a managed online endpoint."""

    sku: str | None = Field(default=None, pattern=r"^[A-Za-z0-9]{3,40}$")
    """Offer of a Foundry deployment, such as GlobalStandard or DeveloperTier."""

    capacity: int | None = Field(default=None, ge=1)
    """Capacity of a Foundry deployment, in the units of its offer (1,000 tokens a minute)."""

    location: str | None = Field(default=None, pattern=r"^[A-Za-z0-9 ]{4,40}$")
    """Region of a serverless endpoint, where it is not that of the workspace."""

    @property
    def ttl_s(self) -> int:
        """`ttl` in seconds."""
        return duration_s(self.ttl)


class JobSpec(Part):
    """One job: what to train on what, how, where, and what happens to the result."""

    name: Name
    """Name of the job: lower-case letters, digits and hyphens, 2 to 32 characters."""

    task: Task = Field(strict=False)
    """What the model learns to do."""

    model: str = Field(min_length=1)
    """The base model: a catalog name (`maas models list`), a Hugging Face id or a local folder."""

    backend: Literal["local", "azureml", "foundry", "kaito"] = "local"
    """Where the job runs."""

    data: DataSpec
    """The rows to learn from."""

    method: MethodSpec = MethodSpec()
    """How the weights are adapted."""

    training: TrainingSpec = TrainingSpec()
    """What to learn from, how long and how fast."""

    evaluation: EvaluationSpec = EvaluationSpec()
    """How the model is measured before and after."""

    distributed: DistributedSpec = DistributedSpec()
    """How many processes train together."""

    compute: ComputeSpec = ComputeSpec()
    """Which machines of Azure run the job."""

    foundry: FoundrySpec = FoundrySpec()
    """How Azure AI Foundry fine-tunes."""

    register_as: RegisterSpec | None = Field(default=None, alias="register")
    """Keep the result in the model registry."""

    deploy: DeploySpec | None = None
    """Serve the result. Needs `register`."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    @field_validator("deploy")
    @classmethod
    def _deploy_needs_register(cls, deploy: DeploySpec | None, info: ValidationInfo) -> DeploySpec | None:
        if deploy is not None and info.data.get("register_as", deploy) is None:
            raise ValueError("found no register beside it; accepted: register: {name: ...}")
        return deploy

    def script_config(self) -> dict[str, Any]:
        """What the training script reads as its config file: no paths, no names of places."""
        config = self.model_dump(
            mode="json", include={"task", "method", "training", "evaluation", "distributed"}, by_alias=True
        )
        if self.backend != "local":
            config["distributed"]["processes"] *= self.compute.instances
        return {**config, "validation": {"split": self.data.validation.split}}
