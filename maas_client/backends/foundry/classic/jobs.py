"""Runs of the classic route: FineTuning jobs of a workspace, which the service trains by its own script."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.errors import ConflictError, MaasError, NotFoundError, PlanError, SettingsError
from maas_client.run import Artifact, LogPage, MetricPage, RunRef, RunState, RunStatus
from maas_client.transport.members import mapping_at, text_at

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.backends.foundry.classic.results import TunedModel
    from maas_client.check import Check
    from maas_client.command import CommandJob
    from maas_client.plan import Plan
    from maas_client.settings import Settings
    from maas_client.spec import JobSpec
    from maas_client.workspace.files import Files
    from maas_client.workspace.history import History
    from maas_client.workspace.jobs import Jobs
    from maas_client.workspace.session import Workspace

NAME = "foundry"
_RESULT = "result.json"


class ClassicJobs:
    """The Backend of the classic route. `home` is Foundry's folder; the workspace opens when it is needed.

    `files` are the workspace's own unless others are given.
    """

    name = NAME

    def __init__(
        self,
        settings: Settings,
        home: Path,
        *,
        workspace: Callable[[], Workspace],
        clock: Callable[[], float],
        files: Callable[[], Files] | None = None,
    ) -> None:
        self._settings = settings
        self._home = home / "classic"
        self._open = workspace
        self._clock = clock
        self._open_files = files

    @property
    def _workspace(self) -> Workspace:
        return self._open()

    @cached_property
    def _jobs(self) -> Jobs:
        from maas_client.workspace.jobs import Jobs

        return Jobs(self._workspace)

    @cached_property
    def _history(self) -> History:
        from maas_client.workspace.history import History

        return History(self._workspace)

    @cached_property
    def _files(self) -> Files:
        if self._open_files is not None:
            return self._open_files()
        from maas_client.workspace.files import Files

        return Files(self._workspace)

    # -- before and at the start

    def plan(self, spec: JobSpec, job: CommandJob | None = None) -> Plan:
        """Decide everything; reads local files only. Raises PlanError, DataError, SettingsError."""
        from maas_client.backends.foundry.classic.planning import plan_run
        from maas_client.backends.offers import today
        from maas_client.transport.workspace import find_target

        if job is not None:
            raise PlanError("A FineTuning job runs no command.", hint="Use backend azureml or local.")
        try:
            target = find_target(self._settings)
        except SettingsError as error:
            if self._settings.foundry_project_endpoint is None:
                raise
            what = f"{spec.model} is tuned in a hub-based project or workspace, and none is set"
            hint = "Set AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME to one."
            raise SettingsError(f"{what}: a Foundry project does not offer it.", hint=hint) from error
        return plan_run(spec, target, on=today(self._clock), region=self._settings.azure_location)

    def check(self, plan: Plan) -> tuple[Check, ...]:
        """Ask about sign-in, workspace, model, region and rights of every step, the endpoint's too."""
        from maas_client.backends.foundry.classic.checking import check_plan

        return check_plan(self._for(plan), plan)

    def submit(self, plan: Plan) -> RunRef:
        """Make the run's job under its own name; one that is there and was made for this plan is the run.

        Raises ConflictError where the name is taken by another job.
        """
        from maas_client.backends.foundry.classic.wire import TAG_FINGERPRINT

        workspace = self._for(plan)
        body = self._jobs.get(plan.run_id) or self._start(plan, workspace)
        if _tags(body).get(TAG_FINGERPRINT) != plan.fingerprint:
            what = f"A job named {plan.run_id} is in {workspace.target}, and it is not this plan's."
            hint = "Submit with --again, or give the job another name."
            raise ConflictError(what, operation="submit", hint=hint)
        return RunRef(NAME, plan.run_id)

    def _start(self, plan: Plan, workspace: Workspace) -> Mapping[str, Any]:
        """Send the rows, look up the model's version, make the job. Returns the job's body, also where it was
        made although that failed for us: the reply was lost, or another command was faster.
        """
        from maas_client.backends.foundry.classic.planning import asset_name, tags_of
        from maas_client.backends.foundry.classic.sending import send_rows
        from maas_client.backends.foundry.classic.wire import tuning_body
        from maas_client.backends.foundry.planned import config_of
        from maas_client.workspace.registries import find_registry_model

        config = config_of(plan)
        train, validation = send_rows(plan, self._files)
        wanted = str(config["model"])
        body = tuning_body(
            config,
            model_id=wanted if "/versions/" in wanted else find_registry_model(workspace, wanted).id,
            train=train,
            validation=validation,
            tags=tags_of(plan),
            asset=asset_name(plan),
            machines=config["machines"],
        )
        try:
            return self._jobs.put(plan.run_id, body)
        except MaasError as error:
            made = None
            with suppress(MaasError):
                made = self._jobs.get(plan.run_id)
            if made is None:
                raise error from None
            return made

    def _for(self, plan: Plan) -> Workspace:
        """The workspace, which must be the one of the plan. Raises PlanError."""
        if str(self._workspace.target) != plan.target:
            hint = "Plan again, or set the workspace of the plan."
            raise PlanError(f"The plan is for {plan.target}, not for {self._workspace.target}.", hint=hint)
        return self._workspace

    # -- sight

    def status(self, ref: RunRef) -> RunStatus:
        """Look once. Raises NotFoundError."""
        from maas_client.workspace.looks import look_closer

        return look_closer(self._history, self._require(ref), seen_at=self._clock())

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        """Look at many runs, by pages of the workspace's jobs."""
        from maas_client.workspace.looks import look_at_many

        found = look_at_many(self._jobs, self._history, [ref.id for ref in refs], seen_at=self._clock())
        return {ref: found[ref.id] for ref in refs if ref.id in found}

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        """Lines of the service's log after the cursor."""
        return self._history.log(ref.id, after, ended=_state(self._require(ref)).is_final)

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        """Losses that the service reported after the cursor, as step and validation events."""
        from maas_client.workspace.metrics import read_metrics

        return read_metrics(self._workspace, ref.id, after, ended=_state(self._require(ref)).is_final)

    def _require(self, ref: RunRef) -> Mapping[str, Any]:
        """The run's job. Raises NotFoundError."""
        from maas_client.backends.foundry.classic.wire import TAG_RUN

        body = self._jobs.get(ref.id)
        if body is None or _tags(body).get(TAG_RUN) != ref.id:
            what = f"There is no run {ref.id} in {self._workspace.target}."
            raise NotFoundError(
                what, operation="look", hint="maas runs list shows the runs and where they are."
            )
        return body

    # -- the end of a run

    def cancel(self, ref: RunRef) -> None:
        """Ask the job to stop; one that has ended is left alone. Raises NotFoundError."""
        if not _state(self._require(ref)).is_final:
            self._jobs.cancel(ref.id)

    def resume(self, ref: RunRef) -> None:
        """Raises ConflictError: the service keeps no checkpoint from which a job could go on."""
        state = _state(self._require(ref))
        if state in {RunState.FAILED, RunState.CANCELED}:
            what = f"Run {ref.id} {state.words}, and a FineTuning job of the service cannot go on from there."
            raise ConflictError(what, operation="resume", hint="Train anew: maas submit JOB --again")
        hint = "Only a failed or canceled run could be tuned again, with --again."
        raise ConflictError(f"Run {ref.id} {state.words}.", operation="resume", hint=hint)

    def artifact(self, ref: RunRef) -> Artifact:
        """The losses that the service reported, a few held-out rows, and the model that it registered."""
        from maas_client.backends.foundry.classic.results import (
            read_events,
            read_samples,
            result_of,
            write_result,
        )
        from maas_client.backends.local.folders import told

        body = self._require_success(ref, "artifact")
        model = self._tuned_model(ref, body)
        folder = self._home / ref.id / "run"
        with told("artifact", folder):
            if not (folder / _RESULT).is_file():
                events = read_events(self._workspace, ref.id)
                write_result(folder, result_of(events), read_samples(self._files, body), events)
            result = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        return Artifact(folder, result, model.place(self._workspace))

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:
        """Bring what people read, and the model where the service left it in the workspace's storage.

        Raises ConflictError where the service keeps the weights to itself.
        """
        from maas_client.backends.local.folders import copy_files, told
        from maas_client.errors import UsageError
        from maas_client.workspace.datastores import parse_place

        body = self._require_success(ref, "download")
        model = self._tuned_model(ref, body)
        with told("download", folder):
            copy_files(self.artifact(ref).folder, folder, ignore=("*.tmp",))
        try:
            place = parse_place(model.uri, self._workspace.target)
        except UsageError:
            what = f"The service keeps the weights of {model.name}:{model.version} to itself."
            hint = f"Deploy it instead; its losses and events are in {folder}."
            raise ConflictError(what, operation="download", hint=hint) from None
        (folder / "model").mkdir(exist_ok=True)
        self._files.download(place, folder / "model", watch=watch)

    def _require_success(self, ref: RunRef, operation: str) -> Mapping[str, Any]:
        body = self._require(ref)
        state = _state(body)
        if state is not RunState.SUCCEEDED:
            hint = f"maas runs show {ref.id}"
            raise ConflictError(f"Run {ref.id} {state.words}.", operation=operation, hint=hint)
        return body

    def _tuned_model(self, ref: RunRef, body: Mapping[str, Any]) -> TunedModel:
        from maas_client.backends.foundry.classic.results import find_tuned_model

        model = find_tuned_model(self._workspace, body)
        if model is None:
            what = f"Run {ref.id} has succeeded, but its model is not registered in {self._workspace.target}."
            hint = "The service registers it moments later: give the same command again."
            raise ConflictError(what, operation="artifact", hint=hint)
        return model


def _state(body: Mapping[str, Any]) -> RunState:
    from maas_client.workspace.jobs import state_of

    return state_of(text_at(body, "properties", "status"))


def _tags(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping_at(body, "properties", "tags")
