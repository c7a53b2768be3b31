"""A workspace of its own in a simulator, whose jobs are the tiny scripts of the local stage."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from maas_client.backend import Platform
from maas_client.backends.azureml import open_here
from maas_client.backends.azureml.planning import plan_run
from maas_client.command import CommandJob, JsonFile
from maas_client.plan import Plan
from maas_client.simulator import Simulator
from maas_client.simulator.arm import make_workspace
from maas_client.simulator.datastores import make_datastores
from maas_client.spec import JobSpec
from maas_client.transport.workspace import Target
from tests.backends.local_stage import COMMAND, TRAIN

SIZE = "Standard_DS3_v2"


class AzuremlStage:
    """The azureml platform in a new workspace of a simulator, with its home under `root`.

    `patch` points the environment of this process at the workspace.
    """

    def __init__(self, azure: Simulator, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.azure = azure
        self.root = root
        self.mark = uuid.uuid4().hex[:8]
        names = replace(azure.world.names, workspace=f"ws-{self.mark}")
        self.target = Target(names.subscription, names.resource_group, names.workspace)
        make_workspace(azure.world, names.workspace_id, {"kind": "Default"})
        make_datastores(azure.world, names.workspace_id)
        patch.setenv("AZUREML_WORKSPACE_NAME", names.workspace)
        patch.chdir(root)
        self.platform = self.open()
        self.data = root / "rows.jsonl"
        self.data.write_text(f'{{"text": "{self.mark}", "label": "b"}}\n')

    def open(self, home: str = "home") -> Platform:
        """The platform as another process would open it."""
        return open_here(self.root / home, self.azure.world.clock.now)

    def spec(self, *, name: str = "card", **parts: object) -> JobSpec:
        wanted = {
            "name": name,
            "task": "classification",
            "model": "tiny-phi3",
            "backend": "azureml",
            "data": {"train": str(self.data)},
            "compute": {"size": SIZE},
        }
        return JobSpec.model_validate({**wanted, **parts})

    def plan(self, behavior: str, *, name: str = "card", **parts: object) -> Plan:
        """A plan for a function of the local stage's TRAIN by name, or for a call of one."""
        call = behavior if "(" in behavior else f"{behavior}()"
        spec = self.spec(name=name, **parts)
        inputs = {"config": JsonFile(spec.script_config()), "train": self.data, "model": "tiny-phi3"}
        code = self.root / f"code-{abs(hash(call))}"
        code.mkdir(exist_ok=True)
        (code / "train.py").write_text(f"{TRAIN}\n\n{call}\n")
        return plan_run(spec, self.target, CommandJob(COMMAND, code, inputs, ("run",)), on=DAY)

    @property
    def requests(self) -> list[str]:
        """Requests to this workspace so far, without its path."""
        path = self.target.path
        return [each.replace(path, "") for each in self.azure.world.requests if path in each]

    def jobs(self) -> list[str]:
        """Names of all jobs of the workspace."""
        return [each["name"] for each in self.azure.world.store.members(f"{self.target.path}/jobs")]


DAY = datetime.now(UTC).date()
