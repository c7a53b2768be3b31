"""A place that keeps the contract of maas_client/backend.py in memory, and can be cut off at any step.

It honors the Protocols, so that projects and journeys are tested without starting anything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from maas_client.backend import Platform, Watch
from maas_client.check import Check
from maas_client.command import CommandJob, training_command
from maas_client.endpoint import Billing, EndpointAccess, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError, MaasError, NotFoundError
from maas_client.model import Lineage, ModelRef, RegisteredModel
from maas_client.plan import Plan, PlanStep, job_hashes
from maas_client.run import Artifact, LogPage, MetricPage, RunRef, RunState, RunStatus
from maas_client.spec import DeploySpec, JobSpec

NAME = "local"
RESULT = {"metric": "accuracy", "before": {"accuracy": 0.1}, "after": {"accuracy": 0.9}}
SAMPLE = {"prompt": "Where is my card?", "expected": "card_arrival", "before": "?", "after": "card_arrival"}


class CutOffError(BaseException):
    """The process is gone at this point: no code of it runs any more."""


@dataclass
class World:
    """What outlives a process. `cut_at` is the boundary to die at: two a call, around its effect.

    With `named` it is a service, and these are the targets that the settings name. `trouble` is raised by
    every listing and every look at an endpoint.
    """

    folder: Path
    url: str = "http://127.0.0.1:9"
    looks_until_end: int = 2
    cut_at: int | None = None
    boundaries: list[str] = field(default_factory=list)
    submissions: list[str] = field(default_factory=list)
    resumptions: list[str] = field(default_factory=list)
    states: dict[str, RunState] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    versions: list[RegisteredModel] = field(default_factory=list)
    endpoints: dict[str, EndpointStatus] = field(default_factory=dict)
    endpoint_cost: str = ""
    name: str = NAME
    target: str = "memory"
    named: tuple[str, ...] | None = None
    checks: tuple[Check, ...] = ()
    is_free: bool = True
    result: Mapping[str, object] = field(default_factory=lambda: dict(RESULT))
    has_samples: bool = True
    trouble: MaasError | None = None
    shares: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One call of the platform, with a boundary on each side of it."""
        self._pass(f"before {name}")
        yield
        self._pass(f"after {name}")

    def _pass(self, boundary: str) -> None:
        self.boundaries.append(boundary)
        if self.cut_at == len(self.boundaries) - 1:
            raise CutOffError(boundary)

    def open(self) -> Platform:
        """The platform as a new process finds it."""
        named = self.named
        targets = None if named is None else (lambda: named)
        return Platform(self.name, FakeJobs(self), FakeModels(self), FakeEndpoints(self), targets)


class FakeJobs:
    """A Backend whose runs go on by one step a look and then succeed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = world.name

    def plan(self, spec: JobSpec, job: CommandJob | None = None) -> Plan:
        job = job or training_command(spec)
        steps = (PlanStep("start", job.command),)
        cost = "free: nothing runs" if self.world.is_free else "$1.00 an hour"
        hashes = job_hashes(job)
        return Plan(spec, self.name, self.world.target, job, steps, cost, self.world.is_free, hashes)

    def submit(self, plan: Plan) -> RunRef:
        with self.world.step("submit"):
            if plan.run_id not in self.world.states:
                self.world.submissions.append(plan.run_id)
                self.world.states[plan.run_id] = RunState.QUEUED
        return RunRef(self.name, plan.run_id)

    def status(self, ref: RunRef) -> RunStatus:
        with self.world.step("status"):
            state = self._known(ref)
            looks = self.world.looks[ref.id] = self.world.looks.get(ref.id, 0) + 1
            if state in {RunState.QUEUED, RunState.RUNNING}:
                done = looks > self.world.looks_until_end
                state = self.world.states[ref.id] = RunState.SUCCEEDED if done else RunState.RUNNING
        return RunStatus(state, state.value, seen_at=float(len(self.world.boundaries)))

    def check(self, plan: Plan) -> tuple[Check, ...]:
        with self.world.step("check"):
            return self.world.checks

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        return {ref: self.status(ref) for ref in refs if ref.id in self.world.states}

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        ended = self._known(ref).is_final
        return LogPage(() if after else ("line 1",), None if ended else "1")

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        ended = self._known(ref).is_final
        events = () if after else ({"event": "started", "time": 1.0},)
        return MetricPage(events, None if ended else "1")

    def cancel(self, ref: RunRef) -> None:
        with self.world.step("cancel"):
            if not self._known(ref).is_final:
                self.world.states[ref.id] = RunState.CANCELED

    def resume(self, ref: RunRef) -> None:
        with self.world.step("resume"):
            if self._known(ref) not in {RunState.FAILED, RunState.CANCELED}:
                raise ConflictError(f"Run {ref.id} is {self._known(ref)}.")
            self.world.resumptions.append(ref.id)
            self.world.states[ref.id] = RunState.RUNNING
            self.world.looks[ref.id] = 0

    def artifact(self, ref: RunRef) -> Artifact:
        with self.world.step("artifact"):
            if self._known(ref) is not RunState.SUCCEEDED:
                raise ConflictError(f"Run {ref.id} is {self._known(ref)}.")
            folder = self.world.folder / ref.id
            (folder / "model").mkdir(parents=True, exist_ok=True)
            if self.world.has_samples:
                (folder / "samples.jsonl").write_text(json.dumps(SAMPLE) + "\n", encoding="utf-8")
        return Artifact(folder, self.world.result)

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:
        shutil.copytree(self.artifact(ref).folder, folder, dirs_exist_ok=True)

    def _known(self, ref: RunRef) -> RunState:
        if ref.id not in self.world.states:
            raise NotFoundError(f"There is no run {ref}.")
        return self.world.states[ref.id]


class FakeModels:
    """A Registry in memory."""

    def __init__(self, world: World) -> None:
        self.world = world

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        with self.world.step("register"):
            for model in self.list(name):
                if model.lineage.run == lineage.run:
                    return model
            ref = ModelRef(name, len(self.list(name)) + 1)
            made = RegisteredModel(ref, artifact.model, 1.0, lineage, dict(artifact.result), True, 1)
            self.world.versions.append(made)
        return made

    def list(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        if self.world.trouble is not None:
            raise self.world.trouble
        return tuple(model for model in reversed(self.world.versions) if name in (None, model.ref.name))

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        for model in self.list(name):
            if version in (None, model.ref.version):
                return model
        raise NotFoundError(f"There is no model {name}.")


class FakeEndpoints:
    """Serving in memory: an endpoint is ready at the second look."""

    def __init__(self, world: World) -> None:
        self.world = world

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:
        return self.world.endpoint_cost

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        with self.world.step("deploy"):
            known = self.world.endpoints.get(spec.name)
            if known is not None and known.model.rpartition(":")[0] != model.name:
                raise ConflictError(f"Endpoint {spec.name} serves {known.model}.")
            if known is None or known.model != str(model):
                ref = EndpointRef(self.world.name, spec.name)
                bills = Billing.BILLING if self.world.endpoint_cost else Billing.FREE
                known = EndpointStatus(ref, EndpointState.STARTING, "starting", 1.0, str(model), bills)
                known = replace(known, cost=self.world.endpoint_cost)
                self.world.endpoints[spec.name] = replace(
                    known, url=self.world.url, expires_at=spec.ttl_s + 1.0
                )
            elif self.world.named is not None:
                self.world.endpoints[spec.name] = replace(known, state=EndpointState.READY)
        return self.world.endpoints[spec.name]

    def status(self, ref: EndpointRef) -> EndpointStatus:
        with self.world.step("endpoint status"):
            known = self._known(ref)
            if known.state is EndpointState.STARTING:
                self.world.endpoints[ref.name] = replace(known, state=EndpointState.READY)
        return known

    def list(self) -> tuple[EndpointStatus, ...]:
        if self.world.trouble is not None:
            raise self.world.trouble
        return tuple(self.world.endpoints.values())

    def access(self, ref: EndpointRef) -> EndpointAccess:
        with self.world.step("access"):
            if self._known(ref).state is not EndpointState.READY:
                raise ConflictError(f"Endpoint {ref.name} is not ready.")
        return EndpointAccess(self.world.url, self._known(ref).model, "key")

    def traffic(self, ref: EndpointRef, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        known = self._known(ref)
        if shares is not None:
            if sum(shares.values()) != 100:
                raise ConflictError("The shares are not 100 together.")
            self.world.shares = dict(shares)
        return self.world.shares or {known.model: 100}

    def delete(self, ref: EndpointRef) -> None:
        with self.world.step("delete"):
            self.world.endpoints.pop(ref.name, None)

    def _known(self, ref: EndpointRef) -> EndpointStatus:
        if self.world.trouble is not None:
            raise self.world.trouble
        if ref.name not in self.world.endpoints:
            raise NotFoundError(f"There is no endpoint {ref.name}.")
        return self.world.endpoints[ref.name]
