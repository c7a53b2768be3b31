"""`maas init`, `maas doctor` and `maas schema`: the first minutes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from maas_client.cli.output import Output, OutputFormat, emit, say, table


def init(
    folder: Annotated[Path, typer.Argument(help="Folder for the job; made if missing.")] = Path(),
    example: Annotated[
        str, typer.Option("--example", help="Which example to start from: card-support or small-talk.")
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


def doctor(output: Output = OutputFormat.TABLE) -> None:
    """Check this machine for what jobs need. Exits with 2 when something is missing."""
    from maas_client.doctor import examine
    from maas_client.project import open_project

    checks = examine(open_project())
    rows = [
        ["ok" if one.ok else "MISSING", one.name, one.detail, "" if one.ok else one.hint] for one in checks
    ]
    columns = {"": "left", "CHECK": "left", "FOUND": "left", "TRY": "left"}
    emit([one.to_dict() for one in checks], table(columns, rows))
    if not all(one.ok for one in checks):
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
