"""The contract that every backend keeps: Backend, Registry and Serving, opened together as a Platform.

Protocols, not base classes: a backend inherits nothing. tests/contract.py holds the behavior that the
docstrings here promise; the type checker holds the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from maas_client.endpoint import EndpointAccess, EndpointRef, EndpointStatus
    from maas_client.model import Lineage, ModelRef, RegisteredModel
    from maas_client.plan import Plan
    from maas_client.run import Artifact, LogPage, MetricPage, RunRef, RunStatus
    from maas_client.spec import DeploySpec, JobSpec


class Backend(Protocol):
    """Where runs happen. Every call looks once and returns; none waits for a run."""

    name: str

    def plan(self, spec: JobSpec) -> Plan:
        """Decide everything that would be sent. Pure: reads local files, sends nothing. Raises PlanError."""

    def submit(self, plan: Plan) -> RunRef:
        """Start the plan's run and return at once. Submitting the same plan again returns the same run.

        Raises ServiceError; after UnavailableError the same call may be repeated.
        """

    def status(self, ref: RunRef) -> RunStatus:
        """Look once.

        Raises NotFoundError where no such run is known; a failed run is a status, never an exception.
        """

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
        """What a SUCCEEDED run left behind. Raises ConflictError while it has not succeeded."""


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

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Start an endpoint and return at once. The same deployment again returns the endpoint that runs.

        Another version of the same model, or other settings, take its place. Raises ConflictError where the
        name serves another model.
        """

    def status(self, ref: EndpointRef) -> EndpointStatus:
        """Look once. Raises NotFoundError."""

    def list(self) -> tuple[EndpointStatus, ...]:
        """Every endpoint that is known here, whatever its state."""

    def access(self, ref: EndpointRef) -> EndpointAccess:
        """URL and key of a READY endpoint. Raises ConflictError while it is not ready."""

    def delete(self, ref: EndpointRef) -> None:
        """Stop the endpoint and forget it, key included. May be repeated."""


@dataclass(frozen=True)
class Platform:
    """A place that runs jobs and, where it offers them, keeps models and serves them.

    None = not offered here.
    """

    name: str
    jobs: Backend
    models: Registry | None
    endpoints: Serving | None
