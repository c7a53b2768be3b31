"""`maas plan`, `maas submit` and `maas run`: from a job file to a run, and all the way to an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.options import DryRun, Yes
from maas_client.cli.output import Output, OutputFormat, ask, emit, say
from maas_client.cli.views import journey_view, plan_view

if TYPE_CHECKING:
    from maas_client.plan import Plan
    from maas_client.project import Project

JobFile = Annotated[Path, typer.Argument(help="The job file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", help="Override a key: --set training.epochs=1. May be repeated.")
]
Again = Annotated[bool, typer.Option("--again", help="Make a new run even if this job has one.")]
NONE: list[str] = []


def plan(job: JobFile, overrides: Overrides = NONE, output: Output = OutputFormat.TABLE) -> None:
    """Show everything that a job would do, without doing it."""
    _, made = _planned(job, overrides)
    emit(made.to_dict(), plan_view(made))


def submit(
    job: JobFile,
    overrides: Overrides = NONE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the run to its end.")] = False,
    again: Again = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Start a job's run and return at once. The same job again is the same run."""
    project, made = _planned(job, overrides)
    if dry_run:
        emit(made.to_dict(), plan_view(made))
        return
    _confirm(made, yes)
    record = project.submit(made, again=again)
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
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Go the whole way: train, watch, measure, register, deploy and ask.

    Goes on where an earlier try stopped.
    """
    project, made = _planned(job, overrides)
    if dry_run:
        emit(made.to_dict(), plan_view(made))
        return
    _confirm(made, yes)
    from maas_client.dashboard.live import watch_run
    from maas_client.journey import travel

    journey = travel(project, made, follow=watch_run, again=again)
    emit(journey.to_dict(), journey_view(journey))
    if journey.endpoint is not None:
        name, end = journey.endpoint.ref.name, _clock_time(journey.endpoint.expires_at)
        say(f"Endpoint {name} runs on this machine until {end} and costs nothing.")
        say(f"Chat: maas chat {name}    Stop it: maas endpoints delete {name}")


def _planned(job: Path, overrides: list[str]) -> tuple[Project, Plan]:
    from maas_client.project import open_project
    from maas_client.specfile import load_spec

    spec = load_spec(job, overrides)
    project = open_project()
    return project, project.plan(spec)


def _confirm(made: Plan, yes: bool) -> None:
    """Say what it will cost, and ask where that is not nothing."""
    for warning in made.warnings:
        say(f"warning: {warning}", style="yellow")
    say(f"Cost: {made.cost}")
    if not made.is_free:
        ask(f"Start {made.run_id} on {made.target}?", yes=yes)


def _clock_time(at: float | None) -> str:
    import time

    return time.strftime("%H:%M", time.localtime(at)) if at else "it is deleted"
