"""What is known of base models, GPU sizes and prices: JSON files here, each fact with source and date.

Nothing here reads a clock or a network: questions about a day take the day.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from maas_client.catalog.facts import Fact, Source, read_sources
from maas_client.catalog.machines import Gpu, Peak, Price, read_gpu, read_peak, read_price
from maas_client.catalog.models import FACT_NAMES, Lifecycle, Model, read_model
from maas_client.catalog.routes import ROUTES, Access, Refusal, Route, RouteName, region_name
from maas_client.errors import PlanError

__all__ = [
    "FACT_NAMES",
    "ROUTES",
    "Access",
    "Fact",
    "Gpu",
    "Lifecycle",
    "Model",
    "Peak",
    "Price",
    "Refusal",
    "Route",
    "RouteName",
    "Source",
    "find_gpu",
    "find_model",
    "gpus",
    "lookup",
    "models",
    "peak",
    "price",
    "region_name",
]


def _read(file: str) -> Any:
    """A file of this folder, in a checkout or a wheel; importlib.resources would take ten times as long."""
    from pkgutil import get_data

    return json.loads(get_data(__name__, file) or b"")


@cache
def models() -> tuple[Model, ...]:
    """Every model, in the order in which they are listed."""
    data = _read("models.json")
    sources = read_sources(data["sources"])
    return tuple(read_model(row, sources) for row in data["models"])


@cache
def gpus() -> tuple[Gpu, ...]:
    """Every GPU size, in the order in which they are listed."""
    data = _read("gpus.json")
    sources = read_sources(data["sources"])
    return tuple(read_gpu(row, sources) for row in data["gpus"])


@cache
def _peaks() -> dict[str, Peak]:
    data = _read("gpus.json")
    sources = read_sources(data["sources"])
    return {row["gpu_model"]: read_peak(row, sources) for row in data["peaks"]}


@cache
def _prices() -> dict[str, Price]:
    data = _read("prices.json")
    sources = read_sources(data["sources"])
    read = (read_price(row, sources) for row in data["prices"])
    return {found.name.lower(): found for found in read if found}


@cache
def _models_by_name() -> dict[str, Model]:
    return {name.lower(): model for model in models() for name in model.names}


def lookup(name: str) -> Model | None:
    """The model with that name, alias, Hugging Face id or registry id (case and version aside), or None."""
    return _models_by_name().get(name.strip().lower().partition("/versions/")[0])


def find_model(name: str) -> Model:
    """Like lookup, but an unknown name raises PlanError with the closest names that are known."""
    model = lookup(name)
    if model is None:
        hint = _close_matches(name, [name for model in models() for name in model.names])
        message = f"The catalog has no model named {name!r}."
        raise PlanError(message, hint=hint or "`maas models list --all` shows every model.")
    return model


def find_gpu(name: str) -> Gpu:
    """The GPU size with that name (case and a missing `Standard_` aside); raises PlanError where unknown."""
    known = {gpu.name.lower(): gpu for gpu in gpus()}
    wanted = name.strip().lower()
    gpu = known.get(wanted) or known.get(f"standard_{wanted}")
    if gpu is None:
        hint = _close_matches(name, [gpu.name for gpu in gpus()])
        message = f"The catalog has no GPU size named {name!r}."
        raise PlanError(message, hint=hint or "`maas models gpus` shows every size.")
    return gpu


def peak(gpu_model: str) -> Peak | None:
    """What one GPU of that model multiplies at most, or None where no source tells."""
    return _peaks().get(gpu_model)


def price(name: str) -> Price | None:
    """What an hour of a GPU size or service costs, or None where no price is known."""
    return _prices().get(name.strip().lower())


def _close_matches(wanted: str, names: list[str]) -> str:
    """`Did you mean A or B?`, or nothing where no name is close."""
    from difflib import get_close_matches

    spelled = {name.lower(): name for name in reversed(names)}
    text = wanted.strip().lower()
    close = [name for name in spelled if len(text) > 2 and text in name][:3]
    close = close or get_close_matches(text, spelled, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(spelled[name] for name in close)}?" if close else ""
