"""`maas simulate`: a small Azure on this machine, to try everything without an account."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from maas_client.cli.output import Output, OutputFormat, emit, say


def simulate(
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0 takes a free one.")] = 0,
    http: Annotated[bool, typer.Option("--http", help="Plain http; azure-ai-ml needs TLS.")] = False,
    speed: Annotated[float, typer.Option("--speed", help="How fast the clock runs.")] = 60.0,
    state: Annotated[Path | None, typer.Option("--state", help="Folder that keeps everything.")] = None,
    env: Annotated[Path | None, typer.Option("--env", help="File for the variables: set -a; . FILE")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Run a small Azure on 127.0.0.1 until Ctrl-C; prints the variables to set, and the bill at the end."""
    from maas_client.errors import UsageError

    try:
        from maas_client.simulator.azurite import AZURITE, is_installed
        from maas_client.simulator.server import Simulator
    except ImportError as error:
        hint = "pip install 'maas-client[simulator]'"
        raise UsageError(f"The simulator needs the package {error.name}.", hint=hint) from None
    if speed <= 0:
        raise UsageError("--speed must be more than 0.", hint="Try --speed 60.")
    if not is_installed():
        say(f"Installing {AZURITE} by npm (once; a minute or so) ...")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with Simulator(port=port, tls=not http, speed=speed, folder=state) as azure:
        lines = "\n".join(f"{name}={shlex.quote(value)}" for name, value in azure.environment.items())
        if env is not None:
            _write_private(env, lines + "\n")
            place = env if env.is_absolute() else f"./{env}"  # shells look for a bare name elsewhere
            say(f"In another terminal: set -a; . {place}; set +a")
        emit(azure.environment, lines)
        say(f"A small Azure listens on {azure.url}. Ctrl-C ends it.")
        stopped.wait()
        bill = azure.world.bill.text()
    if env is not None:
        env.unlink(missing_ok=True)
    say(bill)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read: it holds keys."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")
