"""A hub-based project of its own in a simulator, whose FineTuning jobs really train the bundled model."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.backend import Platform
from maas_client.backends.foundry import open_here
from maas_client.plan import Plan
from maas_client.simulator import Simulator
from maas_client.simulator.arm import make_workspace
from maas_client.simulator.datastores import make_datastores
from maas_client.simulator.jobs import FINAL
from maas_client.spec import JobSpec

FEW_STEPS, ENDLESS_STEPS = 2, 1_000_000
TRAINING = {"epochs": 1000, "batch_size": 2}


class ClassicStage:
    """The foundry platform on a new project of a simulator, with its home under `root`.

    `patch` points the environment of this process at the project. A plan behaves as the contract names it:
    `succeed` trains two steps, `fail` is failed by the service, `endless` trains until it is stopped. The
    first two are the same run each time; `endless` is a new one.
    """

    def __init__(self, azure: Simulator, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.azure = azure
        self.root = root
        self.mark = uuid.uuid4().hex[:8]
        self.names = replace(azure.world.names, workspace=f"project-{self.mark}")
        make_workspace(azure.world, self.names.workspace_id, {"kind": "Project"})
        make_datastores(azure.world, self.names.workspace_id)
        patch.setenv("AZUREML_WORKSPACE_NAME", self.names.workspace)
        for name in ("FOUNDRY_PROJECT_ENDPOINT", "AZURE_OPENAI_ENDPOINT"):
            patch.delenv(name, raising=False)
        patch.chdir(root)
        self.data = root / "rows.jsonl"
        turns = [("user", f"{self.mark} {{}}"), ("assistant", "ok")]
        self.data.write_text(
            "".join(
                json.dumps({"messages": [{"role": who, "content": say.format(n)} for who, say in turns]})
                + "\n"
                for n in range(8)
            )
        )
        self._endless = 0
        self.platform = self.open()

    def open(self, home: str = "home") -> Platform:
        """The platform as another process would open it."""
        return open_here(self.root / home, self.azure.world.clock.now)

    def spec(self, *, name: str = "card", **parts: object) -> JobSpec:
        wanted = {
            "name": name,
            "task": "chat",
            "model": "Phi-4-mini-instruct",
            "backend": "foundry",
            "data": {"train": str(self.data)},
            "training": TRAINING,
            "register": {"name": name},
        }
        return JobSpec.model_validate({**wanted, **parts})

    def plan(self, behavior: str, *, name: str = "card", **parts: object) -> Plan:
        timing = self.azure.world.timing
        timing.tuning_steps = ENDLESS_STEPS if behavior == "endless" else FEW_STEPS
        self._endless += behavior == "endless"
        seed = {"succeed": 7, "fail": 8, "endless": 100 + self._endless}[behavior]
        plan = self.platform.jobs.plan(self.spec(name=name, training={**TRAINING, "seed": seed}, **parts))
        if behavior == "fail":
            words = "The data is bad, says the service."
            self.azure.fault("job_fail", match=plan.run_id, message=words, times=0)
        return plan

    @property
    def requests(self) -> list[str]:
        """Requests to this project so far, without its path."""
        path = self.names.workspace_id
        return [each.replace(path, "") for each in self.azure.world.requests if path in each]

    def jobs(self) -> list[str]:
        """Names of all jobs of the project."""
        return [each["name"] for each in self.azure.world.store.members(f"{self.names.workspace_id}/jobs")]

    def end_all(self) -> None:
        """Nothing that a test started goes on or is remembered."""
        self.azure.world.faults.clear()
        for job in self.azure.world.store.members(f"{self.names.workspace_id}/jobs"):
            if job["properties"]["status"] not in FINAL:
                self.azure.world.runner.cancel(job)

    def forget(self) -> None:
        """No endpoint is left, and of each model only what the service registered first."""
        store, path = self.azure.world.store, self.names.workspace_id
        for endpoint in store.members(f"{path}/serverlessEndpoints"):
            self.azure.world.servers.end(endpoint["id"])
            store.delete(endpoint["id"])
        for name in store.names(f"{path}/models"):
            for version in store.members(f"{path}/models/{name}/versions"):
                if name != "card" or version["name"] != "1":
                    store.delete(version["id"])
