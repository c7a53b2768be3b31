"""`maas register` and `maas deploy`: keep what a run made, and serve it."""

from __future__ import annotations

from typing import Annotated

import typer

from maas_client.cli.options import DryRun
from maas_client.cli.output import Output, OutputFormat, emit, say


def register(
    run: Annotated[str, typer.Argument(help="A succeeded run: id, job name or `last`.")] = "last",
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the registry.", show_default="from the job file")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Keep a run's model as a version in the registry, with where it came from."""
    from maas_client.project import open_project

    project = open_project()
    model = project.register(project.find(run), name)
    say(f"Registered {model.ref}; serve it: maas deploy {model.ref}")
    emit(model.to_dict(), str(model.ref))


def deploy(
    model: Annotated[
        str, typer.Argument(help="A registered model: name or name:version.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the endpoint.", show_default="the model's name")
    ] = None,
    ttl: Annotated[
        str, typer.Option("--ttl", help="The endpoint ends by itself after this long: 30m, 4h, 2d.")
    ] = "4h",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers.")] = True,
    dry_run: DryRun = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Serve a registered model at an endpoint on this machine, with a key and an end."""
    from maas_client.following import wait_until_ready
    from maas_client.project import open_project
    from maas_client.specfile import deploy_spec

    project = open_project()
    registered = project.model(model)
    wanted = deploy_spec(name or registered.ref.name, ttl, port)
    if dry_run:
        emit(
            {
                "endpoint": wanted.name,
                "model": str(registered.ref),
                "ttl": wanted.ttl,
                "cost": "free: runs on this machine",
            }
        )
        return
    status = project.deploy(registered, wanted)
    if wait:
        status = wait_until_ready(project.serving("local"), status.ref)
    say(f"Endpoint {wanted.name} serves {registered.ref} for {wanted.ttl} and costs nothing.")
    say(f"Chat: maas chat {wanted.name}")
    emit(status.to_dict(), status.url or wanted.name)
