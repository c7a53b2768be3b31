"""The models of the classic route: what the service registered when a job succeeded, with its lineage."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from maas_client.cloudpath import CloudPath
from maas_client.model import Lineage, ModelRef, RegisteredModel, parse_model
from maas_client.run import Artifact
from maas_client.workspace.models import WorkspaceModels

if TYPE_CHECKING:
    from maas_client.workspace.files import Files
    from maas_client.workspace.session import Workspace

_PLACE = re.compile(
    r"azureml://locations/[^/]+/workspaces/[^/]+/models/(?P<name>[^/]+)/versions/(?P<version>\d+)"
)


class ClassicModels:
    """The Registry of the classic route, which is that of the workspace. `files` are its own by default."""

    def __init__(
        self, workspace: Callable[[], Workspace], *, files: Callable[[], Files] | None = None
    ) -> None:
        self._models = WorkspaceModels(workspace, files=files, model_type="mlflow_model")

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        """The version that the service registered under this name, tagged with its lineage.

        Under another name, and for another run, the same files become a further version. The same run again
        returns its version.
        """
        match = _PLACE.fullmatch(str(artifact.model))
        if match is None:
            return self._models.register(name, artifact, lineage)
        ref = ModelRef(match["name"], int(match["version"]))
        if ref.name == parse_model(name)[0]:
            adopted = self._models.adopt(ref, artifact, lineage)
            if adopted is not None:
                return adopted
        files = CloudPath(self._models.uri_of(ref))
        return self._models.register(name, replace(artifact, model_in_cloud=files), lineage)

    def list(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """All versions that maas knows the run of (of one name), newest first."""
        return self._models.list(name)

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        """One version, the newest when None. Raises NotFoundError."""
        return self._models.get(name, version)
