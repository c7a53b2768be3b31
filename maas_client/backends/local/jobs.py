"""Runs on this machine: each is a folder under home/runs and a process that outlives the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.backends.local.evidence import Look, look_at, to_status
from maas_client.backends.local.folders import lock, told
from maas_client.backends.local.pages import read_events, read_lines
from maas_client.backends.local.process import ask_to_stop, kill_group, supervise, wait_gone
from maas_client.backends.local.wire import (
    CANCEL,
    EVENTS,
    EXIT,
    JOB,
    LAUNCH,
    LOG,
    PROCESS,
    RESULT,
    STATES,
    Cancel,
    Evidence,
    Launch,
    Processes,
    read_json,
)
from maas_client.errors import ConflictError, NotFoundError, ServiceError
from maas_client.run import Artifact, LogPage, MetricPage, RunRef, RunState, RunStatus

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.check import Check
    from maas_client.command import CommandJob
    from maas_client.plan import Plan
    from maas_client.spec import JobSpec

GRACE_S = 30.0
_ENDING_S = 5.0
"""How long a supervisor may take to go after it wrote down the end."""


class LocalJobs:
    """The Backend of this machine. `grace_s` passes between asking a command to stop and killing it."""

    name = "local"

    def __init__(
        self, home: Path, *, clock: Callable[[], float] = time.time, grace_s: float = GRACE_S
    ) -> None:
        self._runs = home / "runs"
        self._clock = clock
        self._grace_s = grace_s

    def plan(self, spec: JobSpec, job: CommandJob | None = None) -> Plan:
        """Decide everything; reads local files only. Raises PlanError and DataError."""
        from maas_client.backends.local.planning import plan_run
        from maas_client.backends.offers import require_offer, today

        require_offer(spec.model, "local", on=today(self._clock))
        return plan_run(spec, self._runs.parent, job)

    def check(self, plan: Plan) -> tuple[Check, ...]:  # noqa: ARG002
        """Nothing to ask: planning looks at this machine itself."""
        return ()

    def submit(self, plan: Plan) -> RunRef:
        """Prepare the run's folder and start it; one that is there is started only if it never was.

        Raises ConflictError where what is there cannot be read.
        """
        from maas_client.backends.local.preparation import prepare

        folder = self._runs / plan.run_id
        with told("submit", folder):
            if not (folder / JOB).is_file():
                prepare(plan, folder, grace_s=self._grace_s)
            if not (folder / JOB).is_file():
                raise _in_the_way(f"{folder} is in the way: it holds no {JOB}.", folder)
            with lock(folder / "lock"):
                look = look_at(folder)
                if look.evidence is Evidence.UNREADABLE:
                    raise _in_the_way(look.trouble, folder)
                if look.evidence is Evidence.PREPARED:
                    supervise(folder)
        return RunRef(self.name, plan.run_id)

    def status(self, ref: RunRef) -> RunStatus:
        """Look at the run's files and at the process table. Raises NotFoundError."""
        return to_status(self._look(ref), self._clock())

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        """Look at each run."""
        found = {}
        for ref in refs:
            with suppress(NotFoundError):
                found[ref] = self.status(ref)
        return found

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        """Lines of stdout and stderr after the cursor; at most 256 KiB a page."""
        look = self._look(ref)
        with told("logs", look.folder):
            return LogPage(*read_lines(look.folder / LOG, after, ended=STATES[look.evidence].is_final))

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        """Events after the cursor; at most 256 KiB a page."""
        look = self._look(ref)
        with told("metrics", look.folder):
            return MetricPage(*read_events(look.folder / EVENTS, after, ended=STATES[look.evidence].is_final))

    def cancel(self, ref: RunRef) -> None:
        """Ask the run to stop. Asked again after the grace, a command without its supervisor is killed."""
        folder = self._look(ref).folder
        with told("cancel", folder), lock(folder / "lock"):
            look = look_at(folder)
            if STATES[look.evidence].is_final:
                return
            asked = Cancel.read(folder / CANCEL)
            try:
                if asked is None:
                    Cancel(self._clock()).write(folder / CANCEL)
            finally:  # on a full disk, too, the run is asked to stop
                self._stop(look_at(folder).processes, asked)

    def _stop(self, processes: Processes | None, asked: Cancel | None) -> None:
        if processes is None or ask_to_stop(processes.supervisor):
            return
        if asked is not None and self._clock() - asked.asked_at > self._grace_s:
            kill_group(processes.child)
        else:
            ask_to_stop(processes.child)

    def resume(self, ref: RunRef) -> None:
        """Start a failed or canceled run again in the same folder; its log goes on."""
        folder = self._look(ref).folder
        with told("resume", folder), lock(folder / "lock"):
            look = look_at(folder)
            state = STATES[look.evidence]
            if state not in {RunState.FAILED, RunState.CANCELED}:
                if look.evidence is Evidence.UNREADABLE:
                    raise _in_the_way(look.trouble, folder)
                hint = "Only a failed or canceled run can be resumed."
                raise ConflictError(f"Run {ref.id} {state.words}.", operation="resume", hint=hint)
            if look.processes is not None and not wait_gone(look.processes.both, _ENDING_S):
                hint = "Try again in a moment."
                raise ConflictError(f"Run {ref.id} is still ending.", operation="resume", hint=hint)
            _archive(look)
            supervise(folder)

    def artifact(self, ref: RunRef) -> Artifact:
        """The run's output folder and its result. Raises ConflictError unless the run succeeded."""
        look = self._look(ref)
        state = STATES[look.evidence]
        if state is not RunState.SUCCEEDED:
            raise ConflictError(
                f"Run {ref.id} {state.words}.", operation="artifact", hint=f"maas runs show {ref.id}"
            )
        result = read_json(look.folder / RESULT)
        if result is None:
            raise ConflictError(
                f"Run {ref.id} left no result.", operation="artifact", hint=f"maas runs logs {ref.id}"
            )
        return Artifact((look.folder / RESULT).parent, result)

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:  # noqa: ARG002
        """Copy the run's output folder. Raises ConflictError, QuotaError, ServiceError."""
        from maas_client.backends.local.folders import copy_files

        source = self.artifact(ref).folder
        with told("download", folder):
            copy_files(source, folder, ignore=("checkpoints", "*.tmp"))

    def _look(self, ref: RunRef) -> Look:
        folder = self._runs / ref.id
        if ref.backend != self.name or ref.id in {".", ".."} or not (folder / JOB).is_file():
            hint = "maas runs list shows the runs."
            raise NotFoundError(f"There is no run {ref} on this machine.", operation="look", hint=hint)
        with told("look", folder):
            return look_at(folder)


def _in_the_way(trouble: str, folder: Path) -> ConflictError:
    """For a run's folder that cannot be gone on with: what is wrong, and how to begin anew."""
    hint = f"Move {folder} away and give the command again, or submit with --again."
    return ConflictError(trouble, operation="submit", hint=hint)


def _archive(look: Look) -> None:
    """Put the records of an ended attempt aside; cut off anywhere, the run can be resumed or submitted."""
    launch = Launch.read(look.folder / LAUNCH)
    if launch is None:
        raise ServiceError(
            f"{look.folder / LAUNCH} is missing.", operation="resume", hint="Submit the job as a new run."
        )
    aside = look.folder / "attempts" / str(launch.attempt)
    aside.mkdir(parents=True, exist_ok=True)
    replace(launch, attempt=launch.attempt + 1).write(look.folder / LAUNCH)
    for name in (EXIT, CANCEL, PROCESS):
        if (look.folder / name).exists():
            (look.folder / name).replace(aside / name)
