"""What a terminal does with `maas deploy`: the same deployment again until it is ready.

python deploying_child.py HOME VERSION SIZE CODE_ID ENVIRONMENT_ID
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from maas_client.backends.azureml.endpoints import AzuremlEndpoints
from maas_client.endpoint import EndpointState
from maas_client.model import ModelRef
from maas_client.settings import settings
from maas_client.spec import DeploySpec
from maas_client.workspace.models import WorkspaceModels
from maas_client.workspace.session import open_workspace


class Parts:
    """Code and environment that are in the workspace already."""

    def __init__(self, code_id: str, environment_id: str) -> None:
        self._ids = (code_id, environment_id)

    def ensure(self, base: Path | str | None) -> tuple[str, str]:
        return self._ids


def main() -> None:
    home, version, size, code_id, environment_id = sys.argv[1:]
    workspace = open_workspace(settings())
    serving = AzuremlEndpoints(
        Path(home),
        workspace=lambda: workspace,
        models=WorkspaceModels(lambda: workspace),
        clock=time.time,
        assets=lambda: Parts(code_id, environment_id),
    )
    spec = DeploySpec(name="card-end", size=size, ttl="900d")
    while serving.deploy(ModelRef("card", int(version)), spec).state is not EndpointState.READY:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
