"""Jobs of a workspace through Azure Resource Manager: put, get, list, cancel; and what a job's body says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maas_client.errors import ConflictError, NotFoundError, RejectedError
from maas_client.run import RunState, RunStatus
from maas_client.transport.members import mapping_at, member, text_at, time_at
from maas_client.transport.paging import items_of
from maas_client.workspace.reasons import Failure, failure_of, waiting_of

if TYPE_CHECKING:
    from maas_client.workspace.session import Workspace

API_VERSION = "2024-10-01-preview"
"""The newest api-version that knows both command jobs and FineTuning jobs."""
RUN_TAG = "maas-run"
"""The tag that names the run of a job: each attempt of a run is a job of its own."""

STATES: Mapping[str, RunState] = {
    "NotStarted": RunState.QUEUED,
    "Starting": RunState.QUEUED,
    "Provisioning": RunState.QUEUED,
    "Preparing": RunState.QUEUED,
    "Queued": RunState.QUEUED,
    "Scheduled": RunState.QUEUED,
    "Running": RunState.RUNNING,
    "Finalizing": RunState.RUNNING,
    "CancelRequested": RunState.CANCELING,
    "Completed": RunState.SUCCEEDED,
    "Failed": RunState.FAILED,
    "Canceled": RunState.CANCELED,
    # Neither running nor over: a machine may come back, a person may go on with it, or nobody ever does.
    "NotResponding": RunState.UNKNOWN,
    "Paused": RunState.UNKNOWN,
    "Unknown": RunState.UNKNOWN,
}
"""Every word of JobStatus, in all published contracts and recordings, and what it means here."""
_WORDS = {word.lower(): state for word, state in STATES.items()} | {"cancelled": RunState.CANCELED}
_ATTEMPT = re.compile(r"-r([1-9]\d{0,5})")
_NO_WORKSPACE = {
    "SubscriptionNotFound",
    "ResourceGroupNotFound",
    "ParentResourceNotFound",
    "InvalidSubscriptionId",
}


def state_of(word: str) -> RunState:
    """The state behind a job's status word, in any letter case; UNKNOWN for one that nobody mapped."""
    return _WORDS.get(word.strip().lower(), RunState.UNKNOWN)


def to_status(
    body: Mapping[str, Any],
    *,
    seen_at: float,
    details: Mapping[str, Any] | None = None,
    tail: Sequence[str] = (),
) -> RunStatus:
    """A job's body as a look at its run.

    `details` of the run history add times, the reason and the command's exit code, `tail` (the last lines of
    a failed job's log) its last words. What neither tells stays None.
    """
    properties = mapping_at(body, "properties")
    word = text_at(properties, "status")
    state, details = state_of(word), details or {}
    why = _why(state, word, details, tail)
    return RunStatus(
        state,
        word,
        seen_at,
        reason=why.reason,
        message=why.message,
        tail=tuple(tail) if state is RunState.FAILED else (),
        started_at=None if state is RunState.QUEUED else _started_at(properties, details),
        ended_at=_ended_at(properties, details) if state.is_final else None,
        exit_code=0 if state is RunState.SUCCEEDED else why.exit_code,
    )


def _why(state: RunState, word: str, details: Mapping[str, Any], tail: Sequence[str]) -> Failure:
    if state is RunState.FAILED:
        return failure_of(details, tail) if details or tail else Failure()
    if state is RunState.QUEUED:
        return waiting_of(details)
    if state is RunState.UNKNOWN:
        return Failure(message=f"Azure ML says {word}." if word else "Azure ML names no state.")
    return Failure()


def _started_at(properties: Mapping[str, Any], details: Mapping[str, Any]) -> float | None:
    """Run details know best; FineTuning jobs and pipelines keep it among their own properties."""
    own = mapping_at(properties, "properties")
    stage = mapping_at(mapping_at(own, "azureml.pipelines.stages"), "Execution")
    return _first(
        time_at(details, "startTimeUtc"),
        time_at(properties, "startTimeUtc"),
        time_at(own, "StartTimeUtc"),
        time_at(stage, "StartTime"),
    )


def _ended_at(properties: Mapping[str, Any], details: Mapping[str, Any]) -> float | None:
    own = mapping_at(properties, "properties")
    stage = mapping_at(mapping_at(own, "azureml.pipelines.stages"), "Execution")
    return _first(
        time_at(details, "endTimeUtc"),
        time_at(properties, "endTimeUtc"),
        time_at(own, "EndTimeUtc"),
        time_at(stage, "EndTime"),
    )


def _first(*times: float | None) -> float | None:
    return next((time for time in times if time is not None), None)


# -- attempts


def attempt_of(body: Mapping[str, Any]) -> tuple[str, int]:
    """The run that a job belongs to, and which attempt of it the job is: `card-1-r2` is the second of card-1.

    A job without the tag is its own run.
    """
    name = text_at(body, "name")
    run_id = text_at(body, "properties", "tags", RUN_TAG) or name
    if name == run_id:
        return run_id, 1
    found = _ATTEMPT.fullmatch(name.removeprefix(run_id))
    return (run_id, int(found.group(1))) if found else (name, 1)


def newest_attempts(bodies: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The newest attempt of each run, by run id; `bodies` may come in any order."""
    newest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for body in bodies:
        run_id, attempt = attempt_of(body)
        if run_id and attempt >= newest.get(run_id, (0, body))[0]:
            newest[run_id] = (attempt, body)
    return {run_id: body for run_id, (_, body) in newest.items()}


# -- the wire


class Jobs:
    """The jobs of one workspace. Nothing is sent before a method is called; none waits for a job."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def get(self, name: str) -> Mapping[str, Any] | None:
        """A job's body; None where there is no such job. Raises NotFoundError where there is no workspace."""
        try:
            return self._workspace.arm.get(
                self._workspace.path("jobs", name), params=_VERSION, operation=f"get job {name}"
            ).mapping
        except NotFoundError as error:
            if error.code in _NO_WORKSPACE or (
                error.code == "ResourceNotFound" and "/jobs/" not in error.message
            ):
                raise
            return None

    def put(self, name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a job, or give the one of this name other words (tags, description); may be repeated.

        Raises RejectedError, ConflictError, QuotaError and the others of ServiceError.
        """
        path = self._workspace.path("jobs", name)
        return self._workspace.arm.put(
            path, dict(body), params=_VERSION, operation=f"start job {name}"
        ).mapping

    def pages(self, *, tag: str | None = None) -> Iterator[Sequence[Mapping[str, Any]]]:
        """The workspace's jobs (that have a tag), archived ones too; each page is one request."""
        params = {**_VERSION, "listViewType": "All", "tag": tag}
        found = self._workspace.arm.pages(self._workspace.path("jobs"), params=params, operation="list jobs")
        for page in found:
            yield [body for body in items_of(page) if isinstance(body, Mapping)]

    def list(self, *, tag: str | None = None) -> Iterator[Mapping[str, Any]]:
        """The same, job by job; the next page is asked for when it is needed."""
        for page in self.pages(tag=tag):
            yield from page

    def cancel(self, name: str) -> None:
        """Ask a job to stop, and do not wait for it; one that has ended is left alone. May be repeated.

        Raises NotFoundError where there is no such job.
        """
        path = self._workspace.path("jobs", name, "cancel")
        try:
            self._workspace.arm.post(path, params=_VERSION, operation=f"cancel job {name}", idempotent=True)
        except (ConflictError, RejectedError):
            body = self.get(name)
            if body is None or not state_of(text_at(body, "properties", "status")).is_final:
                raise


_VERSION = {"api-version": API_VERSION}


def created_at(body: Mapping[str, Any]) -> float | None:
    """When a job was made, in unix seconds."""
    return time_at(member(body, "systemData"), "createdAt")
