"""A plan kept in a file: what was looked at is what is sent, or nothing is.

The file holds the job as it was read, what it was read from, and the whole plan. Before it is sent the job is
planned again, and whatever is not as it was is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.errors import MaasError, PlanError, SpecError

if TYPE_CHECKING:
    from maas_client.plan import Plan
    from maas_client.spec import JobSpec

KIND = "maas plan"
VERSION = 1
_MOST_BYTES = 8 << 20
_NAMES = {"train": "the training data", "validation": "the held-out data", "model": "the base model"}
_NAMES |= {"code": "the code", "config": "the settings of the training"}
_BODY_KEYS = ("run", "command", "inputs", "outputs", "steps")


@dataclass(frozen=True)
class LockedPlan:
    """A plan of a file. `job` is the path of its job file, `overrides` what was said with --set."""

    path: Path
    job: Path
    overrides: tuple[str, ...]
    spec: Mapping[str, Any]
    target: str
    fingerprint: str
    hashes: Mapping[str, str]
    body: Mapping[str, Any]


def is_locked(path: Path) -> bool:
    """Whether a file is a plan rather than a job file; reads only its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return False
    return b'"kind": "' + KIND.encode() in start


def lock(plan: Plan, job: Path, overrides: tuple[str, ...], *, now: float) -> dict[str, Any]:
    """What is written to the file: JSON-ready data, with no secret in it."""
    return {
        "kind": KIND,
        "version": VERSION,
        "made_at": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "job": str(job.absolute()),
        "overrides": list(overrides),
        "run": plan.run_id,
        "backend": plan.backend,
        "target": plan.target,
        "fingerprint": plan.fingerprint,
        "hashes": dict(plan.hashes),
        "spec": plan.spec.model_dump(mode="json"),
        "body": plan.to_dict(),
    }


def write_locked(locked: Mapping[str, Any], path: Path) -> None:
    """Write the file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(json.dumps(locked, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read_locked(path: Path) -> LockedPlan:
    """Read the file. Raises SpecError where it is none, or was written by a newer program."""
    try:
        raw = path.read_bytes()[: _MOST_BYTES + 1]
        read = json.loads(raw)
        if read["kind"] != KIND or not isinstance(read["version"], int):
            raise KeyError("kind")
        if read["version"] > VERSION:
            what = f"{path} was written by a newer maas_client."
            raise SpecError(what, hint="Update it: pip install -U maas-client")
        return LockedPlan(
            path,
            Path(read["job"]),
            tuple(map(str, read["overrides"])),
            dict(read["spec"]),
            str(read["target"]),
            str(read["fingerprint"]),
            dict(read["hashes"]),
            dict(read["body"]),
        )
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read: {error.strerror}.", hint="Pass a file of maas plan."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        hint = "Write it again: maas plan JOB --out FILE"
        raise SpecError(f"{path} is no plan that can be used.", hint=hint) from error


def unlock(locked: LockedPlan, plan_of: Callable[[JobSpec], Plan]) -> Plan:
    """The plan to send: made again from the locked job, and the same in all that would be sent.

    Raises PlanError that names what is not as it was; and what `plan_of` raises where the job cannot be
    planned any more.
    """
    from pydantic import ValidationError

    from maas_client.spec import JobSpec

    try:
        spec = JobSpec.model_validate_json(json.dumps(locked.spec))
    except ValidationError as error:
        hint = "Write it again: maas plan JOB --out FILE"
        raise SpecError(f"{locked.path} is no plan that can be used.", hint=hint) from error
    try:
        plan = plan_of(spec)
    except MaasError as error:
        error.hint = f"{error.hint} It is the job of {locked.path}.".strip()
        raise
    drifted = [*_job_drift(locked), *_drift(locked, plan)]
    if drifted:
        hint = f"Look at what would be sent now: maas plan {locked.job} --out {locked.path}"
        what = f"{locked.path} does not hold any more: {'; '.join(drifted)}."
        raise PlanError(f"{what} Nothing was sent.", hint=hint)
    return plan


def _job_drift(locked: LockedPlan) -> Iterator[str]:
    """Whether the job file says something else now. One that is gone says nothing: the plan holds the job."""
    from maas_client.specfile import load_spec

    if not locked.job.is_file():
        return
    try:
        now = load_spec(locked.job, locked.overrides).model_dump(mode="json")
    except SpecError:
        yield f"the job file {locked.job} cannot be used now"
        return
    if changed := sorted(_changed_keys(locked.spec, now)):
        yield f"the job file {locked.job} changed ({', '.join(changed)})"


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any], start: str = "") -> Iterator[str]:
    """The keys, dotted, of which the values differ."""
    for key in {*before, *now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changed_keys(old, new, f"{start}{key}.")
        elif old != new:
            yield f"{start}{key}"


def _drift(locked: LockedPlan, plan: Plan) -> Iterator[str]:
    """What differs between what was planned and what would be sent now."""
    if plan.target != locked.target:
        yield f"the target is {plan.target} now, and was {locked.target}"
    for name in sorted({*locked.hashes, *plan.hashes}):
        if locked.hashes.get(name) != plan.hashes.get(name):
            yield f"{_NAMES.get(name, name)} changed"
    body = json.loads(json.dumps(plan.to_dict(), default=str))
    same_identity = plan.fingerprint == locked.fingerprint and plan.target == locked.target
    if same_identity and any(body.get(key) != locked.body.get(key) for key in _BODY_KEYS):
        yield "what would be sent changed"
