"""`maas models`: the catalog of base models, GPU sizes and their prices."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maas_client.cli.options import day_of
from maas_client.cli.output import Output, OutputFormat, emit, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from maas_client.catalog import Fact, Gpu, Model, Route, Source

app = typer.Typer(
    help="Base models, where they can be tuned, GPU sizes, and what was registered.", no_args_is_help=True
)


class RouteChoice(StrEnum):
    """The routes by which a model can be fine-tuned."""

    FOUNDRY_CLASSIC = "foundry-classic"
    FOUNDRY_OPENAI_V1 = "foundry-openai-v1"
    AZUREML = "azureml"
    LOCAL = "local"


Day = Annotated[
    str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The day to look at; default today.")
]


def _day(text: str | None) -> date:
    """The day that --date names, else today."""
    return day_of(text) or date.today()


@app.command("list")
def list_models(
    route: Annotated[
        RouteChoice | None, typer.Option("--route", help="Only models that this route takes.")
    ] = None,
    day: Day = None,
    every: Annotated[bool, typer.Option("--all", help="Also models that no route takes any more.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the models of the catalog that can be fine-tuned."""
    from maas_client import catalog

    on = _day(day)
    shown = [model for model in catalog.models() if every or _taken(model, route, on)]
    emit([_summary(model, on) for model in shown], _model_table(shown, on))


def _taken(model: Model, route: RouteChoice | None, on: date) -> bool:
    taken = [open_route.name for open_route in model.routes_on(on)]
    return bool(taken) if route is None else route in taken


def _summary(model: Model, on: date) -> dict[str, Any]:
    stage = model.lifecycle_on(on)
    return {
        "name": model.name,
        "publisher": model.publisher,
        "state": stage.state,
        "retires_on": stage.retires_on.isoformat() if stage.retires_on else None,
        "replacement": stage.replacement,
        "parameters": model.parameters.value,
        "context_tokens": model.context_tokens.value,
        "license": model.license.value,
        "routes": [route.name for route in model.routes_on(on)],
        "date": on.isoformat(),
    }


def _model_table(shown: list[Model], on: date) -> RenderableType:
    from rich.console import Group

    rows = [
        [model.name, model.lifecycle_on(on).state, _billions(model), _route_names(model, on)]
        for model in shown
    ]
    columns = {"NAME": "left", "STATE": "left", "SIZE": "right", "TUNED ON": "left"}
    limited = any("*" in row[3] for row in rows)
    return Group(table(columns, rows), *(["* customers who already tune it"] if limited else []))


def _billions(model: Model) -> str:
    count = model.parameters.value
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f}B" if count >= 1e8 else f"{count / 1e6:.1f}M"


def _route_names(model: Model, on: date) -> str:
    marks = {"existing-customers": "*"}
    return (
        " ".join(route.name + marks.get(route.access_on(on), "") for route in model.routes_on(on)) or "none"
    )


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A catalog name, a Hugging Face id or an Azure registry id.")],
    day: Day = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show all that is known of a model, each fact with its source and date."""
    from maas_client import catalog

    on = _day(day)
    model = catalog.find_model(name)
    emit(model.to_dict(on), _model_page(model, on))


class _Footnotes:
    """Numbers for sources, in the order in which they are first named."""

    def __init__(self) -> None:
        self.sources: list[Source] = []

    def mark(self, source: Source | None) -> str:
        """`[n] date` for a source; empty for none."""
        if source is None:
            return ""
        if source not in self.sources:
            self.sources.append(source)
        return f"[{self.sources.index(source) + 1}] {source.date}"

    def marks(self, sources: tuple[Source, ...]) -> str:
        """A line for each source."""
        return "\n".join(self.mark(source) for source in sources)


def _model_page(model: Model, on: date) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    notes = _Footnotes()
    parts = [
        Text(f"{model.name} ({model.publisher}) on {on}", style="bold"),
        Text(_life(model, on, notes)),
        Text(),
        _routes_table(model, on, notes),
        Text(),
        _facts_table(model, notes),
        Text(),
        _sources_table(notes),
    ]
    return Group(*parts)


def _life(model: Model, on: date, notes: _Footnotes) -> str:
    """The stage of the model's life in words, with what to use instead and where it is still taken."""
    stage = model.lifecycle_on(on)
    words = [stage.state.upper() if stage.state == "ga" else stage.state]
    if stage.since:
        words.append(f"since {stage.since}")
    elif stage.retires_on:
        words.append(f"until {stage.retires_on}")
    lines = [f"{' '.join(words)}  {notes.mark(stage.source)}"]
    if stage.state == "deprecated" and stage.retires_on:
        lines.append(f"retires: {stage.retires_on}")
    if stage.state != "ga":
        lines.append(f"replacement: {stage.replacement or 'unknown'}")
        lines.append(f"still taken on: {', '.join(_still_open(model, on)) or 'nothing'}")
    if stage.note:
        lines.append(f"note: {stage.note}")
    return "\n".join(lines)


def _still_open(model: Model, on: date) -> list[str]:
    return [
        route.name if route.access_on(on) == "open" else f"{route.name} (existing customers)"
        for route in model.routes_on(on)
    ]


def _routes_table(model: Model, on: date, notes: _Footnotes) -> RenderableType:
    rows = [
        [route.name, _access(route, on), _details(route), notes.marks(route.sources)]
        for route in model.routes
    ]
    return table({"ROUTE": "left", "ACCESS": "left", "DETAILS": "left", "SOURCE": "left"}, rows)


def _access(route: Route, on: date) -> str:
    """Who may train there on that day, with the day on which that changes."""
    access = route.access_on(on)
    if access == "open":
        return f"open until {route.closes}" if route.closes else "open"
    if access == "existing-customers":
        return f"existing customers, at least until {route.existing_customers_until}"
    if access == "closed":
        return f"closed since {route.closes}"
    return f"from {route.opens}" if access == "not-yet" else "never"


def _details(route: Route) -> str:
    """Methods, training types, regions, limits and remarks of a route, as one text."""
    regions = "regions: " + (", ".join(route.regions) if route.regions else "unknown")
    parts = [
        f"version {route.model_version}" if route.model_version else "",
        ", ".join(route.methods),
        ", ".join(route.training_types),
        regions if route.offered and route.name.startswith("foundry") else "",
        f"examples up to {route.example_tokens:,} tokens" if route.example_tokens else "",
        f"tuned models answer until {route.deployments_until}" if route.deployments_until else "",
        route.note,
    ]
    return "; ".join(part for part in parts if part)


def _facts_table(model: Model, notes: _Footnotes) -> RenderableType:
    rows = [
        [name.replace("_", " "), _value(fact), notes.mark(fact.source)] for name, fact in model.facts.items()
    ]
    return table({"FACT": "left", "VALUE": "left", "SOURCE": "left"}, rows)


def _value(fact: Fact[Any]) -> str:
    """A fact's value for people; `unknown` where nobody found one."""
    value = fact.value
    if value is None:
        text = "unknown"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = f"{value:,}"
    else:
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"{text} ({fact.note})" if fact.note else text


def _sources_table(notes: _Footnotes) -> RenderableType:
    rows = [
        [f"[{number}]", f"{source}\n{source.url}"] for number, source in enumerate(notes.sources, start=1)
    ]
    return table({"": "left", "SOURCES": "left"}, rows)


@app.command("gpus")
def list_gpus(output: Output = OutputFormat.TABLE) -> None:
    """List the GPU sizes of Azure, with memory and price where it is known."""
    from maas_client import catalog

    sizes = catalog.gpus()
    emit([_gpu_payload(size) for size in sizes], _gpu_table(sizes))


def _gpu_payload(size: Gpu) -> dict[str, Any]:
    from maas_client import catalog

    price = catalog.price(size.name)
    return {**size.to_dict(), "price": price.to_dict() if price else None}


def _gpu_table(sizes: tuple[Gpu, ...]) -> RenderableType:
    from rich.console import Group

    from maas_client import catalog

    prices = [catalog.price(size.name) for size in sizes]
    rows = [
        [
            size.name,
            size.gpu_model,
            str(size.gpus),
            str(size.gpu_memory_gib),
            str(size.vcpus),
            str(size.ram_gib),
            f"{price.usd_per_hour:.3f}" if price else "unknown",
        ]
        for size, price in zip(sizes, prices, strict=True)
    ]
    numbers = ("GPUS", "GIB", "VCPUS", "RAM", "USD/H")
    columns = {"SIZE": "left", "GPU": "left"} | dict.fromkeys(numbers, "right")
    sources = sorted({str(price.source) for price in prices if price})
    return Group(table(columns, rows), f"GIB: memory of all GPUs.\nPrices: {'; '.join(sources)}.")
