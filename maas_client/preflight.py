"""Read every row and ask the service before a run starts, so that nothing is found after the queue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import DataError, PlanError
from maas_client.spec import JobSpec

if TYPE_CHECKING:
    from maas_client.backend import Backend
    from maas_client.check import Check
    from maas_client.plan import Plan


def check_rows(spec: JobSpec) -> None:
    """Check the training and validation rows of a job as `maas data check` does.

    Raises DataError that lists the first bad rows of each file by line.
    """
    from maas_client.data import check_file
    from maas_client.data.preference import is_preference_file

    for path in filter(None, (spec.data.train, spec.data.validation.file)):
        if spec.backend == "foundry" and is_preference_file(path):
            _check_preference_rows(path)
            continue
        report = check_file(path, task=spec.task)
        if not report.bad:
            continue
        problems = [f"{path.name}:{one.line}: {one.reason}" for one in report.problems]
        if report.bad > len(problems):
            problems.append(f"{path.name}: and {report.bad - len(problems)} more")
        rows = "row" if report.bad == 1 else "rows"
        raise DataError(
            f"{path} has {report.bad} bad {rows}; nothing was started.",
            hint=f"Mend or remove them, then look again: maas data check {_shown(path)} --task {spec.task}",
            problems=tuple(problems),
        )


def _check_preference_rows(path: Path) -> None:
    from maas_client.data.preference import problems_of

    _, problems = problems_of(path)
    if problems:
        what = f"{path} has bad preference rows; nothing was started."
        raise DataError(what, hint="Mend or remove them.", problems=problems)


def check_plan(jobs: Backend, plan: Plan) -> tuple[Check, ...]:
    """Ask the service whether every step of a plan can succeed; returns the checks.

    Raises PlanError that lists those that failed. What could not be learned fails nothing.
    """
    checks = jobs.check(plan)
    failed = [one for one in checks if one.ok is False]
    if failed:
        problems = tuple(f"{one.name}: {one.detail.rstrip('.')}. {one.hint}".rstrip() for one in failed)
        count = "a check" if len(failed) == 1 else f"{len(failed)} checks"
        hint = "Mend it, then look again with maas plan; --no-checks sends it all the same."
        raise PlanError(
            f"{plan.run_id} failed {count} of {plan.target}; nothing was sent.", hint=hint, problems=problems
        )
    return checks


def _shown(path: Path) -> str:
    """The path as a person here would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
