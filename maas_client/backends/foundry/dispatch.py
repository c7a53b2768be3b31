"""Runs, models and endpoints of Foundry: each call goes to the route that knows the thing.

A reference names no route. The one that is remembered is asked first, then every other that the settings
name, until one of them knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from maas_client.backends.foundry.classic.machines import is_managed
from maas_client.backends.foundry.memory import Kind, Memory
from maas_client.backends.foundry.planned import config_of
from maas_client.backends.foundry.routing import CATALOG_NAMES, WORDS, Routes, Word
from maas_client.backends.offers import require_offer, today
from maas_client.cloudpath import CloudPath
from maas_client.endpoint import EndpointAccess, EndpointRef, EndpointStatus
from maas_client.errors import NotFoundError, PlanError, ServiceError
from maas_client.run import Artifact, LogPage, MetricPage, RunRef, RunStatus

if TYPE_CHECKING:
    from maas_client.backend import Backend, Platform, Registry, Serving, Watch
    from maas_client.check import Check
    from maas_client.command import CommandJob
    from maas_client.model import Lineage, ModelRef, RegisteredModel
    from maas_client.plan import Plan
    from maas_client.spec import DeploySpec, JobSpec

NAME = "foundry"
T = TypeVar("T")


class FoundryJobs:
    """The Backend of Foundry."""

    name = NAME

    def __init__(self, routes: Routes, memory: Memory, clock: Callable[[], float]) -> None:
        self._routes = routes
        self._memory = memory
        self._clock = clock

    def plan(self, spec: JobSpec, job: CommandJob | None = None) -> Plan:
        """Decide everything; reads local files only. Refuses what the catalog rules out before it asks for
        any setting. Raises PlanError, DataError, SettingsError.
        """
        if job is not None:
            raise PlanError(
                "Azure AI Foundry runs no commands, so it cannot score a model.",
                hint="Deploy the model and ask it; or tune it with backend azureml or local, which score.",
            )
        on = today(self._clock)
        word = self._routes.choose(spec, on)
        if not (word == "classic" and is_managed(spec)):
            require_offer(spec.model, CATALOG_NAMES[word], on=on)
        return self._routes.open(word).jobs.plan(spec)

    def check(self, plan: Plan) -> tuple[Check, ...]:
        """Ask the route of the plan."""
        return self._routes.open(_route_of(plan)).jobs.check(plan)

    def submit(self, plan: Plan) -> RunRef:
        """Send the job by the route that it was planned for."""
        word = _route_of(plan)
        self._memory.keep("runs", plan.run_id, word)
        return self._routes.open(word).jobs.submit(plan)

    def status(self, ref: RunRef) -> RunStatus:
        """Look once. Raises NotFoundError."""
        return self._ask(ref, lambda jobs: jobs.status(ref))

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        """Look once at many runs: those of a remembered route there, the others on every route."""
        asked: dict[Word, list[RunRef]] = {}
        for ref in refs:
            remembered = _word(self._memory.recall("runs", ref.id))
            for word in [remembered] if remembered else self._routes.configured():
                asked.setdefault(word, []).append(ref)
        found: dict[RunRef, RunStatus] = {}
        for word, some in asked.items():
            found.update(self._routes.open(word).jobs.statuses(some))
        return found

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        """Lines after a cursor."""
        return self._ask(ref, lambda jobs: jobs.logs(ref, after=after))

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        """Events after a cursor."""
        return self._ask(ref, lambda jobs: jobs.metrics(ref, after=after))

    def cancel(self, ref: RunRef) -> None:
        """Ask the run to stop and return."""
        self._ask(ref, lambda jobs: jobs.cancel(ref))

    def resume(self, ref: RunRef) -> None:
        """Go on with a run, where its route offers that. Raises ConflictError otherwise."""
        self._ask(ref, lambda jobs: jobs.resume(ref))

    def artifact(self, ref: RunRef) -> Artifact:
        """What a SUCCEEDED run left behind."""
        return self._ask(ref, lambda jobs: jobs.artifact(ref))

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:
        """Bring what the run left into an existing folder."""
        self._ask(ref, lambda jobs: jobs.download(ref, folder, watch=watch))

    def _ask(self, ref: RunRef, call: Callable[[Backend], T]) -> T:
        return first_that_knows(
            self._routes, self._memory, "runs", ref.id, lambda platform: call(platform.jobs)
        )


class FoundryModels:
    """The Registry of Foundry: the models of every route."""

    def __init__(self, routes: Routes, memory: Memory) -> None:
        self._routes = routes
        self._memory = memory

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        """Keep the artifact where it lies."""
        word = _word_of_place(artifact.model) or _word(self._memory.recall("runs", lineage.run)) or "classic"
        return self._registry(word).register(name, artifact, lineage)

    def list(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """All versions (of one name), newest first."""
        found = [model for word in self._routes.configured() for model in self._registry(word).list(name)]
        return tuple(sorted(found, key=lambda model: (model.created_at, model.ref.version), reverse=True))

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        """One version; of two routes that know it, the one that was registered last. Raises NotFoundError."""
        found, missing = [], None
        for word in self._routes.configured():
            try:
                found.append(self._registry(word).get(name, version))
            except NotFoundError as error:
                missing = error
        if missing is not None and not found:
            raise missing
        return max(found, key=lambda model: model.created_at)

    def _registry(self, word: Word) -> Registry:
        registry = self._routes.open(word).models
        if registry is None:
            raise PlanError(f"Foundry's route {word} keeps no models.", hint="Leave out register.")
        return registry


class FoundryEndpoints:
    """The Serving of Foundry: the endpoints of every route."""

    def __init__(self, routes: Routes, memory: Memory, models: FoundryModels) -> None:
        self._routes = routes
        self._memory = memory
        self._models = models

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:
        """What the endpoint would cost on the route that the model lies on."""
        return self._serving(_word_of_place(model.place) or "classic").cost(model, spec)

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Start an endpoint on the route that the model lies on."""
        registered = self._models.get(model.name, model.version)
        word = _word_of_place(registered.place) or "classic"
        self._memory.keep("endpoints", spec.name, word)
        return self._serving(word).deploy(model, spec)

    def status(self, ref: EndpointRef) -> EndpointStatus:
        """Look once. Raises NotFoundError."""
        return self._ask(ref, lambda serving: serving.status(ref))

    def list(self) -> tuple[EndpointStatus, ...]:
        """Every endpoint that this program made, on every route."""
        return tuple(status for word in self._routes.configured() for status in self._serving(word).list())

    def access(self, ref: EndpointRef) -> EndpointAccess:
        """URL and key of a READY endpoint."""
        return self._ask(ref, lambda serving: serving.access(ref))

    def traffic(self, ref: EndpointRef, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """Percent of the requests of each deployment."""
        return self._ask(ref, lambda serving: serving.traffic(ref, shares))

    def delete(self, ref: EndpointRef) -> None:
        """Delete it. One that was made from here and is gone is deleted already; NotFoundError for others."""
        try:
            self._ask(ref, lambda serving: serving.delete(ref))
        except NotFoundError:
            if self._memory.recall("endpoints", ref.name) is None:
                raise

    def _ask(self, ref: EndpointRef, call: Callable[[Serving], T]) -> T:
        return first_that_knows(
            self._routes, self._memory, "endpoints", ref.name, lambda platform: call(_endpoints(platform))
        )

    def _serving(self, word: Word) -> Serving:
        return _endpoints(self._routes.open(word))


def first_that_knows(
    routes: Routes, memory: Memory, kind: Kind, name: str, call: Callable[[Platform], T]
) -> T:
    """The answer of the first route that knows the thing. Raises NotFoundError where none does.

    A route that cannot answer does not keep the others from being asked; its error is raised where nobody
    knows better.
    """
    remembered = _word(memory.recall(kind, name))
    trouble: ServiceError | None = None
    for word in _in_turn(routes, remembered):
        try:
            answer = call(routes.open(word))
        except NotFoundError as error:
            trouble = trouble or error
        except ServiceError as error:
            if remembered == word:
                raise
            trouble = error if trouble is None or isinstance(trouble, NotFoundError) else trouble
        else:
            if remembered != word:
                memory.keep(kind, name, word)
            return answer
    raise trouble or NotFoundError(f"There is no {name} in Azure AI Foundry.", operation="look")


def _in_turn(routes: Routes, remembered: Word | None) -> Iterator[Word]:
    """The remembered route, then those that the settings name, which are asked only when it comes to that."""
    if remembered is None:
        yield from routes.configured()
        return
    yield remembered
    yield from (word for word in WORDS if word != remembered and routes.is_configured(word))


def _endpoints(platform: Platform) -> Serving:
    if platform.endpoints is None:
        raise PlanError("This route of Foundry serves no models.", hint="Leave out deploy.")
    return platform.endpoints


def _route_of(plan: Plan) -> Word:
    """The route that a plan was made for. Raises PlanError."""
    word = _word(str(config_of(plan)["route"]))
    if word is None:
        raise PlanError(
            "The plan names no route of Azure AI Foundry.", hint="Plan the job again: maas plan JOB"
        )
    return word


def _word(text: str | None) -> Word | None:
    return next((word for word in WORDS if word == text), None)


def _word_of_place(place: Path | CloudPath) -> Word | None:
    """The route that a model lies on, by the scheme of its URI."""
    if not isinstance(place, CloudPath):
        return None
    return "classic" if place.uri.startswith("azureml://") else "openai"
