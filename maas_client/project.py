"""A project: the folder that holds `.maas/`, and all that can be done with its runs, models and endpoints.

The command line and Python users meet here: each change is written to the ledger before and after it happens,
then handed to the backend that the job file names.
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

from maas_client.errors import ConflictError, DataError, NotFoundError, PlanError, QuotaError
from maas_client.ledger import Ledger, RunRecord
from maas_client.run import RunState, RunStatus

if TYPE_CHECKING:
    from maas_client.backend import Platform, Registry, Serving
    from maas_client.endpoint import EndpointAccess, EndpointRef, EndpointStatus
    from maas_client.model import RegisteredModel
    from maas_client.plan import Plan
    from maas_client.run import Artifact
    from maas_client.spec import DeploySpec, JobSpec

HOME_NAME = ".maas"
HOME_VARIABLE = "MAAS_HOME"
_BACKENDS_WITH_ENDPOINTS = ("local",)


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
        self._platforms: dict[str, Platform] = dict(platforms or {})

    def platform(self, backend: str) -> Platform:
        """The platform behind a backend name, opened once. Raises PlanError where it is not offered here."""
        if backend not in self._platforms:
            from maas_client.backends import open_platform

            self._platforms[backend] = open_platform(backend, home=self.home, clock=self.clock)
        return self._platforms[backend]

    # -- runs

    def plan(self, spec: JobSpec) -> Plan:
        """Everything that a submission would do; sends and writes nothing. Raises PlanError."""
        return self.platform(spec.backend).jobs.plan(spec)

    def submit(self, plan: Plan, *, again: bool = False) -> RunRecord:
        """Start the plan's run, or take up the one that this plan started before.

        The same plan is the same run: one that is queued, running or done is returned as it is; one that
        failed or was canceled goes on from its newest checkpoint. `again` makes a new run with the next
        number. Rows that no run of this plan has read yet are checked first: DataError names the bad ones.
        """
        if not self.ledger.knows(plan.backend, plan.fingerprint):
            from maas_client.preflight import check_rows

            check_rows(plan.spec)
        record, new = self.ledger.adopt_or_add(
            name=plan.spec.name,
            backend=plan.backend,
            fingerprint=plan.fingerprint,
            plan_of=lambda number: ((numbered := replace(plan, number=number)).run_id, numbered.to_dict()),
            spec=plan.spec.model_dump(mode="json"),
            again=again,
        )
        if new or not self._goes_on(record):
            with self.ledger.action("submit", record.id, target=plan.target) as result:
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

    def look(self, record: RunRecord) -> RunStatus:
        """Look once at a run and keep what was seen in the ledger, unless the disk is full."""
        status = self.platform(record.backend).jobs.status(record.ref)
        with suppress(QuotaError):
            self.ledger.seen(record.id, status)
        return status

    def cancel(self, record: RunRecord) -> None:
        """Ask a run to stop. A finished run is left alone."""
        self._stop("cancel", record.id, lambda: self.platform(record.backend).jobs.cancel(record.ref))

    def resume(self, record: RunRecord) -> None:
        """Start a failed or canceled run again from its newest checkpoint. Raises ConflictError otherwise."""
        with self.ledger.action("resume", record.id):
            self.platform(record.backend).jobs.resume(record.ref)
        self.look(record)

    def artifact(self, record: RunRecord) -> Artifact:
        """What a succeeded run left behind. Raises ConflictError while it has not succeeded."""
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
        with self.ledger.action("register", name, run=record.id) as result:
            model = self.registry(record.backend).register(name, artifact, lineage)
            result["model"] = str(model.ref)
        return model

    def models(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """Registered versions (of one name), newest first."""
        return self.registry("local").list(name)

    def model(self, text: str) -> RegisteredModel:
        """A registered model written `name` (the newest) or `name:version`. Raises NotFoundError."""
        from maas_client.model import parse_model

        name, version = parse_model(text)
        return self.registry("local").get(name, version)

    # -- endpoints

    def deploy(self, model: RegisteredModel, spec: DeploySpec, *, backend: str = "local") -> EndpointStatus:
        """Start an endpoint for a registered model; returns at once.

        The same deployment again returns the one there is.
        """
        with self.ledger.action("deploy", spec.name, model=str(model.ref), ttl=spec.ttl) as result:
            status = self.serving(backend).deploy(model.ref, spec)
            result.update(endpoint=str(status.ref), expires_at=status.expires_at)
        return status

    def endpoints(self) -> list[EndpointStatus]:
        """Every endpoint on every backend that serves, with whether it bills."""
        return [status for backend in _BACKENDS_WITH_ENDPOINTS for status in self.serving(backend).list()]

    def endpoint(self, name: str) -> EndpointStatus:
        """Look once at an endpoint. Raises NotFoundError."""
        return self.serving("local").status(self._endpoint_ref(name))

    def endpoint_access(self, name: str) -> EndpointAccess:
        """URL and key of a ready endpoint. Raises NotFoundError, ConflictError."""
        return self.serving("local").access(self._endpoint_ref(name))

    def delete_endpoint(self, name: str) -> None:
        """Stop an endpoint and forget it, key included."""
        self._stop("delete endpoint", name, lambda: self.serving("local").delete(self._endpoint_ref(name)))

    def _stop(self, verb: str, subject: str, stop: Callable[[], None]) -> None:
        """Stop something and write that down; where the ledger finds the disk full, stop it all the same."""
        try:
            with self.ledger.action(verb, subject):
                stop()
        except QuotaError:
            stop()

    def expired(self, now: float) -> Sequence[EndpointStatus]:
        """Endpoints whose time is over or whose process is gone: what `reap` deletes."""
        from maas_client.endpoint import EndpointState

        ended = {EndpointState.EXPIRED, EndpointState.STOPPED, EndpointState.FAILED}
        return [
            status
            for status in self.endpoints()
            if status.state in ended or (status.expires_at is not None and status.expires_at <= now)
        ]

    def _endpoint_ref(self, name: str) -> EndpointRef:
        from maas_client.endpoint import EndpointRef

        return EndpointRef("local", name.removeprefix("local://"))

    def registry(self, backend: str) -> Registry:
        """The model registry of a backend. Raises PlanError where it keeps none."""
        registry = self.platform(backend).models
        if registry is None:
            raise PlanError(f"Backend {backend} keeps no models.", hint="Leave out register.")
        return registry

    def serving(self, backend: str) -> Serving:
        """The endpoints of a backend. Raises PlanError where it serves none."""
        serving = self.platform(backend).endpoints
        if serving is None:
            raise PlanError(f"Backend {backend} serves no models.", hint="Leave out deploy.")
        return serving


def open_project(start: Path | None = None) -> Project:
    """The project around a folder (default: the working directory).

    Its home is MAAS_HOME when that is set; else the `.maas` of the nearest folder upward that has one; else
    `.maas` beside the nearest .git or pyproject.toml; else, outside a project, a folder in the XDG state
    home.
    """
    if home := _home_setting():
        return Project(home.expanduser().absolute())
    folder = (start or Path.cwd()).absolute()
    for candidate in (folder, *folder.parents):
        if (candidate / HOME_NAME).is_dir():
            return Project(candidate / HOME_NAME)
    for candidate in (folder, *folder.parents):
        if (candidate / ".git").exists() or (candidate / "pyproject.toml").is_file():
            return Project(candidate / HOME_NAME)
    import platformdirs

    return Project(Path(platformdirs.user_state_dir("maas")))


def _home_setting() -> Path | None:
    """MAAS_HOME from the environment, else from .env. Settings take long to import: only for a .env."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home)
    if not Path(".env").is_file():
        return None
    from maas_client.settings import settings

    return settings().maas_home
