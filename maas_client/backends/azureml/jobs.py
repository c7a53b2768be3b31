"""Runs in an Azure ML workspace: command jobs, each attempt one of them, all in one folder of its storage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.backends.azureml.wire import (
    attempt_name,
    body_again,
    events_in,
    is_of_plan,
    is_of_run,
    job_body,
    log_lines,
    run_place,
)
from maas_client.cloudpath import CloudPath
from maas_client.errors import ConflictError, MaasError, NotFoundError, PlanError, UsageError
from maas_client.run import Artifact, LogPage, MetricPage, RunRef, RunState, RunStatus
from maas_client.transport.members import text_at
from maas_client.workspace.datastores import Place

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.backends.azureml.seen import RunLogs, SeenJobs
    from maas_client.check import Check
    from maas_client.command import CommandJob
    from maas_client.plan import Plan
    from maas_client.spec import JobSpec
    from maas_client.transport.workspace import Target
    from maas_client.workspace.files import Files
    from maas_client.workspace.session import Workspace

_CURSOR = re.compile(r"([1-9][0-9]{0,5})\.(.*)", re.DOTALL)
_RESULT = "result.json"
_READ = ("samples.jsonl", "events.jsonl", _RESULT)
"""What people read of a run's output; the result last, for it says that the others were fetched."""
_NOT_FETCHED = ("checkpoints", "*.tmp")


class AzuremlJobs:
    """The Backend of an Azure ML workspace. `target` and `workspace` are asked when they are first needed."""

    name = "azureml"

    def __init__(
        self,
        home: Path,
        *,
        target: Callable[[], Target],
        workspace: Callable[[], Workspace],
        clock: Callable[[], float],
    ) -> None:
        self._home = home / self.name
        self._target = target
        self._open = workspace
        self._clock = clock

    @cached_property
    def _workspace(self) -> Workspace:
        return self._open()

    @cached_property
    def _jobs(self) -> SeenJobs:
        from maas_client.backends.azureml.seen import SeenJobs

        return SeenJobs(self._workspace)

    @cached_property
    def _history(self) -> RunLogs:
        from maas_client.backends.azureml.seen import RunLogs

        return RunLogs(self._workspace)

    @cached_property
    def _files(self) -> Files:
        from maas_client.workspace.files import Files

        return Files(self._workspace)

    # -- before and at the start

    def plan(self, spec: JobSpec, job: CommandJob | None = None) -> Plan:
        """Decide everything; reads local files only. Raises PlanError, DataError and SettingsError."""
        from maas_client.backends.azureml.planning import plan_run
        from maas_client.backends.offers import today

        return plan_run(spec, self._target(), job, on=today(self._clock))

    def check(self, plan: Plan) -> tuple[Check, ...]:
        """Ask about sign-in, workspace, rights, storage and machines of every step, the endpoint's too."""
        from maas_client.backends.azureml.checking import check_plan

        return check_plan(self._for(plan), plan)

    def submit(self, plan: Plan) -> RunRef:
        """Make the run's job under its own name; one that is there and was made for this plan is the run.

        Raises ConflictError where the name is taken by another job.
        """
        workspace = self._for(plan)
        body = self._jobs.get(plan.run_id)
        if body is None:
            body = self._start(plan, workspace)
        if body is not None and not is_of_plan(body, plan):
            hint = "Submit with --again, or give the job another name."
            what = f"A job named {plan.run_id} is in {workspace.target}, and it is not this plan's."
            raise ConflictError(what, operation="submit", hint=hint)
        return RunRef(self.name, plan.run_id)

    def _start(self, plan: Plan, workspace: Workspace) -> Mapping[str, Any] | None:
        """Send what the job needs, then the job. The job's body where it was made although that failed."""
        from maas_client.backends.azureml.clusters import ensure_cluster
        from maas_client.backends.azureml.sending import send_inputs, send_job

        body = job_body(plan, environment_id="", workspace_path=workspace.target.path)
        ensure_cluster(workspace, plan.spec)
        send_inputs(plan, self._files)
        try:
            send_job(plan, workspace, body)
        except MaasError as error:
            return self._made_all_the_same(plan.run_id, error)
        return None

    def _made_all_the_same(self, name: str, error: MaasError) -> Mapping[str, Any]:
        """The job whose making failed for us: the reply was lost, or another command was faster.

        Raises the error where there is no such job.
        """
        body = None
        with suppress(MaasError):
            body = self._jobs.get(name)
        if body is None:
            raise error
        return body

    def _for(self, plan: Plan) -> Workspace:
        """The workspace, which must be the one of the plan. Raises PlanError."""
        if str(self._workspace.target) != plan.target:
            hint = "Plan again, or set the workspace of the plan."
            raise PlanError(f"The plan is for {plan.target}, not for {self._workspace.target}.", hint=hint)
        return self._workspace

    # -- sight

    def status(self, ref: RunRef) -> RunStatus:
        """Look at the newest attempt. Raises NotFoundError."""
        from maas_client.workspace.looks import look

        status = look(self._jobs, self._history, ref.id, seen_at=self._clock())
        if status is None:
            raise self._unknown(ref)
        return status

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        """Look at many runs, by pages of the workspace's jobs."""
        from maas_client.workspace.looks import look_at_many

        found = look_at_many(self._jobs, self._history, [ref.id for ref in refs], seen_at=self._clock())
        return {ref: found[ref.id] for ref in refs if ref.id in found}

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        """Lines that the command wrote after the cursor, attempt by attempt, without its events."""
        lines, cursor, begins = self._lines(ref, after)
        header = (f"--- attempt {begins} ---",) if begins else ()
        return LogPage((*log_lines(lines), *header), cursor)

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        """Events among the lines after the cursor, attempt by attempt."""
        lines, cursor, _ = self._lines(ref, after)
        return MetricPage(events_in(lines), cursor)

    def _lines(self, ref: RunRef, after: str | None) -> tuple[Sequence[str], str | None, int]:
        """All lines of a page, the next cursor, and the number of the attempt that begins there (or 0).

        A cursor is the number of the attempt, a point, and the cursor in its log.
        """
        number, inner = _read_cursor(after)
        name = attempt_name(ref.id, number)
        body = self._jobs.recent(name)
        if body is None or not is_of_run(body, ref.id):
            raise self._unknown(ref) if number == 1 else _foreign(str(after))
        state = _state(body)
        page = self._history.log(name, inner, ended=state.is_final)
        if page.next is not None:
            return page.lines, f"{number}.{page.next}", 0
        if state is RunState.SUCCEEDED or self._jobs.get(attempt_name(ref.id, number + 1)) is None:
            return page.lines, None, 0
        return page.lines, f"{number + 1}.", number + 1

    # -- the end of a run, and its next attempt

    def cancel(self, ref: RunRef) -> None:
        """Ask the newest attempt to stop. Raises NotFoundError."""
        body = self._newest(ref)
        if not _state(body).is_final:
            self._jobs.cancel(text_at(body, "name"))

    def resume(self, ref: RunRef) -> None:
        """Start the next attempt: a job with the same code, inputs and output folder."""
        from maas_client.transport.commands import put_job
        from maas_client.workspace.jobs import attempt_of

        body = self._newest(ref)
        if _state(body) not in {RunState.FAILED, RunState.CANCELED}:
            hint = "Only a failed or canceled run can be resumed."
            raise ConflictError(f"Run {ref.id} {_state(body).words}.", operation="resume", hint=hint)
        name, again = attempt_name(ref.id, attempt_of(body)[1] + 1), body_again(body)
        code, environment = str(again.get("codeId") or ""), str(again["environmentId"])
        try:
            self._workspace.with_client(
                f"start job {name}",
                lambda client: put_job(client, name, again, code=code, environment=environment),
            )
        except MaasError as error:
            self._made_all_the_same(name, error)

    def _newest(self, ref: RunRef) -> Mapping[str, Any]:
        """The job of the newest attempt. Raises NotFoundError."""
        from maas_client.workspace.looks import newest_attempt

        body = newest_attempt(self._jobs, ref.id)
        if body is None or not is_of_run(body, ref.id):
            raise self._unknown(ref)
        return body

    def _unknown(self, ref: RunRef) -> NotFoundError:
        what = f"There is no run {ref.id} in {self._workspace.target}."
        return NotFoundError(what, operation="look", hint="maas runs list shows the runs and where they are.")

    # -- what a run left

    def artifact(self, ref: RunRef) -> Artifact:
        """Result, samples and events, fetched once; the model stays in the workspace's storage."""
        from maas_client.backends.local.folders import told

        self._require_success(ref, "artifact")
        folder, place = self._home / ref.id / "run", run_place(ref.id)
        with told("artifact", folder):
            if not (folder / _RESULT).is_file():
                self._fetch(ref, place, folder)
            result = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        return Artifact(folder, result, CloudPath(f"{place}model/"))

    def _fetch(self, ref: RunRef, place: Place, folder: Path) -> None:
        """Bring what people read; each file appears whole. Raises ConflictError, OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _READ:
            try:
                data = self._files.read(Place(place.datastore, f"{place.path}{name}"))
            except NotFoundError:
                if name != _RESULT:
                    continue
                what, hint = f"Run {ref.id} left no result.", f"maas runs logs {ref.id}"
                raise ConflictError(what, operation="artifact", hint=hint) from None
            unfinished = folder / f".{name}.tmp"
            unfinished.write_bytes(data)
            unfinished.replace(folder / name)

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:
        """Bring the run's output folder without its checkpoints. Raises ConflictError, ServiceError."""
        self._require_success(ref, "download")
        self._files.download(run_place(ref.id), folder, ignore=_NOT_FETCHED, watch=watch)

    def _require_success(self, ref: RunRef, operation: str) -> None:
        state = _state(self._newest(ref))
        if state is not RunState.SUCCEEDED:
            hint = f"maas runs show {ref.id}"
            raise ConflictError(f"Run {ref.id} {state.words}.", operation=operation, hint=hint)


def _state(body: Mapping[str, Any]) -> RunState:
    from maas_client.workspace.jobs import state_of

    return state_of(text_at(body, "properties", "status"))


def _read_cursor(after: str | None) -> tuple[int, str | None]:
    """The attempt and the cursor in its log. Raises UsageError for what is none of ours."""
    if after is None:
        return 1, None
    match = _CURSOR.fullmatch(after)
    if match is None:
        raise _foreign(after)
    return int(match[1]), match[2] or None


def _foreign(after: str) -> UsageError:
    return UsageError(f"{after!r} is not a cursor.", hint="Pass the `next` of the page before, or nothing.")
