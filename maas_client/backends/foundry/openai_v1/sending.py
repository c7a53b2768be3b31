"""Make the job of a run: looked for before every request, and after every one whose answer was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.openai_v1.book import Book, Entry, Sent
from maas_client.backends.foundry.openai_v1.results import write_samples
from maas_client.backends.foundry.openai_v1.uploads import TRIES, pause, send_rows
from maas_client.backends.foundry.openai_v1.wire import job_request, read_job
from maas_client.backends.foundry.planned import config_of
from maas_client.errors import QuotaError, RejectedError, UnavailableError

if TYPE_CHECKING:
    from maas_client.backends.foundry.openai_v1.account import Account
    from maas_client.plan import Plan

_LOOKS_S = (0.0, 1.0, 3.0)
"""Waits before the looks for a job whose making was not confirmed: the list may lag behind."""
_NOT_DONE = frozenset({429})
"""Answers that say for sure that nothing was made."""
_NO_TUNING = "does not support fine-tuning"


def start(plan: Plan, account: Account, book: Book, runs: Path) -> Entry:
    """Send the rows and make the job of a run that has none. Raises DataError, PlanError, ServiceError."""
    training_file, validation_file, samples = send_rows(plan, account)
    write_samples(runs / plan.run_id / "samples.jsonl", samples)
    sent = Sent(account.clock(), training_file)
    book.write_sent(plan.run_id, sent)
    request = job_request(plan, config_of(plan), training_file, validation_file)
    for attempt in range(1, TRIES + 1):
        if (entry := book.find(plan.run_id)) is not None:
            return entry
        try:
            made = read_job(_create(account, plan, request))
        except UnavailableError as error:
            entry = None if error.status in _NOT_DONE else _appeared(account, book, plan.run_id)
            if entry is not None:
                return entry
            if attempt == TRIES:
                raise
            pause(account, error, attempt)
            continue
        book.write_sent(plan.run_id, replace(sent, job=made.id))
        return book.confirm(plan.run_id, made)
    raise AssertionError("unreachable")


def _create(account: Account, plan: Plan, request: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        answer = account.service.ask(
            f"start run {plan.run_id}",
            lambda api: api.fine_tuning.jobs.with_raw_response.create(**request),
            repeat=False,
        )
    except RejectedError as error:
        if _NO_TUNING in error.message and not (plan.spec.foundry.training_type):
            error.hint = "Set foundry.training_type, and check that the resource's region trains this model."
        raise
    except QuotaError as error:
        error.hint = "Wait until one of its jobs has ended, or cancel one, then give the command again."
        raise
    return answer.mapping


def _appeared(account: Account, book: Book, run_id: str) -> Entry | None:
    """The job whose making was not confirmed, if it was made."""
    for wait_s in _LOOKS_S:
        account.sleep(wait_s)
        if (entry := book.find(run_id)) is not None:
            return entry
    return None
