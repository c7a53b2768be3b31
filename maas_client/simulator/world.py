"""The parts of the simulator in one place, and the names of what it pretends to be."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.simulator.clock import Clock, timestamp
from maas_client.simulator.faults import Faults
from maas_client.simulator.grants import Grants
from maas_client.simulator.state import Resource, Store
from maas_client.simulator.tokens import Tokens

if TYPE_CHECKING:
    from maas_client.simulator.bill import Bill
    from maas_client.simulator.lro import Operations
    from maas_client.simulator.openai_training import Tuner
    from maas_client.simulator.runner import Runner
    from maas_client.simulator.servers import Servers
    from maas_client.simulator.storage import Storage

PROVIDER = "Microsoft.MachineLearningServices"


@dataclass(frozen=True)
class Names:
    """Who the simulated subscription is. `workspace_kind` is Default, Hub or Project."""

    subscription: str = "11111111-2222-3333-4444-555555555555"
    resource_group: str = "simulated-rg"
    workspace: str = "simulated-ws"
    location: str = "eastus2"
    tenant: str = "99999999-8888-7777-6666-555555555555"
    workspace_kind: str = "Default"
    foundry: str = "simulated-foundry"

    @property
    def group_id(self) -> str:
        """ARM id of the resource group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"

    @property
    def workspace_id(self) -> str:
        """ARM id of the workspace."""
        return f"{self.group_id}/providers/{PROVIDER}/workspaces/{self.workspace}"

    @property
    def foundry_id(self) -> str:
        """ARM id of the Foundry resource, which is an account of Azure AI services."""
        return f"{self.group_id}/providers/Microsoft.CognitiveServices/accounts/{self.foundry}"


@dataclass
class Timing:
    """Simulated seconds that things take, page size of lists, and the cap on training steps.

    Commands take real time. `latency_s` are real seconds that every answer is held back. `tuning_steps` caps
    the optimizer steps of a FineTuning job, which really trains the bundled tiny model. `reading_s` is how
    long Foundry reads a file that was sent.
    """

    provisioning_s: float = 60.0
    queue_s: float = 30.0
    finalizing_s: float = 5.0
    page_size: int = 50
    tuning_steps: int = 20
    parallel_jobs: int = 2
    latency_s: float = 0.0
    reading_s: float = 5.0


@dataclass
class World:
    """What every part may use. `folder` is the working folder, `base_url` where the simulator listens."""

    names: Names
    folder: Path
    base_url: str
    clock: Clock
    store: Store
    tokens: Tokens
    timing: Timing
    admin_key: str
    faults: Faults = field(default_factory=Faults)
    quota: dict[str, int] = field(default_factory=dict)
    grants: Grants = field(default_factory=Grants)
    operations: Operations = field(init=False)
    storage: Storage = field(init=False)
    runner: Runner = field(init=False)
    tuner: Tuner = field(init=False)
    servers: Servers = field(init=False)
    bill: Bill = field(init=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    requests: deque[str] = field(default_factory=lambda: deque(maxlen=100_000))

    def now(self) -> str:
        """The simulated time as the service writes it."""
        return timestamp(self.clock.now())

    def system_data(self, earlier: Resource | None = None) -> dict[str, str]:
        """systemData of a resource that is made or changed now."""
        who = {"createdBy": "maas simulate", "createdByType": "User"}
        made = {"createdAt": self.now(), **who}
        if earlier is not None:
            made = {key: value for key, value in earlier["systemData"].items() if key.startswith("created")}
        changed = {
            "lastModifiedAt": self.now(),
            "lastModifiedBy": who["createdBy"],
            "lastModifiedByType": "User",
        }
        return {**made, **changed}

    def workspace_guid(self, workspace_id: str) -> str:
        """The GUID that the data planes know a workspace by."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, workspace_id.lower()))


def resource(path: str, kind: str, properties: Mapping[str, Any], system_data: Mapping[str, str]) -> Resource:
    """A resource as ARM shows it; `kind` follows the provider, such as workspaces/jobs."""
    return {
        "id": path,
        "name": path.rpartition("/")[2],
        "type": f"{PROVIDER}/{kind}",
        "properties": dict(properties),
        "systemData": dict(system_data),
    }
