"""Which job of the resource is which run: found by what maas wrote on it; one job a run, whatever went wrong.

The request that makes a job has no key. So the run's name is written into the metadata and the suffix, jobs
are looked through before anything is sent and after every lost answer, and of two that were made all the same
the later one is canceled: whoever looks decides so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.backends.foundry.openai_v1.wire import Job, read_job, suffix_of
from maas_client.backends.local.wire import Record
from maas_client.errors import ConflictError, NotFoundError, ServiceError

if TYPE_CHECKING:
    from maas_client.backends.foundry.openai_v1.account import Account

SENT = "sent.json"
_PAGE = 100
_SKEW_S = 300.0
"""How far the service's clock may be from ours."""


@dataclass(frozen=True)
class Sent(Record):
    """What was sent for a run from here: when (unix seconds, before it went out), its rows, and the job."""

    sent_at: float
    training_file: str
    job: str = ""


@dataclass(frozen=True)
class Entry:
    """A run's job, and others that were made for the same run, which are not wanted."""

    job: Job
    others: tuple[Job, ...] = ()

    @property
    def message(self) -> str:
        """What to know of the others, "" where there are none."""
        said = [f"{other.id} ({other.native})" for other in self.others]
        if not said:
            return ""
        return f"Another job was sent at the same time and is not used: {', '.join(said)}."


class Book:
    """Runs and their jobs. `runs` is the folder of what was sent from here; it may be lost."""

    def __init__(self, account: Callable[[], Account], runs: Path) -> None:
        self._open = account
        self._runs = runs

    def look(self, run_ids: Iterable[str]) -> dict[str, Entry]:
        """The entries of runs, in as few requests as there are pages of jobs; unknown runs are left out.

        Jobs that are not wanted and could still cost something are canceled.
        """
        jobs = self._jobs()
        index = _Index(jobs)
        found = {}
        for run_id in run_ids:
            mine = sorted(index.of(run_id, self._sent(run_id), self._claimed), key=lambda job: job.order)
            if mine:
                found[run_id] = self._settled(mine)
        return found

    def find(self, run_id: str) -> Entry | None:
        """The entry of one run."""
        return self.look([run_id]).get(run_id)

    def confirm(self, run_id: str, made: Job) -> Entry:
        """The entry of a run whose job was made just now, whether or not the list shows it already."""
        mine = {
            job.id: job for job in [made, *_Index(self._jobs()).of(run_id, self._sent(run_id), self._claimed)]
        }
        return self._settled(sorted(mine.values(), key=lambda job: job.order))

    def require(self, run_id: str) -> Entry:
        """The entry of one run. Raises NotFoundError."""
        entry = self.find(run_id)
        if entry is None:
            raise NotFoundError(
                f"There is no fine-tuning job of run {run_id} in {self._open().resource}.",
                operation="look",
                hint="maas runs list shows the runs of this project.",
            )
        return entry

    def write_sent(self, run_id: str, sent: Sent) -> None:
        """Keep what is about to be sent, or was. Raises OSError."""
        folder = self._runs / run_id
        folder.mkdir(parents=True, exist_ok=True)
        sent.write(folder / SENT)

    def cancel(self, job: Job) -> None:
        """Ask the service to cancel a job; one that has ended meanwhile is left alone."""
        with suppress(ConflictError, NotFoundError):
            self._open().service.ask(
                f"cancel job {job.id}",
                lambda api: api.fine_tuning.jobs.with_raw_response.cancel(job.id),
                repeat=True,
            )

    def _jobs(self) -> list[Job]:
        rows = self._open().service.items(
            "list fine-tuning jobs",
            lambda api, place: api.fine_tuning.jobs.with_raw_response.list(limit=_PAGE, **place),
        )
        found = {job.id: job for row in rows if (job := read_job(row)).id}
        return list(found.values())

    def _settled(self, mine: list[Job]) -> Entry:
        """Of several jobs of a run the first one counts; the others are stopped."""
        first, *others = mine
        for other in others:
            if other.is_live:
                self.cancel(other)
        return Entry(first, tuple(others))

    def _sent(self, run_id: str) -> Sent | None:
        """What was sent from here for a run; a record that cannot be read is none."""
        try:
            return Sent.read(self._runs / run_id / SENT)
        except ServiceError:
            return None

    def _claimed(self) -> Mapping[str, str]:
        """Job -> run, of every run that was sent from here."""
        found = {}
        for folder in self._runs.glob("*/"):
            sent = self._sent(folder.name)
            if sent is not None and sent.job:
                found[sent.job] = folder.name
        return found


class _Index:
    """Jobs by what is written on them. A service may show the metadata, the suffix, both or neither."""

    def __init__(self, jobs: list[Job]) -> None:
        self._by_run: dict[str, list[Job]] = {}
        self._by_suffix: dict[str, list[Job]] = {}
        self._bare: list[Job] = []
        for job in jobs:
            if job.run:
                self._by_run.setdefault(job.run, []).append(job)
            elif job.suffix:
                self._by_suffix.setdefault(job.suffix, []).append(job)
            else:
                self._bare.append(job)

    def of(self, run_id: str, sent: Sent | None, claimed: Callable[[], Mapping[str, str]]) -> list[Job]:
        """The jobs of a run.

        A job that shows nothing is the run's where it has the rows that were sent from here, came after that,
        and is no other run's.
        """
        found = [*self._by_run.get(run_id, ()), *self._by_suffix.get(suffix_of(run_id), ())]
        if sent is None or found:
            return found
        for job in self._bare:
            if job.id == sent.job:
                return [job]
        if sent.job:
            return []
        others = claimed() if self._bare else {}
        return [
            job
            for job in self._bare
            if job.training_file == sent.training_file
            and job.created_at >= sent.sent_at - _SKEW_S
            and others.get(job.id, run_id) == run_id
        ]
