"""A base model as the catalog knows it: lifecycle, routes, sizes, layer names, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from maas_client.catalog.facts import Fact, Source, day, read_fact
from maas_client.catalog.routes import Refusal, Route, read_route

State = Literal["ga", "deprecated", "retired"]
FACT_NAMES = (
    "hugging_face_id",
    "azure_registry_id",
    "open_weights",
    "license",
    "parameters",
    "context_tokens",
    "architecture",
    "linear_modules",
    "hidden_size",
    "layers",
    "attention_heads",
    "key_value_heads",
    "intermediate_size",
    "vocabulary_size",
    "chat_template",
    "end_token",
)


@dataclass(frozen=True)
class Lifecycle:
    """The stage of a model's life on a day. `since` None: from before the catalog's first source.

    `retires_on` is the known day of retirement (past or coming), `replacement` what the publisher suggests;
    both None where no source says. The stage is about the hosted service: open weights outlive it.
    """

    state: State
    since: date | None
    source: Source
    replacement: str | None = None
    retires_on: date | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "state": self.state,
            "since": self.since.isoformat() if self.since else None,
            "retires_on": self.retires_on.isoformat() if self.retires_on else None,
            "replacement": self.replacement,
            "source": self.source.to_dict(),
            "note": self.note,
        }


@dataclass(frozen=True)
class Model:
    """One base model. Facts are unknown (`value` None) where no public source was found.

    `parameters` counts weights, `context_tokens` the longest prompt with its answer, `linear_modules` are the
    names that LoRA may target, `chat_template` is the family of the prompt format and `end_token` the token
    that ends a turn.
    """

    name: str
    family: str
    publisher: str
    aliases: tuple[str, ...]
    stages: tuple[Lifecycle, ...]
    routes: tuple[Route, ...]
    hugging_face_id: Fact[str]
    azure_registry_id: Fact[str]
    open_weights: Fact[bool]
    license: Fact[str]
    parameters: Fact[int]
    context_tokens: Fact[int]
    architecture: Fact[str]
    linear_modules: Fact[tuple[str, ...]]
    hidden_size: Fact[int]
    layers: Fact[int]
    attention_heads: Fact[int]
    key_value_heads: Fact[int]
    intermediate_size: Fact[int]
    vocabulary_size: Fact[int]
    chat_template: Fact[str]
    end_token: Fact[str]

    @property
    def facts(self) -> dict[str, Fact[Any]]:
        """Every fact by its name, in the order in which they are shown."""
        return {name: getattr(self, name) for name in FACT_NAMES}

    @property
    def names(self) -> tuple[str, ...]:
        """The name and everything else that finds the model."""
        ids = (self.hugging_face_id.value, self.azure_registry_id.value)
        return (self.name, *self.aliases, *(name for name in ids if name))

    @property
    def folder(self) -> Path | None:
        """The folder of a model that ships with the package, else None."""
        from maas_client.bundled import model_folder

        return model_folder(self.name)

    def lifecycle_on(self, on: date) -> Lifecycle:
        """The stage on that day; a model is retired on the day of its retirement and ever after."""
        begun = [stage for stage in self.stages if stage.since is None or stage.since <= on]
        return begun[-1]

    def routes_on(self, on: date) -> tuple[Route, ...]:
        """The routes that take the model on that day, those for existing customers only included."""
        return tuple(route for route in self.routes if route.access_on(on) in {"open", "existing-customers"})

    def route(self, name: str) -> Route | None:
        """What the catalog knows of one route, open or not."""
        return next((route for route in self.routes if route.name == name), None)

    def refusal(self, name: str, on: date, region: str | None = None) -> Refusal | None:
        """Why the route `name` does not take the model on that day (in that region); None where it does."""
        route = self.route(name)
        reason = self._reason(name, route, on, region)
        if reason is None:
            return None
        stage = self.lifecycle_on(on)
        replacement = stage.replacement if stage.state == "retired" and route is not None else None
        others = tuple(other.name for other in self.routes_on(on) if other.name != name)
        source = route.sources[-1 if route.access_on(on) == "closed" else 0] if route else None
        message = f"{self.name} {reason}" + (f" ({source})" if source else "")
        regions = route.regions if route and route.access_on(on) == "open" else None
        return Refusal(message, _hint(self.name, replacement, others, regions), source, replacement, others)

    def _reason(self, name: str, route: Route | None, on: date, region: str | None) -> str | None:
        if route is None:
            return f"is not known to be offered on {name}"
        access = route.access_on(on)
        if access == "never":
            return f"is not offered on {name}"
        if access == "not-yet":
            return f"is offered on {name} only from {route.opens} on"
        if access == "closed":
            return f"is no longer taken on {name} since {route.closes}"
        if region and not route.serves(region):
            return f"is not offered on {name} in {region}"
        return None

    def to_dict(self, on: date) -> dict[str, Any]:
        """JSON-ready data, as of that day."""
        return {
            "name": self.name,
            "family": self.family,
            "publisher": self.publisher,
            "aliases": list(self.aliases),
            "date": on.isoformat(),
            "lifecycle": self.lifecycle_on(on).to_dict(),
            "routes": [route.to_dict(on) for route in self.routes],
            "facts": {name: fact.to_dict() for name, fact in self.facts.items()},
        }


def _hint(
    name: str, replacement: str | None, others: tuple[str, ...], regions: tuple[str, ...] | None
) -> str:
    """The next thing to try, as one sentence."""
    choices = [f"one of the regions {', '.join(regions)}"] if regions else []
    if replacement:
        choices.append(f"{replacement} on the same route")
    if others:
        choices.append(f"{name} on {' or '.join(others)}")
    return f"Use {', or '.join(choices)}." if choices else "`maas models list` shows what can be used."


def read_model(data: Mapping[str, Any], sources: Mapping[str, Source]) -> Model:
    """One model of models.json."""
    facts = {name: read_fact(fact, sources) for name, fact in data["facts"].items()}
    return Model(
        name=data["name"],
        family=data["family"],
        publisher=data["publisher"],
        aliases=tuple(data["aliases"]),
        stages=_read_stages(data["lifecycle"], sources),
        routes=tuple(read_route(route, sources) for route in data["routes"]),
        **facts,
    )


def _read_stages(rows: list[Mapping[str, Any]], sources: Mapping[str, Source]) -> tuple[Lifecycle, ...]:
    retires_on = next((day(row["since"]) for row in rows if row["state"] == "retired"), None)
    return tuple(
        Lifecycle(
            state=row["state"],
            since=day(row["since"]),
            source=sources[row["source"]],
            replacement=row.get("replacement"),
            retires_on=retires_on,
            note=row.get("note", ""),
        )
        for row in rows
    )
