"""`maas runs ...`: look at runs, steer them, and take what they made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maas_client.cli.consent import confirm_cost
from maas_client.cli.options import DryRun, Yes
from maas_client.cli.output import Output, OutputFormat, emit, machine_readable, say, say_target, table
from maas_client.cli.replay import replay

if TYPE_CHECKING:
    from maas_client.backend import Backend
    from maas_client.ledger import Action, RunRecord
    from maas_client.project import Project
    from maas_client.run import RunRef, RunState

app = typer.Typer(
    name="runs", help="List, show, follow, cancel, resume and download runs.", no_args_is_help=True
)

RunKey = Annotated[str, typer.Argument(help="A run's id, its job's name, or `last`.", show_default="last")]


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most so many.")] = 50,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List runs, newest first; looks again at those that go on. An unknown state exits with 1."""
    project = _project()
    records = _fresh(project, project.runs()[:limit])
    rows = [[one.id, one.state.value, _when(one.created_at), _span(one), one.message] for one in records]
    columns = {"RUN": "left", "STATE": "left", "STARTED": "left", "TOOK": "right", "": "left"}
    emit(
        [one.to_dict() for one in records],
        table(columns, rows) if rows else "No runs yet. Start one: maas submit JOB.yaml",
    )
    if any(one.state == "unknown" for one in records):
        raise typer.Exit(1)


@app.command()
def show(run: RunKey = "last", output: Output = OutputFormat.TABLE) -> None:
    """Show one run: its state with the evidence, its command and what was done about it."""
    project = _project()
    record = project.find(run)
    status = project.look(record)
    history = [_history(one) for one in project.ledger.actions(record.id)]
    facts = {
        "run": str(record.ref),
        "target": record.plan.get("target", ""),
        **status.to_dict(),
        "command": record.plan["command"],
        "hashes": record.plan["hashes"],
        "history": history,
    }
    emit(facts)
    _exit_if_unknown(status.state)


def _history(action: Action) -> dict[str, Any]:
    """One action on a run, or on what was made of it: its intent, and what came of it."""
    came = "cut off, or going on" if action.ended_at is None else action.error or action.result
    times = {"begun_at": action.begun_at, "ended_at": action.ended_at}
    return {
        "verb": action.verb,
        "subject": action.subject,
        **times,
        "intent": action.intent,
        "came_of_it": came,
    }


@app.command()
def logs(
    run: RunKey = "last",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=1, help="Only the last N lines of what is there.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Print what a run wrote."""
    from collections import deque
    from itertools import islice

    project = _project()
    record = project.find(run)
    jobs = project.platform(record.backend).jobs
    lines: Iterable[str] = _lines(jobs, record.ref)
    if follow:
        past = sum(1 for _ in lines) if tail else 0
        lines = islice(_lines_to_come(jobs, record.ref), max(0, past - (tail or 0)), None)
    elif tail:
        lines = deque(lines, maxlen=tail)
    if machine_readable():
        emit(list(lines))
    else:
        for line in lines:
            print(line, flush=follow)
    if follow:
        from maas_client.journey import require_success

        require_success(record, project.look(record))


def _lines_to_come(jobs: Backend, ref: RunRef) -> Iterator[str]:
    """The log lines from the first on, until the run ends."""
    from maas_client.following import follow

    for sight in follow(jobs, ref):
        yield from sight.lines


def _lines(jobs: Backend, ref: RunRef) -> Iterator[str]:
    """The log lines that are there now."""
    cursor: str | None = None
    while (page := jobs.logs(ref, after=cursor)).lines:
        yield from page.lines
        if page.next is None:
            return
        cursor = page.next


@app.command()
def cancel(run: RunKey = "last", output: Output = OutputFormat.TABLE) -> None:
    """Ask a run to stop; it writes a checkpoint first. A finished run is left alone."""
    project = _project()
    record = project.find(run)
    _say_target(project, record)
    project.cancel(record)
    status = project.look(record)
    say(f"Run {record.id} {status.state.words}.")
    emit({"run": record.id, "state": status.state.value}, record.id)
    _exit_if_unknown(status.state)


@app.command()
def resume(
    run: RunKey = "last",
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Go on with a failed or canceled run from its newest checkpoint."""
    project = _project()
    record = project.find(run)
    if dry_run:
        state = project.look(record).state
        emit({"run": record.id, "state": state.value, "command": record.plan["command"]})
        _require_resumable(record, state)
        return
    if project.places.is_service(record.backend):
        _say_target(project, record)
        confirm_cost(str(record.plan.get("cost") or "unknown"), f"Resume {record.id}?", yes=yes)
    project.resume(record)
    record = project.find(record.id)
    say(f"Run {record.id} is {record.state} again; watch it: maas watch {record.id}")
    emit(record.to_dict(), record.id)


def _require_resumable(record: RunRecord, state: RunState) -> None:
    """Say of a dry run what the command itself would come to. Raises ConflictError."""
    from maas_client.errors import ConflictError
    from maas_client.run import RunState

    if state not in {RunState.FAILED, RunState.CANCELED}:
        hint = "Only a failed or canceled run can be resumed."
        raise ConflictError(f"Run {record.id} {state.words}.", operation="resume", hint=hint)


def _say_target(project: Project, record: RunRecord) -> None:
    if project.places.is_service(record.backend):
        say_target(project.require(record))


def _exit_if_unknown(state: RunState) -> None:
    """A state that cannot be learned is never code 0."""
    if state.value == "unknown":
        raise typer.Exit(1)


@app.command()
def download(
    run: RunKey = "last",
    to: Annotated[Path | None, typer.Option("--to", help="The folder to make.", show_default="./RUN")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Copy what a succeeded run made (model, result, samples, events) into a new folder."""
    from maas_client.artifacts import fetch_artifact

    project = _project()
    record = project.find(run)
    project.require(record)
    folder = fetch_artifact(project.platform(record.backend).jobs, record.ref, to or Path(record.id))
    emit({"run": record.id, "folder": str(folder)}, str(folder))


app.command()(replay)


def _project() -> Project:
    from maas_client.project import open_project

    return open_project()


def _fresh(project: Project, records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records after another look at those that have not ended, all of a backend at once.

    What cannot be looked at stays as last seen, said as unknown.
    """
    from dataclasses import replace

    from maas_client.errors import MaasError
    from maas_client.run import RunState

    seen = project.look_at_all([record for record in records if not record.state.is_final])

    def fresh(record: RunRecord) -> RunRecord:
        status = seen.get(record.id)
        if status is None:
            return record
        if isinstance(status, MaasError):
            return replace(record, state=RunState.UNKNOWN, message=status.message)
        return replace(
            record,
            state=status.state,
            native_state=status.native_state,
            message=status.message,
            seen_at=status.seen_at,
            started_at=status.started_at,
            ended_at=status.ended_at,
        )

    return [fresh(record) for record in records]


def _when(at: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _span(record: RunRecord) -> str:
    if record.started_at is None:
        return ""
    seconds = max(0, round((record.ended_at or record.seen_at or record.started_at) - record.started_at))
    return f"{seconds // 60}:{seconds % 60:02d}"
