"""A way to fine-tune a model, from which day to which, and why it is refused on another day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from maas_client.catalog.facts import Source, day

RouteName = Literal["foundry-classic", "foundry-openai-v1", "azureml", "local"]
ROUTES: tuple[RouteName, ...] = ("foundry-classic", "foundry-openai-v1", "azureml", "local")
Access = Literal["open", "existing-customers", "closed", "not-yet", "never"]


@dataclass(frozen=True)
class Route:
    """One way to fine-tune a model.

    `opens` is the first day it takes the model and `closes` the first day it no longer does (`closes_source`
    says so); None is not limited by any source. From `closes` on, customers who already tuned the model may
    go on, at least until the day `existing_customers_until`. `regions` are Azure names such as eastus2; None
    is not stated. `offered` False says that a source rules the route out. `example_tokens` is the longest
    training example, `deployments_until` the day on which tuned models stop answering. `methods`,
    `training_types` and `model_version` are the service's words.
    """

    name: RouteName
    source: Source
    offered: bool = True
    opens: date | None = None
    closes: date | None = None
    closes_source: Source | None = None
    existing_customers_until: date | None = None
    deployments_until: date | None = None
    regions: tuple[str, ...] | None = None
    methods: tuple[str, ...] = ()
    training_types: tuple[str, ...] = ()
    model_version: str | None = None
    example_tokens: int | None = None
    gated: bool = False
    note: str = ""

    def access_on(self, on: date) -> Access:
        """Who may start a training on that day."""
        if not self.offered:
            return "never"
        if self.opens and on < self.opens:
            return "not-yet"
        if self.closes is None or on < self.closes:
            return "open"
        if self.existing_customers_until and on < self.existing_customers_until:
            return "existing-customers"
        return "closed"

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the route and the day of its closing were read."""
        return (self.source, self.closes_source) if self.closes_source else (self.source,)

    def serves(self, region: str) -> bool:
        """Whether the region is listed, spelled `eastus2` or `East US 2`; True where no list is known."""
        return self.regions is None or region_name(region) in self.regions

    def to_dict(self, on: date) -> dict[str, Any]:
        """JSON-ready data, with the access on that day."""
        return {
            "route": self.name,
            "access": self.access_on(on),
            "opens": _iso(self.opens),
            "closes": _iso(self.closes),
            "existing_customers_until": _iso(self.existing_customers_until),
            "deployments_until": _iso(self.deployments_until),
            "regions": None if self.regions is None else list(self.regions),
            "methods": list(self.methods),
            "training_types": list(self.training_types),
            "model_version": self.model_version,
            "example_tokens": self.example_tokens,
            "gated": self.gated,
            "sources": [source.to_dict() for source in self.sources],
            "note": self.note,
        }


@dataclass(frozen=True)
class Refusal:
    """Why a route does not take a model on a day: one sentence, what to try next, and the evidence."""

    message: str
    hint: str
    source: Source | None
    replacement: str | None
    other_routes: tuple[RouteName, ...]


def region_name(text: str) -> str:
    """Azure's own spelling of a region: `East US 2` is `eastus2`."""
    return text.replace(" ", "").lower()


def read_route(data: Mapping[str, Any], sources: Mapping[str, Source]) -> Route:
    """One route of models.json."""
    regions = data.get("regions")
    return Route(
        name=data["route"],
        source=sources[data["source"]],
        offered=data.get("offered", True),
        opens=day(data.get("opens")),
        closes=day(data.get("closes")),
        closes_source=sources[data["closes_source"]] if "closes_source" in data else None,
        existing_customers_until=day(data.get("existing_customers_until")),
        deployments_until=day(data.get("deployments_until")),
        regions=None if regions is None else tuple(regions),
        methods=tuple(data.get("methods", ())),
        training_types=tuple(data.get("training_types", ())),
        model_version=data.get("model_version"),
        example_tokens=data.get("example_tokens"),
        gated=data.get("gated", False),
        note=data.get("note", ""),
    )


def _iso(value: date | None) -> str | None:
    return value.isoformat() if value else None
