"""`maas eval`: what training changed on held-out rows, and how a model does on others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maas_client.cli.consent import confirm_plan
from maas_client.cli.options import DryRun, Yes
from maas_client.cli.output import Output, OutputFormat, emit, say, say_target
from maas_client.cli.views import metrics_view, plan_view

if TYPE_CHECKING:
    from maas_client.ledger import RunRecord
    from maas_client.project import Project


def evaluate(
    what: Annotated[
        str, typer.Argument(help="A run (id, job name or `last`) or a registered model (name:version).")
    ] = "last",
    data: Annotated[
        Path | None, typer.Option("--data", help="Rows to score, in the format of the training file.")
    ] = None,
    require_better: Annotated[
        bool, typer.Option("--require-better", help="Exit with 1 unless the model surely got better.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show what training changed on the held-out rows, or score a model on other rows with --data."""
    from maas_client.project import open_project

    project = open_project()
    record = _run_behind(project, what)
    if data is None:
        _show(project.artifact(record).result, require_better=require_better)
        return
    if require_better:
        raise _no_comparison("--data scores the trained model alone.")
    plan = project.plan_evaluation(record, data)
    if dry_run:
        emit(plan.to_dict(), plan_view(plan))
        return
    from maas_client.dashboard.live import watch_run
    from maas_client.journey import require_success

    if not plan.is_free:
        say_target(plan.target)
        confirm_plan(plan, yes=yes)
    scoring = project.submit(plan)
    require_success(scoring, watch_run(project, scoring))
    result = project.artifact(scoring).result
    emit(dict(result), metrics_view(result))


def _run_behind(project: Project, what: str) -> RunRecord:
    """The run that a key names: a run itself, or the run that a registered model came from."""
    if ":" in what and "://" not in what:
        return project.find(project.model(what).lineage.run)
    return project.find(what)


def _show(result: Mapping[str, Any], *, require_better: bool) -> None:
    """What a run measured before and after; exits with 1 where better is required and not sure."""
    if not result:
        say("The service measured nothing; score the model on rows of your own with --data.")
    emit(dict(result), metrics_view(result))
    if not require_better:
        return
    change = result.get("change")
    if not change:
        raise _no_comparison("Nothing was measured before and after.")
    sure = change["low"] > 0 if result.get("direction") == "max" else change["high"] < 0
    if not sure:
        say(f"It is not sure that {result['metric']} got better: the interval of its change reaches 0.")
        raise typer.Exit(1)


def _no_comparison(why: str) -> Exception:
    from maas_client.errors import UsageError

    return UsageError(why, hint="--require-better compares before and after on the run's held-out rows.")
