"""`maas rehearse`: the job's own file on this machine, whose machines are taken away on purpose."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.output import Output, OutputFormat, emit, say
from maas_client.cli.pages import Page, Table

if TYPE_CHECKING:
    from maas_client.verdict import StepPair, Verdict

NONE: list[str] = []


def rehearse(
    job: Annotated[Path, typer.Argument(help="The job file (YAML).", show_default=False)],
    preempt_at: Annotated[
        str, typer.Option("--preempt-at", metavar="STEPS", help="Steps after which the machine is lost.")
    ] = "3,7",
    steps: Annotated[int, typer.Option("--steps", help="Steps to train.")] = 10,
    grace: Annotated[
        float | None,
        typer.Option("--grace", metavar="SECONDS", help="Ask to stop (SIGTERM) so long before the loss."),
    ] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", help="Override a key: --set model=tiny-phi3. May be repeated.")
    ] = NONE,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Prove that a job survives lost machines.

    Runs the job's own file on this machine, short, twice: once left alone, and once on machines that are
    lost after the given steps (kill -9, or asked before with --grace). Each next one gets the declared
    output and nothing else. Exits with 1 where losses, rows or checkpoints are not as if nothing had
    happened.
    """
    from maas_client.project import open_project
    from maas_client.rehearsal import Wanted, rehearse
    from maas_client.specfile import load_spec

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    wanted = Wanted(steps, _steps(preempt_at), grace)
    verdict = rehearse(load_spec(job, overrides), wanted, open_project().home, tell=say)
    emit(verdict.to_dict(), verdict_view(verdict))
    if not verdict.is_proven:
        raise typer.Exit(1)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End once; another signal must not keep processes and folders from being removed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _steps(text: str) -> tuple[int, ...]:
    """The steps in `3,7`. Raises UsageError."""
    from maas_client.errors import UsageError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--preempt-at {text!r} names no steps.", hint="Write them as 3,7.") from None


def verdict_view(verdict: Verdict) -> Page:
    """A row for each step with both losses, and a row for each thing that was to be proven."""
    lost = {one.reached: one for one in verdict.preemptions}
    rows = [
        [
            str(pair.step),
            _loss(pair.straight),
            _loss(pair.interrupted),
            _difference(pair),
            str(pair.times),
            f"machine lost, step {lost[pair.step].saved} saved" if pair.step in lost else "",
        ]
        for pair in verdict.pairs
    ]
    heads = {"STEP": "right", "LEFT ALONE": "right", "INTERRUPTED": "right", "DIFFERENCE": "right"}
    steps = Table({**heads, "TAKEN": "right", " ": "left"}, rows)
    checks = Table(
        {"": "left", "CHECK": "left", "FOUND": "left", "TRY": "left"},
        [["ok" if one.ok else "FAILED", one.name, one.detail, one.hint] for one in verdict.checks],
    )
    last = "The job survives the loss of its machines." if verdict.is_proven else "The job is not safe yet."
    return Page(steps, "", checks, "", last)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _difference(pair: StepPair) -> str:
    if pair.difference is None:
        return "-"
    return "0" if pair.difference == 0 else f"{pair.difference:.1e}"
