"""What commands print: data on stdout in the chosen format, talk on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maas_client.cli.pages import Page, Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from maas_client.errors import MaasError


_PIPE_COLUMNS = 2000


class OutputFormat(StrEnum):
    """How data is printed on stdout."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


_format: ContextVar[OutputFormat] = ContextVar("format", default=OutputFormat.TABLE)


def foresee_format(words: Sequence[str]) -> None:
    """Take the format from the words of the command line before parsing: a parser's error needs it."""
    chosen = OutputFormat.TABLE
    for word, after in pairwise([*words, ""]):
        value = after if word in {"-o", "--output"} else word.removeprefix("--output=").removeprefix("-o")
        if word.startswith(("-o", "--output")) and value in set(OutputFormat):
            chosen = OutputFormat(value)
    _format.set(chosen)


def _choose(value: OutputFormat) -> OutputFormat:
    _format.set(value)
    return value


Output = Annotated[
    OutputFormat,
    typer.Option("--output", "-o", callback=_choose, help="Format of the data on stdout.", show_default=True),
]
"""The option that every command takes: `output: Output = OutputFormat.TABLE`.

emit() knows what was chosen.
"""


def machine_readable() -> bool:
    """True when the chosen format is for programs."""
    return _format.get() is not OutputFormat.TABLE


def emit(payload: Any, human: RenderableType | None = None) -> None:
    """Print data on stdout: `payload` (JSON-ready) as JSON or YAML, else `human` (default: YAML)."""
    chosen = _format.get()
    if chosen is OutputFormat.JSON:
        print(json.dumps(payload, indent=2, default=str, ensure_ascii=False))
    elif chosen is OutputFormat.YAML or human is None:
        import yaml

        plain = json.loads(json.dumps(payload, default=str))
        print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100), end="")
    elif isinstance(human, str):
        print(human, end="\n" if human else "")
    elif isinstance(human, Table | Page) and not sys.stdout.isatty():
        print(human.plain())
    else:
        console = stdout_console()
        with console.capture() as captured:
            console.print(human)
        print("\n".join(line.rstrip(" ") for line in captured.get().split("\n")), end="")
    sys.stdout.flush()


def stdout_console() -> Console:
    """A console for data. Text is printed as it is; where nobody looks at it, rows are not folded."""
    from rich.console import Console

    piped = not sys.stdout.isatty()
    width = _PIPE_COLUMNS if piped and "COLUMNS" not in os.environ else None
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=piped, width=width)


def stderr_console() -> Console:
    """A console for talk."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=not sys.stderr.isatty())


def say(text: str, *, style: str | None = None) -> None:
    """Talk to the person at the terminal: one line on stderr."""
    if not sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
        return
    stderr_console().print(text, style=style)


def say_target(target: str) -> None:
    """Say which subscription and workspace or account a command works on; nothing for this machine."""
    if target:
        say(f"On {target}.", style="dim")


def ask(question: str, *, yes: bool) -> None:
    """Ask before going on; ends the command with code 1 on no, and with 2 where nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        from maas_client.errors import UsageError

        raise UsageError(f"{question} Nobody is there to answer.", hint="Pass -y to say yes.")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def complain(error: MaasError) -> None:
    """Print an error on stderr: the sentence, every problem of a job file, and what to try next."""
    if machine_readable():
        print(json.dumps(error.to_dict(), indent=2, ensure_ascii=False), file=sys.stderr)
        return
    say(f"error: {error.message}", style="bold red")
    for problem in getattr(error, "problems", ()):
        say(f"  {problem}")
    request_id = getattr(error, "request_id", "")
    if request_id:
        say(f"  request id: {request_id}")
    if error.hint:
        say(f"  try: {error.hint}", style="yellow")


def table(columns: Mapping[str, str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table. `columns` maps a heading to "left" or "right"."""
    return Table(columns, rows)
