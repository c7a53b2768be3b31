"""Managed online endpoints of an Azure ML workspace: models served by score.py, versions side by side.

Azure takes minutes for each of several steps. `deploy` looks, does what can be done now and returns; the same
call again goes on. Nothing about an endpoint is kept here but that it was once known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.backends.azureml.deploying import Deploying
from maas_client.backends.azureml.health import Ask, ask_health
from maas_client.backends.azureml.looks import Looks
from maas_client.backends.azureml.online import Endpoint, Online
from maas_client.backends.azureml.rollout import Seen
from maas_client.backends.azureml.serving import Assets, BundledAssets, Wanted
from maas_client.backends.azureml.sight import cost_of_wanted, wanted_of
from maas_client.backends.azureml.traffic import set_traffic, shares_for
from maas_client.endpoint import Billing, EndpointAccess, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import NotFoundError, ServiceError

if TYPE_CHECKING:
    from maas_client.model import ModelRef, RegisteredModel
    from maas_client.spec import DeploySpec
    from maas_client.workspace.models import WorkspaceModels
    from maas_client.workspace.session import Workspace

_NAME = "azureml"
_AT_ONCE = 8


class AzuremlEndpoints:
    """The Serving of an Azure ML workspace, which is opened when it is first needed.

    `assets` are what deployments are made of, `ask` how a deployment is asked whether it answers.
    """

    def __init__(
        self,
        home: Path,
        *,
        workspace: Callable[[], Workspace],
        models: WorkspaceModels,
        clock: Callable[[], float],
        assets: Callable[[], Assets] | None = None,
        ask: Ask = ask_health,
    ) -> None:
        self._known = home / _NAME / "endpoints"
        self._open = workspace
        self._models = models
        self._clock = clock
        self._open_assets = assets or self._bundled
        self._ask = ask

    @cached_property
    def _workspace(self) -> Workspace:
        return self._open()

    @cached_property
    def _online(self) -> Online:
        return Online(self._workspace)

    @cached_property
    def _looks(self) -> Looks:
        return Looks(self._online, ask=self._ask, clock=self._clock)

    @cached_property
    def _deploying(self) -> Deploying:
        return Deploying(
            self._workspace,
            self._online,
            self._looks,
            models=self._models,
            assets=self._open_assets,
            clock=self._clock,
        )

    def _bundled(self) -> Assets:
        from maas_client.workspace.files import Files

        return BundledAssets(self._workspace, Files(self._workspace))

    # -- the contract

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:
        """What the machines cost an hour and for the whole time; sends nothing. Raises PlanError."""
        return cost_of_wanted(Wanted(model, spec, 0.0))

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Do what can be done now towards an endpoint that serves this model, and return at once.

        STARTING means that the same call goes on later; in between the process may die anywhere. A newer
        version, or another size, is put beside the older one and gets all requests once it answers; the older
        one is deleted then. Until it answers, and where it fails, the older one goes on. Raises PlanError for
        what Azure would refuse, NotFoundError for an unknown model, and ConflictError where the name serves
        another model, is not maas's, or is wanted for something else by another terminal.
        """
        registered = self._models.get(model.name, model.version)
        wanted = Wanted(registered, spec, self._clock() + spec.ttl_s)
        self._remember(spec.name)
        return self._deploying.go_on(wanted)

    def status(self, ref: EndpointRef) -> EndpointStatus:
        """Look once, and ask the deployment whether it answers; changes nothing. Raises NotFoundError."""
        seen = self._require(ref)
        return self._looks.status(seen, self._looks.health(seen))

    def list(self) -> tuple[EndpointStatus, ...]:
        """Every endpoint of the workspace that maas made, by name; UNKNOWN where it cannot be looked at."""
        ours = [each for each in self._online.endpoints() if each.model and not each.is_going]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(self._status_or_unknown, ours))
        return tuple(sorted(found, key=lambda status: status.ref.name))

    def _status_or_unknown(self, endpoint: Endpoint) -> EndpointStatus:
        try:
            seen = self._looks.complete(endpoint)
            return self._looks.status(seen, self._looks.health(seen))
        except ServiceError as error:
            return EndpointStatus(
                ref=EndpointRef(_NAME, endpoint.name),
                state=EndpointState.UNKNOWN,
                native_state=f"endpoint {endpoint.native_state}",
                seen_at=self._clock(),
                model=endpoint.model,
                billing=Billing.UNKNOWN,
                message=error.message,
            )

    def access(self, ref: EndpointRef) -> EndpointAccess:
        """Scoring URI and key, also while a newer version is on its way. Raises ConflictError otherwise."""
        seen = self._require(ref)
        health = self._looks.health(seen)
        status = self._looks.status(seen, health)
        answers = health is not None and bool(health.answers) and seen.serving is not None
        if status.state is not EndpointState.READY and not (
            answers and status.state is EndpointState.STARTING
        ):
            raise status.not_ready()
        return EndpointAccess(seen.endpoint.scoring_url, ref.name, self._online.key(ref.name), "score")

    def traffic(self, ref: EndpointRef, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """Percent of the requests by deployment (`v2` names that of version 2). Waits until it is so.

        The deployment with most requests becomes the wanted one: this goes back to an older version while
        that is there. Raises ConflictError where shares do not fit or others changed them meanwhile.
        """
        seen = self._require(ref)
        if shares is not None:
            self._deploying.forget(ref.name)
            clock, sleep = self._workspace.clock, self._workspace.sleep
            set_traffic(self._online, seen, shares_for(seen, shares), clock=clock, sleep=sleep)
            seen = self._require(ref)
        return seen.shares

    def delete(self, ref: EndpointRef) -> None:
        """Begin to delete the endpoint with its deployments, which bill until that is done.

        May be repeated. Raises NotFoundError for one that was never known here.
        """
        seen = self._looks.see(ref.name) if ref.backend == _NAME else None
        if seen is None or not seen.endpoint.model:
            if not self._is_remembered(ref):
                raise self._unknown(ref)
            return
        self._remember(ref.name)
        self._deploying.forget(ref.name)
        if not seen.endpoint.is_going:
            with suppress(NotFoundError):
                self._online.delete_endpoint(ref.name)

    # -- beyond the contract

    def log(self, ref: EndpointRef, *, lines: int = 100) -> tuple[str, ...]:
        """The last lines of the wanted deployment's container, else of the one that serves."""
        seen = self._require(ref)
        chosen = wanted_of(seen) or seen.serving
        return self._online.log(ref.name, chosen.name, lines=lines) if chosen is not None else ()

    # -- what is known

    def _require(self, ref: EndpointRef) -> Seen:
        seen = self._looks.see(ref.name) if ref.backend == _NAME else None
        if seen is None or seen.endpoint.is_going or not seen.endpoint.model:
            raise self._unknown(ref)
        return seen

    def _unknown(self, ref: EndpointRef) -> NotFoundError:
        what = f"There is no endpoint {ref.name} of maas in {self._workspace.target}."
        return NotFoundError(what, operation="look", hint="maas endpoints list shows what is there.")

    def _remember(self, name: str) -> None:
        """Note that an endpoint was known here, so that deleting it again is no mistake."""
        with suppress(OSError):  # a full disk keeps nobody from stopping what bills
            self._known.mkdir(parents=True, exist_ok=True)
            (self._known / name).touch()

    def _is_remembered(self, ref: EndpointRef) -> bool:
        return ref.backend == _NAME and (self._known / ref.name).is_file()
