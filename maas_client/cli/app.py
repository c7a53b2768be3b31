"""The parser of `maas`, and the only place where an error becomes a message and an exit code."""

from __future__ import annotations

import copy
import os
import sys
from typing import Annotated

import typer

from maas_client.cli import (
    chat,
    data,
    deploy,
    endpoints,
    jobs,
    models,
    registered,
    rehearse,
    runs,
    scoring,
    setup,
    simulate,
    watch,
)
from maas_client.errors import MaasError, QuotaError, UsageError

app = typer.Typer(
    name="maas",
    help="Fine-tune small language models from one job file: on this laptop, on Foundry or on Azure ML.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, JOB, RESULT, SERVE, REHEARSE = "Start here", "Jobs", "Results", "Serving", "Rehearsing"
app.command(rich_help_panel=START)(setup.init)
app.command(rich_help_panel=START)(setup.doctor)
app.command(rich_help_panel=START)(setup.schema)
app.add_typer(data.app, name="data", rich_help_panel=START)
models.app.command("registered")(registered.registered)
app.add_typer(models.app, name="models", rich_help_panel=START)
app.command(rich_help_panel=JOB)(jobs.plan)
app.command(rich_help_panel=JOB)(jobs.submit)
app.command(rich_help_panel=JOB)(jobs.run)
app.add_typer(runs.app, name="runs", rich_help_panel=JOB)
app.command(rich_help_panel=JOB)(watch.watch)
app.command("eval", rich_help_panel=RESULT)(scoring.evaluate)
app.command(rich_help_panel=RESULT)(deploy.register)
app.command(rich_help_panel=SERVE)(deploy.deploy)
app.add_typer(endpoints.app, name="endpoints", rich_help_panel=SERVE)
app.command(rich_help_panel=SERVE)(chat.chat)
app.command(rich_help_panel=SERVE)(endpoints.reap)
app.command(rich_help_panel=REHEARSE)(rehearse.rehearse)
app.command(rich_help_panel=REHEARSE)(simulate.simulate)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(version("maas-client"))
        raise typer.Exit


@app.callback()
def maas(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune small language models from one job file: on this laptop, on Foundry or on Azure ML."""


def main() -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them slows every command
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command; returns the exit code. Errors are told on stderr, never as a traceback."""
    from maas_client.cli.output import complain, foresee_format

    foresee_format(words)
    try:
        code = _app_of(words)(words, prog_name="maas", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except MaasError as error:
        complain(error)
        return error.exit_code
    except typer.Abort:  # Ctrl-C or Ctrl-D at a question, which stands in the last line
        print(file=sys.stderr)
        return 130
    except typer.TyperException as error:
        return _usage_error(error)
    except KeyboardInterrupt:
        return 130
    except SystemExit as left:
        # Completion ends so; and Typer does when the reader of stdout went away.
        return 141 if isinstance(left.__context__, OSError) else int(left.code or 0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, MemoryError) as error:
        complain(_machine_error(error))
        return _machine_error(error).exit_code
    except Exception as error:
        if os.environ.get("MAAS_DEBUG"):
            raise
        complain(
            MaasError(
                f"maas_client has a defect: {type(error).__name__}: {error}.",
                hint="MAAS_DEBUG=1 shows where.",
            )
        )
        return 1


def _app_of(words: list[str]) -> typer.Typer:
    """The app with only the command that is asked for, where there is one: each parser takes time."""
    name = next((word for word in words if not word.startswith("-")), "")
    one = copy.copy(app)
    one.registered_commands = [
        each
        for each in app.registered_commands
        if name in (each.name, getattr(each.callback, "__name__", ""))
    ]
    one.registered_groups = [each for each in app.registered_groups if each.name == name]
    return one if one.registered_commands or one.registered_groups else app


def _usage_error(error: typer.TyperException) -> int:
    """A word on the command line that does not fit; a bare `maas` or `maas runs` prints its help."""
    from maas_client.cli.output import complain

    context = getattr(error, "ctx", None)
    command = context.command_path if context else "maas"
    message = error.format_message().replace(": Value error, ", ": ")  # the validator's own word
    if type(error).__name__ != "NoArgsIsHelpError":
        complain(UsageError(message.rstrip(".") + ".", hint=f"{command} --help"))
    else:
        print(message)
    return error.exit_code


def _machine_error(error: OSError | MemoryError) -> MaasError:
    """What the operating system refused, as one sentence."""
    if isinstance(error, MemoryError):
        return QuotaError("No memory is left.", hint="Close other programs and try again.")
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuotaError(
            "The disk is full; nothing half-written was kept.", hint="Free some space and try again."
        )
    place = f" {error.filename}" if error.filename else ""
    return MaasError(
        f"{error.strerror or type(error).__name__}:{place}.", hint="Check the path and its permissions."
    )
