"""`maas init`, `maas doctor` and `maas schema`: the first minutes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from maas_client.cli.output import Output, OutputFormat, emit, say
from maas_client.cli.views import checks_view


def init(
    folder: Annotated[Path, typer.Argument(help="Folder for the job; made if missing.")] = Path(),
    example: Annotated[
        str, typer.Option("--example", help="Which example to start from, one a task: see docs/tasks.md.")
    ] = "card-support",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write a first job file with its data, ready to run; never overwrites."""
    from maas_client.starter import write_starter

    written = write_starter(folder, example)
    job = next(path for path in written if path.suffix == ".yaml")
    typed = shlex.quote(str(job))
    say(f"Look at what it would do: maas plan {typed}\nGo the whole way:         maas run {typed}")
    emit([str(path) for path in written], "\n".join(map(str, written)))


def doctor(
    azure: Annotated[
        bool | None,
        typer.Option(
            "--azure/--no-azure",
            help="Look at Azure, too, or leave it out.",
            show_default="where the settings name something there",
        ),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check this machine, and Azure where it is set, for what jobs need.

    Exits with 2 when something is missing. What cannot be learned, such as without a network, is unknown.
    """
    from maas_client.doctor import examine, examine_azure, names_azure
    from maas_client.project import open_project

    project = open_project()
    checks = examine(project)
    if azure or (azure is None and names_azure()):
        say("Asking Azure ...", style="dim")
        checks += examine_azure(project)
    emit([one.to_dict() for one in checks], checks_view(checks))
    if any(one.ok is False for one in checks):
        raise typer.Exit(2)


def schema(
    to: Annotated[Path | None, typer.Option("--to", help="Write it to a file, for editors.")] = None,
    output: Output = OutputFormat.JSON,
) -> None:
    """Print the JSON Schema of a job file."""
    from maas_client.jobschema import job_schema

    made = job_schema()
    text = json.dumps(made, indent=2)
    if to is None:
        emit(made, text)
    else:
        to.write_text(text + "\n", encoding="utf-8")
        say(f"Wrote {to}. In the job file: # yaml-language-server: $schema={to}")
