"""A project: the folder that holds `.maas/`, and all that can be done with its runs, models and endpoints.

The command line and Python users meet here: each change is written to the ledger before and after it happens,
then handed to the backend that the job file names. Nothing is changed in another target (subscription,
workspace, account) than the settings name.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import ConflictError, DataError, NotFoundError, QuotaError
from maas_client.fleet import EndpointList, Fleet
from maas_client.ledger import Ledger, RunRecord
from maas_client.places import Places
from maas_client.run import RunState, RunStatus
from maas_client.shelves import Shelves
from maas_client.traces import REGISTER

if TYPE_CHECKING:
    from maas_client.backend import Platform, Registry, Serving
    from maas_client.check import Check
    from maas_client.endpoint import EndpointAccess, EndpointStatus
    from maas_client.errors import MaasError
    from maas_client.model import RegisteredModel
    from maas_client.plan import Plan
    from maas_client.run import Artifact
    from maas_client.spec import DeploySpec, JobSpec

HOME_NAME = ".maas"
HOME_VARIABLE = "MAAS_HOME"


class Project:
    """Runs, models and endpoints under one home folder. Opening it touches nothing on disk.

    `platforms` are used for the backends that they are named for; others are opened when they are needed.
    """

    def __init__(
        self,
        home: Path,
        *,
        clock: Callable[[], float] = time.time,
        platforms: Mapping[str, Platform] | None = None,
    ) -> None:
        self.home = home
        self.clock = clock
        self.ledger = Ledger(home / "ledger.sqlite3", clock=clock)
        self.places = Places(home, clock=clock, platforms=platforms)
        self.fleet = Fleet(self.places, self.ledger, clock)
        self.shelves = Shelves(self.places, self.ledger)

    def platform(self, backend: str) -> Platform:
        """The platform behind a backend name, opened once. Raises PlanError where it is not offered here."""
        return self.places.open(backend)

    # -- runs

    def plan(self, spec: JobSpec) -> Plan:
        """Everything that a submission would do; sends and writes nothing. Raises PlanError."""
        return self.platform(spec.backend).jobs.plan(spec)

    def preflight(self, plan: Plan, *, again: bool = False, ask_service: bool = True) -> tuple[Check, ...]:
        """Everything that can be found out before a run is sent; changes nothing.

        Raises DataError for bad rows and, where the service is asked, PlanError for checks that failed;
        returns the others. A plan whose run is there was looked at before: nothing is done, unless it is to
        run `again`.
        """
        is_known = self.ledger.knows(plan.backend, plan.fingerprint)
        if is_known and not again:
            return ()
        from maas_client.preflight import check_plan, check_rows

        if not is_known:
            check_rows(plan.spec)
        return check_plan(self.platform(plan.backend).jobs, plan) if ask_service else ()

    def submit(self, plan: Plan, *, again: bool = False, checked: bool = False) -> RunRecord:
        """Start the plan's run, or take up the one that this plan started before.

        The same plan is the same run: one that is queued, running or done is returned as it is; one that
        failed or was canceled goes on from its newest checkpoint. `again` makes a new run with the next
        number. `preflight` comes first, unless it is said to be `checked`.
        """
        self.places.require(plan.backend, plan.target, f"The plan of {plan.run_id}")
        if not checked:
            self.preflight(plan, again=again)
        record, new = self.ledger.adopt_or_add(
            name=plan.spec.name,
            backend=plan.backend,
            fingerprint=plan.fingerprint,
            plan_of=lambda number: ((numbered := replace(plan, number=number)).run_id, numbered.to_dict()),
            spec=plan.spec.model_dump(mode="json"),
            again=again,
        )
        if new or not self._goes_on(record):
            with self.ledger.action("submit", record.id, backend=plan.backend, target=plan.target) as result:
                ref = self.platform(plan.backend).jobs.submit(replace(plan, number=record.number))
                result["ref"] = str(ref)
            self.look(record)
        return self.ledger.find_run(record.id)

    def _goes_on(self, record: RunRecord) -> bool:
        """True when a recorded run runs or is done, or ended without success and is now resumed.

        False when it must be handed to the backend: it waits there, or its submission was cut off before.
        """
        try:
            state = self.look(record).state
        except NotFoundError:
            return False
        if state in {RunState.FAILED, RunState.CANCELED}:
            try:
                self.resume(record)
            except ConflictError:
                if self.look(record).state in {RunState.FAILED, RunState.CANCELED}:
                    raise
        return state not in {RunState.QUEUED, RunState.UNKNOWN}

    def runs(self) -> list[RunRecord]:
        """All runs, newest first, each as last seen."""
        return self.ledger.runs()

    def find(self, key: str) -> RunRecord:
        """A run by id, reference, id prefix, job name or `last`. Raises NotFoundError."""
        return self.ledger.find_run(key)

    def require(self, record: RunRecord) -> str:
        """The target that a run is in. Raises TargetError where the settings name another."""
        target = str(record.plan.get("target") or "")
        self.places.require(record.backend, target, f"Run {record.id}")
        return target

    def look(self, record: RunRecord) -> RunStatus:
        """Look once at a run and keep what was seen in the ledger, unless the disk is full."""
        self.require(record)
        status = self.platform(record.backend).jobs.status(record.ref)
        with suppress(QuotaError):
            self.ledger.seen(record.id, status)
        return status

    def look_at_all(self, records: Sequence[RunRecord]) -> Mapping[str, RunStatus | MaasError]:
        """Look once at many runs, in few requests: the status by run id, or why there is none."""
        from maas_client.rounds import look_at_all

        return look_at_all(self.places, self.ledger, records)

    def cancel(self, record: RunRecord) -> None:
        """Ask a run to stop. A finished run is left alone."""
        intent = {"backend": record.backend, "target": self.require(record)}
        jobs = self.platform(record.backend).jobs
        try:
            with self.ledger.action("cancel", record.id, **intent):
                jobs.cancel(record.ref)
        except QuotaError:  # where the ledger finds the disk full, the run is stopped all the same
            jobs.cancel(record.ref)

    def resume(self, record: RunRecord) -> None:
        """Start a failed or canceled run again from its newest checkpoint. Raises ConflictError otherwise."""
        target = self.require(record)
        with self.ledger.action("resume", record.id, backend=record.backend, target=target):
            self.platform(record.backend).jobs.resume(record.ref)
        self.look(record)

    def artifact(self, record: RunRecord) -> Artifact:
        """What a succeeded run left behind. Raises ConflictError while it has not succeeded."""
        self.require(record)
        return self.platform(record.backend).jobs.artifact(record.ref)

    def plan_evaluation(self, record: RunRecord, data: Path) -> Plan:
        """The plan of a run, named `<job>-eval`, that scores a succeeded run's model on a file of rows.

        The same file again is the same run. The training data need not be there any more.
        """
        from maas_client.command import evaluation_command
        from maas_client.spec import DataSpec, JobSpec

        if not data.is_file():
            hint = "Pass a file in the format of the training file."
            raise DataError(f"There is no file {data}.", hint=hint)
        name = f"{record.name[:27].rstrip('-')}-eval"
        rows = DataSpec(train=data.absolute())
        wanted = {"name": name, "data": rows, "register_as": None, "deploy": None}
        spec = JobSpec.model_validate_json(json.dumps(record.spec)).model_copy(update=wanted)
        artifact = self.artifact(record)
        job = evaluation_command(spec, artifact.model, rows.train, is_adapter=artifact.is_adapter)
        return self.platform(record.backend).jobs.plan(spec, job)

    # -- models

    def register(self, record: RunRecord, name: str | None = None) -> RegisteredModel:
        """Keep a succeeded run's model as the next version of `name` (default: as its job file says).

        Registering the same run under the same name again returns the version that there is.
        """
        from maas_client.model import Lineage

        artifact = self.artifact(record)
        wanted = record.spec.get("register") or {"name": record.name}
        name = name or str(wanted["name"])
        lineage = Lineage(
            run=record.id,
            base_model=str(record.spec["model"]),
            task=str(record.spec["task"]),
            method=str(record.spec["method"]["name"]),
            hashes=record.plan["hashes"],
            config=record.plan["inputs"]["config"],
        )
        intent = {"backend": record.backend, "target": str(record.plan.get("target") or "")}
        with self.ledger.action(REGISTER, name, run=record.id, **intent) as result:
            model = self.registry(record.backend).register(name, artifact, lineage)
            result["model"] = str(model.ref)
        return model

    def models(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """Registered versions (of one name) on every backend, newest first.

        Raises the error of a backend that could not be asked; `shelves.lists` tells those apart.
        """
        lists = self.shelves.lists(name)
        for one in lists:
            if one.error is not None:
                raise one.error
        found = [model for one in lists for model in one.models]
        return tuple(sorted(found, key=lambda model: (model.created_at, model.ref.version), reverse=True))

    def model(self, text: str) -> RegisteredModel:
        """A model written `name` (the newest), `name:version` or `backend://name`. Raises NotFoundError."""
        return self.shelves.find(text)[1]

    # -- endpoints

    def deploy(self, model: RegisteredModel, spec: DeploySpec, *, backend: str = "local") -> EndpointStatus:
        """Start an endpoint for a registered model, or do the next thing that it needs; returns at once.

        The same deployment again returns the one there is.
        """
        return self.fleet.deploy(model, spec, backend)

    def endpoints(self, *, max_age_s: float = 0.0) -> list[EndpointStatus]:
        """Every endpoint on every backend, with whether it bills.

        Endpoints of a backend that cannot be asked are in an unknown state; `endpoint_lists` has its error.
        A service is not asked again within `max_age_s` seconds.
        """
        return [status for one in self.fleet.lists(max_age_s=max_age_s) for status in one.endpoints]

    def endpoint_lists(self) -> list[EndpointList]:
        """The endpoints backend by backend, with the error of one that could not be asked."""
        return self.fleet.lists()

    def endpoint(self, name: str) -> EndpointStatus:
        """Look once at an endpoint, written `name` or `backend://name`. Raises NotFoundError."""
        return self.fleet.status(name)

    def endpoint_access(self, name: str) -> EndpointAccess:
        """URL and key of a ready endpoint. Raises NotFoundError, ConflictError."""
        return self.fleet.access(name)

    def traffic(self, name: str, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """Percent of the requests that each deployment behind an endpoint gets; `shares` sets it first."""
        return self.fleet.traffic(name, shares)

    def delete_endpoint(self, name: str) -> None:
        """Stop an endpoint and forget it, key included. May be repeated."""
        self.fleet.delete(name)

    def expired(self, now: float) -> Sequence[EndpointStatus]:
        """Endpoints whose time is over, or whose process here is gone: what `reap` deletes."""
        return [status for status in self.endpoints() if self.fleet.is_over(status, now)]

    def registry(self, backend: str) -> Registry:
        """The model registry of a backend. Raises PlanError where it keeps none."""
        return self.places.registry(backend)

    def serving(self, backend: str) -> Serving:
        """The endpoints of a backend. Raises PlanError where it serves none."""
        return self.places.serving(backend)


def open_project(start: Path | None = None, *, clock: Callable[[], float] = time.time) -> Project:
    """The project around a folder (default: the working directory).

    Its home is MAAS_HOME when that is set; else the `.maas` of the nearest folder upward that has one; else
    `.maas` beside the nearest .git or pyproject.toml; else, outside a project, a folder in the XDG state
    home. `clock` says what time it is, such as that of another day to plan as of.
    """
    return Project(_home_of(start), clock=clock)


def _home_of(start: Path | None) -> Path:
    if home := _home_setting():
        return home.expanduser().absolute()
    folder = (start or Path.cwd()).absolute()
    for candidate in (folder, *folder.parents):
        if (candidate / HOME_NAME).is_dir():
            return candidate / HOME_NAME
    for candidate in (folder, *folder.parents):
        if (candidate / ".git").exists() or (candidate / "pyproject.toml").is_file():
            return candidate / HOME_NAME
    import platformdirs

    return Path(platformdirs.user_state_dir("maas"))


def _home_setting() -> Path | None:
    """MAAS_HOME from the environment, else from .env. Settings take long to import: only for a .env."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home)
    if not Path(".env").is_file():
        return None
    from maas_client.settings import settings

    return settings().maas_home
