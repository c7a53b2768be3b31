"""Runs of the openai route: fine-tuning jobs of a Foundry resource, one for each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import ConflictError, PlanError, UnavailableError
from maas_client.run import Artifact, Event, LogPage, MetricPage, RunRef, RunState, RunStatus

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.backends.foundry.openai_v1.account import Account
    from maas_client.backends.foundry.openai_v1.book import Book, Entry
    from maas_client.backends.foundry.openai_v1.wire import Job
    from maas_client.check import Check
    from maas_client.command import CommandJob
    from maas_client.plan import Plan
    from maas_client.settings import Settings
    from maas_client.spec import JobSpec

NAME = "foundry"
_LOGS, _METRICS = "logs", "metrics"
_CLOSING_S = 30.0
"""How long after its end a job may still tell something, where it has not told that it ended."""
_CLOSING_WORDS = ("job succeeded", "job failed", "job cancelled", "job canceled", "job paused")


class OpenAIJobs:
    """The Backend of the openai route. `folder` is the route's own; the account opens when it is needed."""

    name = NAME

    def __init__(
        self,
        settings: Settings,
        account: Callable[[], Account],
        folder: Path,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._open = account
        self._runs = folder / "runs"
        self._clock = clock

    @property
    def _account(self) -> Account:
        return self._open()

    @cached_property
    def _book(self) -> Book:
        from maas_client.backends.foundry.openai_v1.book import Book

        return Book(self._open, self._runs)

    # -- before and at the start

    def plan(self, spec: JobSpec, job: CommandJob | None = None) -> Plan:
        """Decide everything; reads local files only. Raises PlanError, DataError, SettingsError."""
        from maas_client.backends.foundry.openai_v1.account import find_resource
        from maas_client.backends.foundry.openai_v1.planning import plan_run
        from maas_client.backends.offers import today

        if job is not None:
            raise PlanError("A fine-tuning job runs no command.", hint="Use backend azureml or local.")
        resource = find_resource(self._settings)
        return plan_run(spec, resource, on=today(self._clock), region=self._settings.azure_location)

    def check(self, plan: Plan) -> tuple[Check, ...]:
        """Ask about sign-in, resource, model, region, quota and rights of every step, the last too."""
        from maas_client.backends.foundry.openai_v1.checking import check_plan

        return check_plan(self._for(plan), plan)

    def submit(self, plan: Plan) -> RunRef:
        """Send the rows and make the run's job, unless it is there. May be repeated: see `sending.py`.

        Raises ConflictError where the run's name is taken by a job of another plan.
        """
        from maas_client.backends.foundry.openai_v1.sending import start
        from maas_client.backends.local.folders import lock, told

        account = self._for(plan)
        with told("submit", self._runs), lock(self._runs / f".{plan.run_id}.lock"):
            entry = self._book.find(plan.run_id) or start(plan, account, self._book, self._runs)
        if entry.job.fingerprint not in {"", plan.fingerprint}:
            raise ConflictError(
                f"A job of run {plan.run_id} is in {account.resource}, and it is not this plan's.",
                operation="submit",
                hint="Submit with --again, or give the job another name.",
            )
        return RunRef(NAME, plan.run_id)

    def _for(self, plan: Plan) -> Account:
        """The account, which must be the one of the plan. Raises PlanError."""
        account = self._account
        if str(account.resource) != plan.target:
            hint = "Plan again, or set the resource of the plan."
            raise PlanError(f"The plan is for {plan.target}, not for {account.resource}.", hint=hint)
        return account

    # -- sight

    def status(self, ref: RunRef) -> RunStatus:
        """Look once; see `statuses`. Raises NotFoundError."""
        return self._status(self._book.require(ref.id))

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        """Look once at many runs: a request for each hundred jobs of the resource.

        A second job of a run, which two commands at once can make, is canceled when it is seen.
        """
        found = self._book.look(ref.id for ref in refs)
        return {ref: self._status(found[ref.id]) for ref in refs if ref.id in found}

    def _status(self, entry: Entry) -> RunStatus:
        from maas_client.backends.foundry.openai_v1.wire import to_status

        return to_status(entry.job, seen_at=self._clock(), message=entry.message)

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        """What the job tells, a line each; the service shows no log of the training itself."""
        from maas_client.backends.foundry.openai_v1.events import (
            Cursor,
            lines_of,
            read_cursor,
            read_since,
            write_cursor,
        )

        parts = read_cursor(after, _LOGS)
        job = self._book.require(ref.id).job
        events, cursor = read_since(self._account.service, job.id, parts.get("events") or Cursor())
        closed = bool(parts.get("closed")) or any(_closes(event.message) for event in events)
        ended = job.state.is_final and (closed or self._is_long_over(job))
        moved = write_cursor({"kind": _LOGS, "events": cursor.to_list(), "closed": closed})
        return LogPage(lines_of(events), None if ended else moved)

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        """Losses as events: from what the job tells, and in the end from its results file, each step once."""
        from maas_client.backends.foundry.openai_v1.events import (
            Cursor,
            read_cursor,
            read_since,
            write_cursor,
        )
        from maas_client.backends.foundry.openai_v1.metrics import Given, end_of, events_of, metrics_of
        from maas_client.backends.foundry.openai_v1.results import result_rows

        parts = read_cursor(after, _METRICS)
        given = Given(*parts.get("given", ()))
        job = self._book.require(ref.id).job
        told, cursor = read_since(self._account.service, job.id, parts.get("events") or Cursor())
        events: list[Event] = []
        for each in told:
            events += events_of(metrics_of(each), each.at, given)
        if not job.state.is_final:
            moved = {"kind": _METRICS, "events": cursor.to_list(), "given": given.to_list()}
            return MetricPage(tuple(events), write_cursor(moved))
        at = job.finished_at or self._clock()
        for row in result_rows(self._account, job):
            events += events_of(row, at, given)
        return MetricPage((*events, *end_of(job, given, self._clock())), None)

    def _is_long_over(self, job: Job) -> bool:
        """True when nothing more is to be expected; a service that tells no time of the end is done."""
        return not 0 <= self._clock() - (job.finished_at or 0.0) < _CLOSING_S

    # -- ends

    def cancel(self, ref: RunRef) -> None:
        """Ask for the end of the run's job; one that has ended is left alone, a paused one is canceled."""
        entry = self._book.require(ref.id)
        if entry.job.is_live and entry.job.state is not RunState.CANCELING:
            self._book.cancel(entry.job)

    def resume(self, ref: RunRef) -> None:
        """Go on with a paused job. Raises ConflictError for every other: the service cannot take it up."""
        job = self._book.require(ref.id).job
        if not job.is_paused:
            hint = "Only a paused job goes on; submit with --again to start anew."
            if not job.state.is_final:
                hint = "It goes on by itself."
            raise ConflictError(f"Run {ref.id} {job.state.words}.", operation="resume", hint=hint)
        try:
            self._account.service.ask(
                f"resume job {job.id}",
                lambda api: api.fine_tuning.jobs.with_raw_response.resume(job.id),
                repeat=False,
            )
        except (ConflictError, UnavailableError):
            if self._book.require(ref.id).job.is_paused:  # else the answer was lost, or somebody was faster
                raise

    def artifact(self, ref: RunRef) -> Artifact:
        """The tuned model's name in the resource; losses, checkpoints and events. Raises ConflictError."""
        from maas_client.backends.foundry.openai_v1.results import keep_result, place_of, read_samples
        from maas_client.backends.local.folders import lock, told

        job = self._require_success(ref, "artifact")
        folder = self._runs / ref.id
        with told("artifact", folder), lock(self._runs / f".{ref.id}.lock"):
            result = keep_result(
                self._account,
                job,
                folder / "run",
                events=self._all_events(ref),
                samples=read_samples(folder / "samples.jsonl"),
            )
        return Artifact(folder / "run", result, place_of(self._account, job.fine_tuned_model))

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:
        """Bring results, losses and events; the weights of a tuned model never leave the service."""
        from maas_client.backends.foundry.openai_v1.results import download
        from maas_client.backends.local.folders import told

        kept = self.artifact(ref).folder
        job = self._require_success(ref, "download")
        with told("download", folder):
            download(self._account, job, kept, folder, watch)

    def _all_events(self, ref: RunRef) -> list[Event]:
        events: list[Event] = []
        page = self.metrics(ref, after=None)
        events += page.events
        while page.next is not None:
            page = self.metrics(ref, after=page.next)
            events += page.events
        return events

    def _require_success(self, ref: RunRef, operation: str) -> Job:
        job = self._book.require(ref.id).job
        if job.state is not RunState.SUCCEEDED or not job.fine_tuned_model:
            words = job.state.words if job.state is not RunState.SUCCEEDED else "names no tuned model yet"
            raise ConflictError(
                f"Run {ref.id} {words}.", operation=operation, hint=f"maas runs show {ref.id}"
            )
        return job


def _closes(message: str) -> bool:
    return message.strip().lower().startswith(_CLOSING_WORDS)
