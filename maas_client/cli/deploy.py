"""`maas register` and `maas deploy`: keep what a run made, and serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.consent import confirm_cost
from maas_client.cli.options import DryRun, Yes
from maas_client.cli.output import Output, OutputFormat, emit, say, say_target

if TYPE_CHECKING:
    from maas_client.model import RegisteredModel
    from maas_client.project import Project
    from maas_client.spec import DeploySpec

FREE = "free: runs on this machine"


def register(
    run: Annotated[str, typer.Argument(help="A succeeded run: id, job name or `last`.")] = "last",
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the registry.", show_default="from the job file")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Keep a run's model as a version in the registry of its backend, with where it came from."""
    from maas_client.project import open_project

    project = open_project()
    record = project.find(run)
    if project.places.is_service(record.backend):
        say_target(project.require(record))
    model = project.register(record, name)
    say(f"Registered {model.ref}; serve it: maas deploy {model.ref}")
    emit(model.to_dict(), str(model.ref))


def deploy(
    model: Annotated[
        str,
        typer.Argument(
            help="A registered model: name, name:version or BACKEND://name:version.", show_default=False
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the endpoint.", show_default="the model's name")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend", help="Where the model is kept and served.", show_default="where it is kept"
        ),
    ] = None,
    ttl: Annotated[
        str, typer.Option("--ttl", help="The endpoint's time: 30m, 4h, 2d. `maas reap` deletes it then.")
    ] = "4h",
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one. Here only."),
    ] = None,
    size: Annotated[str | None, typer.Option("--size", help="Machines of a managed online endpoint.")] = None,
    instances: Annotated[
        int | None, typer.Option("--instances", min=1, help="So many of them.", show_default="1")
    ] = None,
    sku: Annotated[
        str | None, typer.Option("--sku", help="Offer of a Foundry deployment: GlobalStandard, ...")
    ] = None,
    capacity: Annotated[
        int | None, typer.Option("--capacity", min=1, help="Capacity of it, in 1,000 tokens a minute.")
    ] = None,
    location: Annotated[
        str | None, typer.Option("--location", help="Region of a serverless endpoint.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers.")] = True,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Serve a registered model at an endpoint, with a key and an end. Says what it costs, and asks."""
    from maas_client.project import open_project
    from maas_client.specfile import deploy_spec

    project = open_project()
    place, registered = project.shelves.find(f"{backend}://{model}" if backend else model)
    wanted = deploy_spec(
        name or registered.ref.name,
        ttl=ttl,
        port=port,
        size=size,
        instances=instances,
        sku=sku,
        capacity=capacity,
        location=location,
    )
    if dry_run:
        emit(_shown(project, place, registered, wanted))
        return
    _deploy(project, place, registered, wanted, wait=wait, yes=yes)


def _shown(project: Project, place: str, registered: RegisteredModel, wanted: DeploySpec) -> dict[str, str]:
    """What would be deployed, and what it would cost."""
    return {
        "endpoint": wanted.name,
        "model": str(registered.ref),
        "backend": place,
        "target": project.fleet.target_for(registered, place) or "this machine",
        "ttl": wanted.ttl,
        "cost": project.serving(place).cost(registered, wanted) or FREE,
    }


def _deploy(
    project: Project, place: str, registered: RegisteredModel, wanted: DeploySpec, *, wait: bool, yes: bool
) -> None:
    from maas_client.journey import bill_words, deploy_and_wait

    say_target(project.fleet.target_for(registered, place))
    cost = project.serving(place).cost(registered, wanted)
    confirm_cost(cost, f"Serve {registered.ref} at {wanted.name} for {wanted.ttl}?", yes=yes)
    if wait:
        status = deploy_and_wait(project, registered, wanted, backend=place, tell=say)
        say(f"Endpoint {wanted.name} serves {registered.ref}.")
    else:
        status = project.deploy(registered, wanted, backend=place)
        words = f": {status.message.rstrip('.')}" if status.message else ""
        say(f"Endpoint {wanted.name} is {status.state}{words}.")
    say(bill_words(status))
    say(f"Chat: maas chat {wanted.name}    Stop it: maas endpoints delete {wanted.name}")
    emit(status.to_dict(), status.url or wanted.name)
