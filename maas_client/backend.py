"""The contract that every backend keeps: Backend, Registry and Serving, opened together as a Platform.

Protocols, not base classes: a backend inherits nothing. tests/contract.py holds the behavior that the
docstrings here promise; the type checker holds the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from maas_client.check import Check
    from maas_client.command import CommandJob
    from maas_client.endpoint import EndpointAccess, EndpointRef, EndpointStatus
    from maas_client.model import Lineage, ModelRef, RegisteredModel
    from maas_client.plan import Plan
    from maas_client.run import Artifact, LogPage, MetricPage, RunRef, RunStatus
    from maas_client.spec import DeploySpec, JobSpec


Watch = Callable[[int, int], None]
"""Told how far a transfer is: bytes done, bytes in all."""


class Backend(Protocol):
    """Where runs happen. Every call looks once and returns; none waits for a run."""

    name: str

    def plan(self, spec: JobSpec, job: CommandJob | None = None) -> Plan:
        """Decide everything that would be sent. Pure: reads local files, sends nothing. Raises PlanError.

        `job` is run instead of the spec's training, such as the scoring of a tuned model.
        """

    def check(self, plan: Plan) -> tuple[Check, ...]:
        """Ask the service whether every step can succeed, the last one too. Reads only.

        What cannot be learned is a Check with `ok` None. Raises ServiceError where nothing can be asked.
        """

    def submit(self, plan: Plan) -> RunRef:
        """Start the plan's run and return at once. Submitting the same plan again returns the same run.

        Raises ServiceError; after UnavailableError the same call may be repeated.
        """

    def status(self, ref: RunRef) -> RunStatus:
        """Look once.

        Raises NotFoundError where no such run is known; a failed run is a status, never an exception.
        """

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        """Look once at many runs, in as few requests as the service allows; unknown runs are left out."""

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        """Lines after a cursor (None = from the start). Each line comes once, whole, in order."""

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        """Events after a cursor (None = from the start). Each event comes once, in order."""

    def cancel(self, ref: RunRef) -> None:
        """Ask the run to stop and return; a finished run is left alone. May be repeated."""

    def resume(self, ref: RunRef) -> None:
        """Start a failed or canceled run again from its newest checkpoint.

        Raises ConflictError where that is not so.
        """

    def artifact(self, ref: RunRef) -> Artifact:
        """What a SUCCEEDED run left behind. Raises ConflictError while it has not succeeded.

        Fetches what people read, not the weights.
        """

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:
        """Bring all that a SUCCEEDED run left, without its checkpoints, into an existing folder.

        Each file is verified by length and hash where the service tells them. What is there whole is not
        fetched again, so a download that was cut off goes on. Raises ConflictError, ServiceError.
        """


class Registry(Protocol):
    """Where versions of tuned models are kept."""

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        """Keep the artifact as the next version of `name`. The same run again returns its version."""

    def list(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """All versions (of one name), newest first."""

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        """One version, the newest when None. Raises NotFoundError."""


class Serving(Protocol):
    """Where models answer."""

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:
        """What the endpoint would cost, in a sentence with price, source and end; "" where nothing bills.

        Pure: sends nothing. Unknown is said as unknown.
        """

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Start an endpoint and return at once. The same deployment again returns the endpoint that runs, or
        goes on with what could not be done before (STARTING says that there is more to do or to wait for).

        Another version of the same model, or other settings, take its place. Raises ConflictError where the
        name serves another model.
        """

    def status(self, ref: EndpointRef) -> EndpointStatus:
        """Look once. Raises NotFoundError."""

    def list(self) -> tuple[EndpointStatus, ...]:
        """Every endpoint that is known here, whatever its state."""

    def access(self, ref: EndpointRef) -> EndpointAccess:
        """URL and key of a READY endpoint. Raises ConflictError while it is not ready."""

    def traffic(self, ref: EndpointRef, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """Percent of the requests that each deployment behind an endpoint gets.

        `shares` sets it first; nobody else's change is overwritten. Raises ConflictError where the shares do
        not fit the deployments.
        """

    def delete(self, ref: EndpointRef) -> None:
        """Stop the endpoint and forget it, key included. May be repeated."""


@dataclass(frozen=True)
class Platform:
    """A place that runs jobs and, where it offers them, keeps models and serves them.

    None = not offered here. `targets` gives what the settings name now, each as Plan.target says it (pure;
    raises SettingsError where they name nothing); None where there is only one place, as on this machine.
    """

    name: str
    jobs: Backend
    models: Registry | None
    endpoints: Serving | None
    targets: Callable[[], tuple[str, ...]] | None = None
