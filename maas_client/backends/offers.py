"""Whether a route takes a model on a day and in a region, as far as the catalog knows: every plan asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime

from maas_client.catalog import Model, Route, RouteName, lookup
from maas_client.errors import PlanError


def today(clock: Callable[[], float]) -> date:
    """The day (UTC) that a clock shows."""
    return datetime.fromtimestamp(clock(), UTC).date()


def require_offer(
    name: str, route: RouteName, *, on: date, region: str | None = None
) -> tuple[Model | None, tuple[str, ...]]:
    """The catalog's model of that name, and what to know before using it on that route, a sentence each.

    The model is None where the catalog does not know the name: then nothing is refused. Raises PlanError with
    the source, what replaces the model and where else it is taken. A day that `--date` names and the
    service's own catalog, which a check asks, have the last word.
    """
    model = lookup(name)
    if model is None:
        return None, ()
    refusal = model.refusal(route, on, region)
    if refusal is not None:
        raise PlanError(
            f"{refusal.message}.", hint=f"{refusal.hint} {_overruling(model.route(route), on)}".strip()
        )
    offered = model.route(route)
    return model, tuple(_cautions(model, offered, on)) if offered else ()


def _overruling(route: Route | None, on: date) -> str:
    """How to go on where the catalog is behind the service."""
    access = route.access_on(on) if route else "never"
    if access == "open":
        return (
            "Without AZURE_LOCATION, the check asks the service's own catalog about the workspace's region."
        )
    return f"This is as of {on}; --date plans for another day." if access in {"closed", "not-yet"} else ""


def _cautions(model: Model, route: Route, on: date) -> Iterator[str]:
    """What is still possible, but not for everybody or not for long."""
    source = route.sources[-1]
    if route.access_on(on) == "existing-customers":
        until = f" until {route.existing_customers_until}" if route.existing_customers_until else ""
        yield (
            f"{model.name} is closed to new customers on {route.name} since {route.closes}; who tuned it "
            f"before may go on{until} ({source})."
        )
    elif route.closes is not None:
        yield f"{model.name} is taken on {route.name} until {route.closes} ({source})."
    if route.gated:
        yield f"{model.name} is open by invitation on {route.name} ({route.source})."
    stage = model.lifecycle_on(on)
    if stage.state == "deprecated":
        instead = f"; {stage.replacement} replaces it" if stage.replacement else ""
        yield f"{model.name} is deprecated{instead} ({stage.source})."
