"""`maas watch`: the dashboard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.output import Output, OutputFormat, emit, machine_readable

if TYPE_CHECKING:
    from maas_client.dashboard.board import Board, Mode
    from maas_client.dashboard.reading import Reader
    from maas_client.ledger import RunRecord
    from maas_client.project import Project
    from maas_client.run import RunState

_EXIT_CODES = {"succeeded": 0, "failed": 100, "canceled": 103, "unknown": 1}
_STILL_RUNNING = 101
_INTERRUPTED = 130


def watch(
    run: Annotated[
        str | None,
        typer.Argument(help="A run's id, its job's name, or `last`: ends with this run, with its exit code."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and leave.")] = False,
    run_log: Annotated[bool, typer.Option("--run-log", help="Begin with the run's log.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Watch runs: progress, losses, speed, time left, endpoints. Elsewhere than on a terminal, prints lines.

    Keys: arrows or j and k choose a run, l shows its log, c cancels, r resumes, q leaves.

    Leaving and Ctrl-C end the watching, never the run. For a named run the exit code tells what became of it:
    0 succeeded, 100 failed, 101 still running, 103 canceled, 1 unknown.
    """
    from maas_client.dashboard.board import Mode
    from maas_client.errors import UsageError
    from maas_client.project import open_project

    project = open_project()
    record = project.find(run) if run is not None else None
    mode = Mode.LOGS if run_log else Mode.OVERVIEW
    if once:
        raise typer.Exit(_print_frame(project, record, mode))
    if machine_readable() and record is None:
        raise UsageError("Watching all runs has no end to print data at.", hint="Name a run, or pass --once.")
    raise typer.Exit(_watch(project, record, mode))


def _watch(project: Project, record: RunRecord | None, mode: Mode) -> int:
    """Watch on the terminal or in lines; returns the exit code."""
    from maas_client.dashboard import live
    from maas_client.dashboard.board import Mode

    target = record.id if record else None
    stream = sys.stderr if machine_readable() else sys.stdout
    try:
        if live.can_draw(stream):
            status = live.watch_on_screen(project, stream, target=target, mode=mode)
        else:
            status = live.watch_in_lines(project, stream, target=target, with_log=mode is Mode.LOGS)
    except KeyboardInterrupt:
        if record is not None:
            live.say_detached(record)
        return _INTERRUPTED
    if record is None or status is None:
        return 0
    if not status.state.is_final:
        live.say_detached(record)
    if machine_readable():
        emit(live.read_once(project, chosen=record.id)[0].to_dict())
    return _exit_code(status.state)


def _print_frame(project: Project, record: RunRecord | None, mode: Mode) -> int:
    """Print what can be seen now; returns the exit code."""
    from shutil import get_terminal_size

    from maas_client.cli.output import stdout_console
    from maas_client.dashboard import live
    from maas_client.dashboard.glyphs import glyphs_for
    from maas_client.dashboard.view import frame

    board, reader = live.read_once(project, chosen=record.id if record else None, mode=mode)
    if machine_readable():
        emit(board.to_dict())
    else:
        width, height = get_terminal_size((80, 24))
        glyphs = glyphs_for(stdout_console().encoding)
        emit(None, frame(board, width, height, project.clock(), glyphs=glyphs, keys=False, pad=False))
    return _frame_code(board, reader, record)


def _frame_code(board: Board, reader: Reader, record: RunRecord | None) -> int:
    """The named run's code; without one, 0 when the state of every run could be learned."""
    wanted = [row for row in board.rows if record is None or row.id == record.id]
    for row in wanted:
        if row.id in reader.errors:
            return reader.errors[row.id].exit_code
    if record is not None:
        return _exit_code(wanted[0].state)
    return 1 if any(row.state == "unknown" for row in wanted) else 0


def _exit_code(state: RunState) -> int:
    return _EXIT_CODES.get(state.value, _STILL_RUNNING)
