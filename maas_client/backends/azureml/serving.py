"""What a deployment is made of: the scoring script, its environment, the machines, the request to Azure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from maas_client.backends.azureml.environment import bundled_environment, ensure_environment
from maas_client.backends.azureml.lease import TAG_DEPLOYMENT, TAG_MODEL, TAG_TTL, is_over, lease_tags
from maas_client.backends.basemodels import weights_of
from maas_client.bundled import jobs_folder
from maas_client.cloudpath import CloudPath
from maas_client.errors import PlanError
from maas_client.model import RegisteredModel

if TYPE_CHECKING:
    from maas_client.backends.azureml.online import Endpoint
    from maas_client.spec import DeploySpec
    from maas_client.workspace.files import Files
    from maas_client.workspace.session import Workspace

SCRIPT = "score.py"
BASE_FOLDER = "base-model"
"""Where a base model that is no name of Hugging Face lies in the snapshot of the code."""
MOST_BASE_BYTES = 2 << 30
_NAME = re.compile(r"[a-zA-Z](?:[a-zA-Z0-9]|-(?=[a-zA-Z0-9])){2,31}")
# A model of several GB is fetched and loaded before the first probe can go well: up to 20 minutes.
_PROBE = {"initialDelay": "PT30S", "period": "PT10S", "timeout": "PT5S", "failureThreshold": 120}
# The longest that the service waits for an answer, and how many requests may wait for their turn.
_REQUESTS = {"requestTimeout": "PT3M", "maxConcurrentRequestsPerInstance": 4}


@dataclass(frozen=True)
class Wanted:
    """What a deployment is to be: a registered model on the machines of a job file, until `expires_at`.

    Making one checks what Azure would refuse minutes later. Raises PlanError.
    """

    model: RegisteredModel
    spec: DeploySpec
    expires_at: float

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.spec.name):
            words = f"Azure takes no endpoint named {self.spec.name!r}."
            raise PlanError(words, hint="Take 3 to 32 letters and digits with single hyphens between them.")
        if self.spec.size is None:
            hint = "Set deploy.size (maas models gpus lists sizes), such as Standard_NC24ads_A100_v4."
            raise PlanError(f"Endpoint {self.spec.name} has no machines: deploy.size is missing.", hint=hint)
        self.base  # noqa: B018  asked now, so that a base that cannot be served is refused before anything is

    @property
    def size(self) -> str:
        """The size of the machines."""
        return str(self.spec.size)

    @property
    def deployment(self) -> str:
        """The deployment's name: v{version}-{digits of the size}. Azure wants 3 characters at least.

        A deployment's size cannot be changed, so another size is another deployment.
        """
        digest = hashlib.sha256(self.size.lower().encode()).hexdigest()
        return f"v{self.model.ref.version}-{digest[:4]}"

    @cached_property
    def base(self) -> Path | str | None:
        """The adapter's base: a folder here or an id of Hugging Face; None for whole weights."""
        if not self.model.adapter:
            return None
        base = weights_of(self.model.lineage.base_model)
        words = f"{self.model.ref} is an adapter of {self.model.lineage.base_model}"
        hint = "Take a base from Hugging Face, or train with method: full."
        if isinstance(base, CloudPath):
            raise PlanError(f"{words}, which a deployment cannot mount beside it.", hint=hint)
        if isinstance(base, Path):
            size_bytes = sum(path.stat().st_size for path in base.rglob("*") if path.is_file())
            if size_bytes > MOST_BASE_BYTES:
                raise PlanError(f"{words}, whose {size_bytes >> 30} GiB would go with the code.", hint=hint)
        return base

    @property
    def tags(self) -> dict[str, str]:
        """What the endpoint's tags say when it is wanted so."""
        return {
            TAG_MODEL: str(self.model.ref),
            TAG_DEPLOYMENT: self.deployment,
            **lease_tags(self.spec.ttl, self.expires_at),
        }

    def is_written(self, endpoint: Endpoint, now: float) -> bool:
        """Whether the endpoint's tags say so already, and its time is not over."""
        same = all(endpoint.tags.get(tag) == self.tags[tag] for tag in (TAG_MODEL, TAG_DEPLOYMENT, TAG_TTL))
        return same and not is_over(endpoint.tags, now)


class Assets(Protocol):
    """Where the parts of a deployment come from."""

    def ensure(self, base: Path | str | None) -> tuple[str, str]:
        """The ARM ids of the code's snapshot and of the environment, both there; may be repeated."""


class BundledAssets:
    """The bundled scripts (or `code`, a folder with score.py) and the bundled environment, sent once."""

    def __init__(self, workspace: Workspace, files: Files, *, code: Path | None = None) -> None:
        self._workspace = workspace
        self._files = files
        self._code = code or jobs_folder()

    def ensure(self, base: Path | str | None) -> tuple[str, str]:
        """See Assets. A base that is a folder here goes into the snapshot."""
        from maas_client.workspace.code import register_code

        beside = {BASE_FOLDER: base} if isinstance(base, Path) else {}
        code = register_code(self._workspace, self._files, self._code, beside=beside)
        return code, ensure_environment(self._workspace, bundled_environment("serving"))


def endpoint_body(location: str, wanted: Wanted) -> dict[str, Any]:
    """The request that makes an endpoint: keys, no requests to anyone yet."""
    return {
        "location": location,
        "identity": {"type": "SystemAssigned"},
        "tags": wanted.tags,
        "properties": {"authMode": "Key", "traffic": {}, "properties": {}},
    }


def deployment_body(
    location: str, wanted: Wanted, *, model_id: str, code_id: str, environment_id: str
) -> dict[str, Any]:
    """The request that makes a deployment: what azure-ai-ml sends for a ManagedOnlineDeployment."""
    return {
        "location": location,
        "tags": {TAG_MODEL: str(wanted.model.ref), "maas-run": wanted.model.lineage.run},
        "sku": {"name": "Default", "capacity": wanted.spec.instances},
        "properties": {
            "endpointComputeType": "Managed",
            "model": model_id,
            "codeConfiguration": {"codeId": code_id, "scoringScript": SCRIPT},
            "environmentId": environment_id,
            "environmentVariables": _variables(wanted),
            "instanceType": wanted.size,
            "appInsightsEnabled": False,
            "properties": {},
            "requestSettings": _REQUESTS,
            "livenessProbe": _PROBE,
            "readinessProbe": _PROBE,
        },
    }


def _variables(wanted: Wanted) -> dict[str, str]:
    """What the inference server and score.py read.

    One process holds the model; its threads answer probes while an answer is written, and its timeout (300 s
    otherwise) leaves a large model time to load. A model that needs nothing from Hugging Face asks nothing.
    """
    variables = {
        "MAAS_MODEL_NAME": wanted.spec.name,
        "WORKER_COUNT": "1",
        "WORKER_TIMEOUT": "1800",
        "GUNICORN_CMD_ARGS": "--threads 8",
    }
    if wanted.base is not None:
        variables["MAAS_BASE_MODEL"] = BASE_FOLDER if isinstance(wanted.base, Path) else wanted.base
    return variables if isinstance(wanted.base, str) else {**variables, "HF_HUB_OFFLINE": "1"}
