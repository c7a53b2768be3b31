"""`maas plan`, `maas submit` and `maas run`: from a job file to a run, and all the way to an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.consent import confirm_plan
from maas_client.cli.options import DryRun, Offline, Yes, clock_of
from maas_client.cli.output import Output, OutputFormat, emit, say, say_target
from maas_client.cli.views import journey_view, plan_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from maas_client.check import Check
    from maas_client.plan import Plan
    from maas_client.project import Project

JobFile = Annotated[
    Path,
    typer.Argument(help="The job file (YAML), or a plan that `maas plan --out` wrote.", show_default=False),
]
Overrides = Annotated[
    list[str], typer.Option("--set", help="Override a key: --set training.epochs=1. May be repeated.")
]
Again = Annotated[bool, typer.Option("--again", help="Make a new run even if this job has one.")]
NoChecks = Annotated[
    bool, typer.Option("--no-checks", help="Do not ask the service first whether every step can succeed.")
]
NONE: list[str] = []


def plan(
    job: JobFile,
    overrides: Overrides = NONE,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Write the plan to a file: `maas submit FILE` sends this and nothing else."
        ),
    ] = None,
    offline: Offline = False,
    day: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Plan as of another day.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show everything that a job would do, without doing it, and ask the service whether it can succeed.

    Exits with 2 when a check says that it cannot.
    """
    project, made = _planned(job, overrides, clock_of(day))
    if out is not None:
        from maas_client.lockedplan import lock, write_locked

        write_locked(lock(made, job, tuple(overrides), now=project.clock()), out)
        say(f"Wrote {out}. Send exactly this: maas submit {out}")
    _show(project, made, offline=offline)


def submit(
    job: JobFile,
    overrides: Overrides = NONE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the run to its end.")] = False,
    again: Again = False,
    dry_run: DryRun = False,
    no_checks: NoChecks = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Start a job's run and return at once. The same job again is the same run."""
    project, made = _planned(job, overrides)
    if dry_run:
        _show(project, made, offline=no_checks)
        return
    _make_ready(project, made, again=again, no_checks=no_checks)
    confirm_plan(made, yes=yes)
    record = project.submit(made, again=again, checked=True)
    look = "see it" if record.state.is_final else "watch it"
    say(f"Run {record.id} {record.state.words} on {made.target}; {look}: maas watch {record.id}")
    if watch:
        from maas_client.dashboard.live import watch_run
        from maas_client.journey import require_success

        status = watch_run(project, record)
        require_success(record, status)
        record = project.find(record.id)
    emit(record.to_dict(), record.id)


def run(
    job: JobFile,
    overrides: Overrides = NONE,
    again: Again = False,
    dry_run: DryRun = False,
    no_checks: NoChecks = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Go the whole way: train, watch, measure, register, deploy and ask.

    Goes on where an earlier try stopped.
    """
    project, made = _planned(job, overrides)
    if dry_run:
        _show(project, made, offline=no_checks)
        return
    _make_ready(project, made, again=again, no_checks=no_checks)
    confirm_plan(made, yes=yes)
    from maas_client.dashboard.live import watch_run
    from maas_client.journey import bill_words, travel

    journey = travel(project, made, follow=watch_run, again=again, checked=True, tell=say)
    emit(journey.to_dict(), journey_view(journey))
    if journey.endpoint is not None:
        name = journey.endpoint.ref.name
        say(bill_words(journey.endpoint))
        say(f"Chat: maas chat {name}    Stop it: maas endpoints delete {name}")


def _planned(
    job: Path, overrides: list[str], clock: Callable[[], float] | None = None
) -> tuple[Project, Plan]:
    """The project, and the plan of a job file or of a plan file that still holds."""
    import time

    from maas_client.lockedplan import is_locked, read_locked, unlock
    from maas_client.project import open_project

    project = open_project(clock=clock or time.time)
    if is_locked(job):
        from maas_client.errors import UsageError

        if overrides:
            hint = f"Write it again with them: maas plan JOB --set ... --out {job}"
            raise UsageError(f"{job} is a plan, which --set cannot change.", hint=hint)
        return project, unlock(read_locked(job), project.plan)
    from maas_client.specfile import load_spec

    return project, project.plan(load_spec(job, overrides))


def _show(project: Project, made: Plan, *, offline: bool) -> None:
    """Print a plan, with the service's answers unless `offline`; ends with 2 when a check failed."""
    checks = () if offline else _asked(project, made)
    asked = {"checks": [one.to_dict() for one in checks]} if checks else {}
    emit({**made.to_dict(), **asked}, plan_view(made, checks))
    if any(one.ok is False for one in checks):
        raise typer.Exit(2)


def _asked(project: Project, made: Plan) -> tuple[Check, ...]:
    """What the service says of a plan; nothing on this machine."""
    from maas_client.check import Check
    from maas_client.errors import ServiceError

    if not project.places.is_service(made.backend):
        return ()
    say(f"Asking {made.target} ...", style="dim")
    try:
        return project.platform(made.backend).jobs.check(made)
    except ServiceError as error:
        return (Check("Azure", None, error.message, error.hint),)


def _make_ready(project: Project, made: Plan, *, again: bool, no_checks: bool) -> None:
    """Read the rows and ask the service. Raises DataError and PlanError; what stays unknown is said."""
    if project.places.is_service(made.backend):
        say_target(made.target)
    for one in project.preflight(made, again=again, ask_service=not no_checks):
        if one.ok is None:
            say(f"unknown: {one.name}: {one.detail}", style="yellow")
