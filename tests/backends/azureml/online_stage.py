"""Endpoints of a workspace in memory: requests are counted and lost, deployments answer as they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maas_client.backends.azureml.endpoints import AzuremlEndpoints
from maas_client.backends.azureml.health import Health
from maas_client.cloudpath import CloudPath
from maas_client.endpoint import EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import UnavailableError
from maas_client.model import Lineage, ModelRef
from maas_client.run import Artifact
from maas_client.spec import DeploySpec
from maas_client.transport.blobs import Blob
from maas_client.workspace.datastores import Place
from maas_client.workspace.models import WorkspaceModels
from tests.simulator.boundaries import Boundaries, open_with_boundaries
from tests.simulator.inprocess import make_world

SIZE = "Standard_NC24ads_A100_v4"
FAMILY = f"family of {SIZE}"
NAME = "card-end"
REF = EndpointRef("azureml", NAME)
STEP_S = 61.0
MOST_LOOKS = 30


class Shelf:
    """Files of a datastore that only lists."""

    def list(self, place: Place) -> list[Blob]:
        return [Blob(f"{place.path}adapter", 100, None, "e", 0.0)]


class Logs:
    """Stands for the processes that answer: only their log lines are asked for."""

    def __init__(self) -> None:
        self.text = ""
        self.ended: list[str] = []

    def log(self, path: str) -> str:
        return self.text

    def end(self, path: str) -> None:
        self.ended.append(path)


class Parts:
    """Assets that are always there; counts how often they were asked for, by base."""

    def __init__(self) -> None:
        self.asked: list[Path | str | None] = []

    def ensure(self, base: Path | str | None) -> tuple[str, str]:
        self.asked.append(base)
        return "/codes/maas/versions/1", "/environments/maas-serving/versions/1"


class OnlineStage:
    """A world with registered models `card:1`, `card:2` and `other:1`; endpoints are opened at will.

    `health` maps a deployment's name to how it answers; the others answer.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.world = make_world(root, kind="Default")
        self.logs = Logs()
        self.world.servers = self.logs  # type: ignore[assignment]
        self.world.quota[FAMILY] = 10_000
        self.parts = Parts()
        self.health: dict[str, Health] = {}
        self.asked: list[tuple[str, str]] = []
        self.served = False
        workspace, _ = open_with_boundaries(self.world)
        models = WorkspaceModels(lambda: workspace, files=Shelf)  # type: ignore[arg-type,return-value]
        for number, name in enumerate(("card", "card", "other")):
            uri = f"azureml://datastores/workspaceblobstore/paths/maas/run-{number}/run/model/"
            lineage = Lineage(f"run-{number}", "tiny-phi3", "chat", "lora")
            models.register(name, Artifact(root, {"adapter": True}, CloudPath(uri)), lineage)
        self.v1 = ModelRef("card", 1)
        self.v2 = ModelRef("card", 2)
        self.other = ModelRef("other", 1)

    def open(
        self, home: str = "home", *, sleep: Callable[[float], None] | None = None
    ) -> tuple[AzuremlEndpoints, Boundaries]:
        """The endpoints as another process opens them, and its wire."""
        workspace, wire = open_with_boundaries(self.world)
        workspace.sleep = sleep or workspace.sleep
        serving = AzuremlEndpoints(
            self.root / home,
            workspace=lambda: workspace,
            models=WorkspaceModels(lambda: workspace, files=Shelf),  # type: ignore[arg-type,return-value]
            clock=self.world.clock.now,
            assets=lambda: self.parts,
            ask=self._ask,
        )
        return serving, wire

    def _ask(self, url: str, key: str, deployment: str) -> Health:
        self.asked.append((url, deployment))
        assert key
        return self.health.get(deployment, Health(answers=True))

    def drive(
        self,
        serving: AzuremlEndpoints,
        model: ModelRef,
        spec: DeploySpec | None = None,
        *,
        until: Callable[[EndpointStatus], bool] = lambda status: status.state is not EndpointState.STARTING,
    ) -> EndpointStatus:
        """Deploy again and again, a minute apart, as whoever waits does; lost answers are looked at again."""
        for _ in range(MOST_LOOKS):
            try:
                status = serving.deploy(model, spec or wanted())
            except UnavailableError:
                continue
            if until(status):
                return status
            self.pass_time()
        raise AssertionError(f"{status} after {MOST_LOOKS} looks")

    def ready(self, model: ModelRef, spec: DeploySpec | None = None) -> EndpointStatus:
        """Deploy in a process of its own until it is ready."""
        status = self.drive(self.open()[0], model, spec)
        assert status.state is EndpointState.READY, status
        return status

    def pass_time(self, seconds: float = STEP_S) -> None:
        """Let operations come to their end."""
        self.world.clock.move_on(seconds)
        self.world.operations.settle()

    # -- what is at Azure

    @property
    def _start(self) -> str:
        return f"{self.world.names.workspace_id}/onlineEndpoints"

    def endpoints(self) -> list[dict[str, Any]]:
        return self.world.store.members(self._start)

    def endpoint(self, name: str = NAME) -> dict[str, Any]:
        found = self.world.store.get(f"{self._start}/{name}")
        assert found is not None
        return found

    def deployments(self, name: str = NAME) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.world.store.members(f"{self._start}/{name}/deployments")}

    def traffic(self, name: str = NAME) -> dict[str, int]:
        shares: dict[str, int] = self.endpoint(name)["properties"]["traffic"]
        return shares


def wanted(**parts: Any) -> DeploySpec:
    return DeploySpec.model_validate({"name": NAME, "size": SIZE, "ttl": "4h", **parts})
