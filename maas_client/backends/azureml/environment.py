"""The environment that a job or an endpoint runs in: the bundled one, made once, or one that is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from maas_client.bundled import jobs_folder

if TYPE_CHECKING:
    from maas_client.workspace.session import Workspace

VERSION_DIGITS = 12


@dataclass(frozen=True)
class BundledEnvironment:
    """An image and the packages on top of it (conda's YAML as data).

    `version` is the hash of both, so that what is unchanged is there already, and what is changed never
    meets the old build.
    """

    name: str
    image: str
    conda: Mapping[str, Any]

    @property
    def version(self) -> str:
        """First 12 hexadecimal digits of the hash over the content."""
        text = json.dumps([self.image, self.conda], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:VERSION_DIGITS]

    def __str__(self) -> str:
        """Its name in the workspace: azureml:NAME:VERSION."""
        return f"azureml:{self.name}:{self.version}"


def bundled_environment(purpose: Literal["training", "serving"]) -> BundledEnvironment:
    """The environment that comes with the package, from jobs/environments/."""
    import yaml

    text = (jobs_folder() / "environments" / f"{purpose}.yaml").read_text(encoding="utf-8")
    read = yaml.safe_load(text)
    return BundledEnvironment(read["name"], read["image"], read["conda_file"])


def ensure_environment(workspace: Workspace, environment: BundledEnvironment) -> str:
    """See that the environment is in the workspace; returns its ARM id. May be repeated."""
    from maas_client.transport.commands import put_environment

    return workspace.with_client(
        f"make environment {environment}",
        lambda client: put_environment(
            client, environment.name, environment.version, environment.image, environment.conda
        ),
    )
