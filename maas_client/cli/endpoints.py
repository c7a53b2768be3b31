"""`maas endpoints ...` and `maas reap`: what runs, whether it costs, and how it ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maas_client.cli.options import Yes
from maas_client.cli.output import Output, OutputFormat, ask, emit, say, say_target, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maas_client.endpoint import EndpointStatus
    from maas_client.errors import MaasError
    from maas_client.fleet import EndpointList
    from maas_client.project import Project

app = typer.Typer(
    name="endpoints", help="List, show and delete endpoints, and share their traffic.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of the endpoint, or BACKEND://NAME.", show_default=False)]
_COLUMNS = {
    "ENDPOINT": "left",
    "WHERE": "left",
    "STATE": "left",
    "MODEL": "left",
    "COST": "left",
    "LEFT": "right",
    "": "left",
}
_PRICE = re.compile(r"\$[\d,]+(?:\.\d+)? an hour")
NONE: list[str] = []


@app.command("list")
def list_endpoints(output: Output = OutputFormat.TABLE) -> None:
    """List every endpoint on every backend with its state, its cost and the time that it has left.

    A backend that cannot be asked is listed as unknown. Unknown billing exits with 1.
    """
    from maas_client.project import open_project

    project = open_project()
    lists, now = project.endpoint_lists(), project.clock()
    rows = [row for one in lists for row in _rows(one, now)]
    emit([data for one in lists for data in _data(one)], table(_COLUMNS, rows) if rows else "No endpoints.")
    if any(not _is_known(one) for one in lists):
        raise typer.Exit(1)


def _is_known(listed: EndpointList) -> bool:
    """Whether it could be learned what bills on a backend."""
    return listed.error is None and all(one.billing.value != "unknown" for one in listed.endpoints)


def _rows(listed: EndpointList, now: float) -> Iterator[list[str]]:
    for one in listed.endpoints:
        yield [
            one.ref.name,
            one.ref.backend,
            one.state.value,
            one.model,
            cost_word(one),
            time_left(one, now),
            one.url or one.message,
        ]
    if listed.error is not None:
        yield ["?", listed.backend, "unknown", "", "unknown", "-", listed.error.message]


def _data(listed: EndpointList) -> Iterator[dict[str, Any]]:
    for one in listed.endpoints:
        yield one.to_dict()
    if listed.error is not None:
        head = {"ref": f"{listed.backend}://?", "state": "unknown", "billing": "unknown"}
        yield {**head, "message": listed.error.message, "error": listed.error.to_dict()}


def cost_word(status: EndpointStatus) -> str:
    """`$1.70 an hour` where the endpoint bills and its cost says that; else free, billing or unknown."""
    price = _PRICE.search(status.cost) if status.billing.value == "billing" else None
    return price[0] if price else status.billing.value


@app.command()
def show(name: Name, output: Output = OutputFormat.TABLE) -> None:
    """Show one endpoint. Unknown billing exits with 1."""
    from maas_client.project import open_project

    status = open_project().endpoint(name)
    emit(status.to_dict())
    if status.billing.value == "unknown":
        raise typer.Exit(1)


@app.command()
def traffic(
    name: Name,
    shares: Annotated[
        list[str],
        typer.Argument(metavar="[DEPLOYMENT=PERCENT]...", help="Set it: v1=90 v2=10.", show_default=False),
    ] = NONE,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show which share of the requests each deployment behind an endpoint gets, or set it."""
    from maas_client.project import open_project

    project = open_project()
    wanted = read_shares(shares)
    if wanted is not None:
        say_target(project.fleet.require(project.fleet.find(name)))
    now = project.traffic(name, wanted)
    rows = [[deployment, str(percent)] for deployment, percent in now.items()]
    emit(dict(now), table({"DEPLOYMENT": "left", "PERCENT": "right"}, rows) if rows else "No deployments.")


def read_shares(words: list[str]) -> dict[str, int] | None:
    """`v1=90 v2=10` as numbers; None for no words. Raises UsageError."""
    from maas_client.errors import UsageError

    shares: dict[str, int] = {}
    for word in words:
        deployment, equals, percent = word.partition("=")
        if not (deployment and equals and percent.isdecimal() and int(percent) <= 100):
            raise UsageError(f"{word!r} is no share of the traffic.", hint="Write it as v1=90.")
        if deployment in shares:
            raise UsageError(f"{deployment} is named twice.", hint="Name each deployment once.")
        shares[deployment] = int(percent)
    return shares or None


@app.command()
def delete(name: Name, yes: Yes = False, output: Output = OutputFormat.TABLE) -> None:
    """Stop an endpoint and forget its key."""
    from maas_client.errors import NotFoundError
    from maas_client.project import open_project

    project = open_project()
    ref = project.fleet.find(name)
    say_target(project.fleet.require(ref))
    try:
        status = project.endpoint(str(ref))
    except NotFoundError:
        if "://" in name and not project.fleet.knows(ref):
            raise
        say(f"Endpoint {ref.name} is gone already.")
    else:
        words = f", which serves {status.model}" if status.model else ""
        ask(f"Delete endpoint {ref.name}{words}?", yes=yes)
    project.fleet.delete_ref(ref)
    is_service = project.places.is_service(ref.backend)
    later = "; the service may take some minutes, and bill until then" if is_service else ""
    say(f"Endpoint {ref.name} is deleted{later}.")
    emit({"endpoint": ref.name, "backend": ref.backend, "deleted": True}, ref.name)


def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Delete the endpoints whose time is over, on every backend, and those here whose process is gone.

    Safe to repeat, fit for cron. Exits with 1 when a backend could not be asked, a deletion failed, or it is
    not known whether something bills.
    """
    from maas_client.project import open_project

    project = open_project()
    lists, now = project.endpoint_lists(), project.clock()
    for listed in lists:
        say_target(" and ".join(project.places.targets(listed.backend)))
    over = [one for listed in lists for one in listed.endpoints if project.fleet.is_over(one, now)]
    ended = [(one, None if dry_run else _delete(project, one)) for one in over]
    failed = [error for _, error in ended if error is not None]
    for listed in lists:
        if listed.error is not None:
            say(f"unknown: {listed.backend}: {listed.error.message}", style="yellow")
    for error in failed:
        say(f"error: {error.message}", style="bold red")
    names = [str(status.ref) for status, error in ended if error is None]
    say(f"{'Would delete' if dry_run else 'Deleted'} {len(names)} endpoint{'s' if len(names) != 1 else ''}.")
    emit([_reaped(status, error, dry_run) for status, error in ended], "\n".join(names))
    kept = {status.ref for status, error in ended if error is None}
    unknown = any(
        one.billing.value == "unknown" for listed in lists for one in listed.endpoints if one.ref not in kept
    )
    if failed or unknown or any(listed.error is not None for listed in lists):
        raise typer.Exit(1)


def _delete(project: Project, status: EndpointStatus) -> MaasError | None:
    from maas_client.errors import MaasError

    try:
        project.fleet.delete_ref(status.ref)
    except MaasError as error:
        return error
    return None


def _reaped(status: EndpointStatus, error: MaasError | None, dry_run: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "endpoint": status.ref.name,
        "backend": status.ref.backend,
        "state": status.state.value,
        "deleted": not dry_run and error is None,
    }
    return data | ({"error": error.to_dict()} if error is not None else {})


def time_left(status: EndpointStatus, now: float) -> str:
    """`3h 12m` until the endpoint's time is over; `-` where it has no end."""
    if status.expires_at is None:
        return "-"
    seconds = max(0, int(status.expires_at - now))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds % 60:02d}s"
