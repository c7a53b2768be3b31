"""Looks at runs, which are jobs and their further attempts: closely at one, in few requests at many."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from maas_client.errors import ServiceError
from maas_client.run import RunState, RunStatus
from maas_client.transport.members import text_at
from maas_client.workspace.history import DETAILS_S, History
from maas_client.workspace.jobs import (
    RUN_TAG,
    Jobs,
    attempt_of,
    created_at,
    newest_attempts,
    state_of,
    to_status,
)

_MOST_DETAILS = 20
"""Of so many runs that have ended the details are read in one look at many; of the others, the state only."""


def newest_attempt(jobs: Jobs, run_id: str) -> Mapping[str, Any] | None:
    """The newest attempt of a run: its job, or the last one of `-r2`, `-r3` ... after those that failed.

    None where there is no such run.
    """
    body = jobs.get(run_id)
    number = 1
    while body is not None and _may_have_another(body):
        number += 1
        later = jobs.get(f"{run_id}-r{number}")
        if later is None:
            break
        body = later
    return body


def _may_have_another(body: Mapping[str, Any]) -> bool:
    state = _state(body)
    return state.is_final and state is not RunState.SUCCEEDED


def _state(body: Mapping[str, Any]) -> RunState:
    return state_of(text_at(body, "properties", "status"))


def look(jobs: Jobs, history: History, run_id: str, *, seen_at: float) -> RunStatus | None:
    """Look once at a run, with its times and why it waits or failed. None where there is no such run."""
    body = newest_attempt(jobs, run_id)
    return None if body is None else look_closer(history, body, seen_at=seen_at)


def look_closer(history: History, body: Mapping[str, Any], *, seen_at: float) -> RunStatus:
    """A job's body as a look at its run, with what run history adds. Where that cannot be had, without."""
    name, state = text_at(body, "name"), _state(body)
    details: Mapping[str, Any] = {}
    tail: tuple[str, ...] = ()
    with suppress(ServiceError):
        details = history.details(name, max_age_s=DETAILS_S, ended=state.is_final)
        if state is RunState.FAILED:
            tail = history.tail(name)
    return to_status(body, seen_at=seen_at, details=details, tail=tail)


def look_at_many(
    jobs: Jobs, history: History, run_ids: Collection[str], *, seen_at: float
) -> dict[str, RunStatus]:
    """Look once at many runs, in about one request for fifty of them; unknown ones are left out.

    Of runs that go on, the state is all that is learned here. Raises ServiceError.
    """
    found = find_runs(jobs, run_ids)
    ended = [run_id for run_id, body in found.items() if _state(body).is_final]
    closer = set(ended[:_MOST_DETAILS])
    return {
        run_id: look_closer(history, body, seen_at=seen_at)
        if run_id in closer
        else to_status(body, seen_at=seen_at)
        for run_id, body in found.items()
    }


def find_runs(jobs: Jobs, run_ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """The newest attempt of each run; unknown ones are left out.

    The workspace's list is read only as far as it finds enough of them: what then is missing is asked for one
    by one.
    """
    wanted = set(run_ids)
    found, complete = _from_list(jobs, wanted)
    for run_id in sorted(wanted - complete):
        body = newest_attempt(jobs, run_id)
        if body is not None:
            found[run_id] = max(found.get(run_id, body), body, key=lambda one: attempt_of(one)[1])
    return found


def _from_list(jobs: Jobs, wanted: set[str]) -> tuple[dict[str, Mapping[str, Any]], set[str]]:
    """What the list shows of the wanted runs, and those of which no newer attempt can come any more."""
    ours: list[Mapping[str, Any]] = []
    firsts: set[str] = set()
    newest_first, last = True, float("inf")
    pages: Iterator[Any] = enumerate(jobs.pages(tag=RUN_TAG), 1) if len(wanted) > 1 else iter(())
    for number, page in pages:
        for body in page:
            run_id, attempt = attempt_of(body)
            if run_id in wanted:
                ours.append(body)
                firsts |= {run_id} if attempt == 1 else set()
            made = created_at(body)
            newest_first = newest_first and made is not None and made <= last
            last = last if made is None else made
        # A run's first attempt is its oldest: below it in the list there is nothing of the run.
        if newest_first and len(wanted) - len(firsts) <= number:
            break
    return newest_attempts(ours), firsts
