"""JobSpec: what the user wants, as read from a job file or built in Python.

The text below each key is the documentation: docs/job-file.md and the JSON Schema are generated from it
(specwords.description reads it, and only then: pydantic would read it each time a command starts). The parts
that the training script reads are in trainingspec.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from maas_client.trainingspec import DistributedSpec, EvaluationSpec, MethodSpec, Part, Task, TrainingSpec

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$"
DURATION_PATTERN = r"^[1-9][0-9]{0,5}(s|m|h|d)$"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN)]
FilePath = Annotated[Path, Field(strict=False)]


def duration_s(text: str) -> int:
    """Seconds in a duration such as `90s`, `30m`, `4h` or `2d`. Raises ValueError."""
    if re.fullmatch(DURATION_PATTERN, text) is None:
        raise ValueError(f"{text!r} is not a duration such as 30m or 4h")
    return int(text[:-1]) * _SECONDS[text[-1]]


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
