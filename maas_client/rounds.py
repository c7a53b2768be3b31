"""One round of looks at many runs: a call a service, and a transaction for all that was seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from maas_client.errors import MaasError, NotFoundError, QuotaError, TargetError
from maas_client.ledger import Ledger, RunRecord
from maas_client.places import Places
from maas_client.run import RunState, RunStatus

Seen = RunStatus | MaasError
"""What a look at a run brought, or why it brought nothing."""


def look_at_all(places: Places, ledger: Ledger, records: Sequence[RunRecord]) -> dict[str, Seen]:
    """Look once at each run, in as few requests as its backend allows; by run id.

    What was seen is kept in the ledger, unless the disk is full. A run that cannot be looked at has the error
    in its place: none is raised.
    """
    found: dict[str, Seen] = {}
    for backend in dict.fromkeys(record.backend for record in records):
        found |= _look_at_one_backend(places, [one for one in records if one.backend == backend])
    statuses = {run_id: seen for run_id, seen in found.items() if isinstance(seen, RunStatus)}
    with suppress(QuotaError):
        ledger.seen_all(statuses)
    return found


def _look_at_one_backend(places: Places, records: Sequence[RunRecord]) -> dict[str, Seen]:
    backend = records[0].backend
    found: dict[str, Seen] = {}
    here = []
    try:
        jobs, is_service = places.open(backend).jobs, places.is_service(backend)
        for record in records:
            try:
                places.require(backend, str(record.plan.get("target") or ""), f"Run {record.id}")
                here.append(record)
            except TargetError as error:
                found[record.id] = error
        if len(here) > 1 and is_service:
            statuses = jobs.statuses([record.ref for record in here])
            return found | {one.id: _kept(one, statuses.get(one.ref)) for one in here}
    except MaasError as error:
        return found | {record.id: error for record in records if record.id not in found}
    for record in here:
        try:
            found[record.id] = jobs.status(record.ref)
        except MaasError as error:
            found[record.id] = error
    return found


def _kept(record: RunRecord, status: RunStatus | None) -> Seen:
    """The status with what a closer look found before: a look at many learns less."""
    if status is None:
        hint = "maas runs list shows the runs."
        return NotFoundError(f"There is no run {record.ref} any more.", operation="look", hint=hint)
    is_same = (status.state, status.native_state) == (record.state, record.native_state)
    began = status.started_at is None and status.state is not RunState.QUEUED
    return replace(
        status,
        message=record.message if is_same and not status.message else status.message,
        started_at=record.started_at if began else status.started_at,
    )
