"""`maas models registered`: the versions that runs were registered as, on every backend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maas_client.cli.output import Output, OutputFormat, emit, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maas_client.model import RegisteredModel
    from maas_client.shelves import ModelList

_COLUMNS = dict.fromkeys(("MODEL", "WHERE", "MADE", "RUN", ""), "left")


def registered(
    name: Annotated[
        str | None, typer.Argument(help="Only versions of this name.", show_default="all")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List registered versions, newest first on each backend.

    A backend that cannot be asked is listed as unknown, and exits with 1.
    """
    from maas_client.project import open_project

    lists = open_project().shelves.lists(name)
    rows = [row for one in lists for row in _rows(one)]
    none = "No models yet. Keep one: maas register RUN"
    emit([data for one in lists for data in _data(one)], table(_COLUMNS, rows) if rows else none)
    if any(one.error is not None for one in lists):
        raise typer.Exit(1)


def _rows(listed: ModelList) -> Iterator[list[str]]:
    for one in listed.models:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created_at))
        yield [str(one.ref), listed.backend, made, one.lineage.run, _measured(one)]
    if listed.error is not None:
        yield ["?", listed.backend, "", "", listed.error.message]


def _measured(model: RegisteredModel) -> str:
    """The first metric before and after, where the run measured some."""
    before, after = model.metrics.get("before") or {}, model.metrics.get("after") or {}
    for name, value in after.items():
        if isinstance(value, int | float):
            old = before.get(name)
            start = f"{old:.4g} -> " if isinstance(old, int | float) else ""
            return f"{name} {start}{value:.4g}"
    return ""


def _data(listed: ModelList) -> Iterator[dict[str, Any]]:
    for one in listed.models:
        yield {"backend": listed.backend, **one.to_dict()}
    if listed.error is not None:
        yield {"backend": listed.backend, "ref": "?", "error": listed.error.to_dict()}
