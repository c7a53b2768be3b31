"""Read every row before a run starts, so that no bad one is found after the queue."""

from __future__ import annotations

from pathlib import Path

from maas_client.errors import DataError
from maas_client.spec import JobSpec


def check_rows(spec: JobSpec) -> None:
    """Check the training and validation rows of a job as `maas data check` does.

    Raises DataError that lists the first bad rows of each file by line.
    """
    from maas_client.data import check_file

    for path in filter(None, (spec.data.train, spec.data.validation.file)):
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


def _shown(path: Path) -> str:
    """The path as a person here would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
