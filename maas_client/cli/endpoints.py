"""`maas endpoints ...` and `maas reap`: what runs, whether it costs, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.options import Yes
from maas_client.cli.output import Output, OutputFormat, ask, emit, say, table

if TYPE_CHECKING:
    from maas_client.endpoint import EndpointStatus

app = typer.Typer(name="endpoints", help="List, show and delete endpoints.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the endpoint.", show_default=False)]


@app.command("list")
def list_endpoints(output: Output = OutputFormat.TABLE) -> None:
    """List every endpoint with its state, its cost and the time that it has left.

    Unknown billing exits with 1.
    """
    from maas_client.endpoint import Billing
    from maas_client.project import open_project

    project = open_project()
    statuses = project.endpoints()
    rows = [
        [
            one.ref.name,
            one.state.value,
            one.model,
            one.billing.value,
            time_left(one, project.clock()),
            one.url,
        ]
        for one in statuses
    ]
    columns = {
        "ENDPOINT": "left",
        "STATE": "left",
        "MODEL": "left",
        "COST": "left",
        "LEFT": "right",
        "URL": "left",
    }
    emit([one.to_dict() for one in statuses], table(columns, rows) if rows else "No endpoints.")
    if any(one.billing is Billing.UNKNOWN for one in statuses):
        raise typer.Exit(1)


@app.command()
def show(name: Name, output: Output = OutputFormat.TABLE) -> None:
    """Show one endpoint."""
    from maas_client.project import open_project

    emit(open_project().endpoint(name).to_dict())


@app.command()
def delete(name: Name, yes: Yes = False, output: Output = OutputFormat.TABLE) -> None:
    """Stop an endpoint and forget its key."""
    from maas_client.project import open_project

    project = open_project()
    project.endpoint(name)
    ask(f"Delete endpoint {name}?", yes=yes)
    project.delete_endpoint(name)
    say(f"Endpoint {name} is gone.")
    emit({"endpoint": name, "deleted": True}, name)


def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Delete the endpoints whose time is over or whose process is gone. Safe to repeat, fit for cron."""
    from maas_client.project import open_project

    project = open_project()
    ended = project.expired(project.clock())
    if not dry_run:
        for status in ended:
            project.delete_endpoint(status.ref.name)
    names = [status.ref.name for status in ended]
    say(f"{'Would delete' if dry_run else 'Deleted'} {len(names)} endpoint{'s' if len(names) != 1 else ''}.")
    emit(
        [{"endpoint": one.ref.name, "state": one.state.value, "deleted": not dry_run} for one in ended],
        "\n".join(names),
    )


def time_left(status: EndpointStatus, now: float) -> str:
    """`3h 12m` until the endpoint ends by itself; `-` where it has no end."""
    if status.expires_at is None:
        return "-"
    seconds = max(0, int(status.expires_at - now))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds % 60:02d}s"
