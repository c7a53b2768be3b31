"""The classic route against a simulator in memory: each opening is another process, whose wire can be cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from maas_client.backend import Platform
from maas_client.backends.foundry.classic.endpoints import ClassicEndpoints
from maas_client.backends.foundry.classic.jobs import ClassicJobs
from maas_client.backends.foundry.classic.models import ClassicModels
from maas_client.backends.foundry.classic.planning import plan_run
from maas_client.errors import NotFoundError
from maas_client.model import Lineage, ModelRef, RegisteredModel
from maas_client.plan import Plan
from maas_client.run import Artifact
from maas_client.settings import Settings
from maas_client.simulator.world import World
from maas_client.spec import JobSpec
from maas_client.transport.blobs import Blob
from maas_client.transport.workspace import Target
from maas_client.workspace.datastores import Place
from tests.simulator.boundaries import Boundaries, open_with_boundaries

DAY = date(2026, 11, 26)
ROWS = "".join(
    f'{{"messages": [{{"role": "user", "content": "hi {n}"}}, {{"role": "assistant", "content": "ok"}}]}}\n'
    for n in range(10)
)


class Shelf:
    """Files of the workspace's datastore, in memory. `sent` are the paths of all uploads."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.sent: list[str] = []

    def list(self, place: Place) -> list[Blob]:
        return [
            Blob(path, len(data), None, "e", 0.0)
            for path, data in self.blobs.items()
            if path.startswith(place.path)
        ]

    def upload(self, source: Path, place: Place, *, watch: object = None) -> None:
        self.blobs[place.path] = source.read_bytes()
        self.sent.append(place.path)

    def read(self, place: Place, *, offset: int = 0, limit: int | None = None) -> bytes:
        if place.path not in self.blobs:
            raise NotFoundError(f"There is nothing at {place}.")
        return self.blobs[place.path][offset : None if limit is None else offset + limit]

    def download(self, place: Place, folder: Path, *, ignore: object = (), watch: object = None) -> None:
        for path, data in self.blobs.items():
            if path.startswith(place.path):
                (folder / path.removeprefix(place.path)).write_bytes(data)


@dataclass
class Room:
    """A workspace that has seen nothing, and the route's platform as further processes open it."""

    world: World
    folder: Path
    shelf: Shelf = field(default_factory=Shelf)

    @property
    def target(self) -> Target:
        names = self.world.names
        return Target(names.subscription, names.resource_group, names.workspace)

    def open(self) -> tuple[Platform, Boundaries]:
        workspace, wire = open_with_boundaries(self.world)
        shelf: Any = self.shelf
        models = ClassicModels(lambda: workspace, files=lambda: shelf)
        jobs: Any = ClassicJobs(
            settings_of(self.target),
            self.folder / "home",
            workspace=lambda: workspace,
            clock=self.world.clock.now,
            files=lambda: shelf,
        )
        return Platform("foundry", jobs, models, ClassicEndpoints(lambda: workspace, models)), wire

    def spec(self, **parts: Any) -> JobSpec:
        path = self.folder / "rows.jsonl"
        path.write_text(ROWS)
        wanted = {
            "name": "card",
            "task": "chat",
            "model": "Phi-4-mini-instruct",
            "backend": "foundry",
            "data": {"train": str(path)},
            "register": {"name": "card"},
        }
        return JobSpec.model_validate({**wanted, **parts})

    def plan(self, **parts: Any) -> Plan:
        return plan_run(self.spec(**parts), self.target, on=DAY, region="eastus2")

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs that are there, by name."""
        return {each["name"]: each for each in self.world.store.members(f"{self.target.path}/jobs")}

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """The endpoints that are there, by name."""
        found = self.world.store.members(f"{self.target.path}/serverlessEndpoints")
        return {each["name"]: each for each in found}

    def end(self, name: str, word: str) -> dict[str, Any]:
        """Let a job have ended so, without training anything."""
        job = self.jobs()[name]
        job["properties"]["status"] = word
        return job

    def tuned(self, name: str = "card", version: int = 1, *, job: str = "card-1") -> None:
        """A version as the service registers it."""
        uri = f"azureml://datastores/workspaceblobstore/paths/azureml/{job}/model/"
        path = f"{self.target.path}/models/{name}/versions/{version}"
        properties = {
            "tags": {"task": "ChatCompletion"},
            "properties": {"azureml.finetuning.jobName": job},
            "modelType": "mlflow_model",
            "modelUri": uri,
            "jobName": job,
            "isArchived": False,
        }
        system = {"createdAt": datetime.fromtimestamp(self.world.clock.now(), UTC).isoformat()}
        self.world.store.put(
            path, {"id": path, "name": str(version), "properties": properties, "systemData": system}
        )

    def registered(
        self, name: str = "card", version: int = 1, *, base: str = "Phi-4-mini-instruct"
    ) -> RegisteredModel:
        """A version of ours, in the registry."""
        job = f"{name}-run-{version}"
        self.tuned(name, version, job=job)
        platform, _ = self.open()
        assert platform.models is not None
        place = platform.models.get(name, version).place
        artifact = Artifact(self.folder, {"after": {"loss": 1.5}}, place)  # type: ignore[arg-type]
        return platform.models.register(name, artifact, Lineage(job, base, "chat", "lora"))

    @staticmethod
    def ref(text: str) -> ModelRef:
        name, _, version = text.partition(":")
        return ModelRef(name, int(version))


def settings_of(target: Target) -> Settings:
    """Settings that name a workspace, whatever the environment says."""
    return Settings(
        _env_file=None,
        azure_subscription_id=target.subscription_id,
        azure_resource_group=target.resource_group,
        azureml_workspace_name=target.workspace,
        azure_location=None,
    )
