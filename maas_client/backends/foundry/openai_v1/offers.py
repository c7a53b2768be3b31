"""What the catalog says of a model on the openai route, in the words that the service wants to hear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maas_client.catalog import RouteName, lookup
from maas_client.errors import PlanError

if TYPE_CHECKING:
    from maas_client.catalog import Model, Route
    from maas_client.spec import DeploySpec, JobSpec

CATALOG_ROUTE: RouteName = "foundry-openai-v1"
TRAINING_TYPES = {
    "standard": "Standard",
    "globalStandard": "GlobalStandard",
    "developerTier": "DeveloperTier",
}
"""The job file's words as the live service was seen to take them; it answers in the job file's spelling."""
DEFAULT_SKU = "GlobalStandard"
DEFAULT_CAPACITY = 50
"""50,000 tokens a minute, as Microsoft's own samples deploy; capacity 1 is about one request a minute."""
_FORMATS = {"OpenAI": "OpenAI", "Mistral AI": "Mistral AI", "Meta": "Meta", "Alibaba": "Alibaba"}
_OPEN_WEIGHTS_OF_OPENAI = "Microsoft"


def model_id(name: str) -> str:
    """What the service calls a base model: models of OpenAI carry their version, open ones do not."""
    model = lookup(name)
    route = model.route(CATALOG_ROUTE) if model else None
    if model is None or route is None:
        return name
    if model.family == "openai" and route.model_version:
        return f"{model.name}-{route.model_version}"
    return model.name


def model_format(name: str) -> str:
    """What `model.format` of a deployment of a tuned model must say, by its base model."""
    model = lookup(name) or lookup(name.partition(".ft-")[0])
    if model is None:
        return "OpenAI"
    if model.publisher == "OpenAI" and model.family != "openai":
        return _OPEN_WEIGHTS_OF_OPENAI
    return _FORMATS.get(model.publisher, model.publisher)


def sku_of(spec: DeploySpec | None) -> str:
    """The offer of the deployment."""
    return spec.sku if spec is not None and spec.sku else DEFAULT_SKU


def training_type(spec: JobSpec, model: Model | None, region: str | None) -> str:
    """The training type to send, "" where the service decides. Raises PlanError where it is not offered."""
    route = model.route(CATALOG_ROUTE) if model else None
    asked = spec.foundry.training_type
    if route is None or model is None or not route.training_types:
        return TRAINING_TYPES[asked] if asked else ""
    if asked is None:
        only = route.training_types[0] if len(route.training_types) == 1 else None
        return TRAINING_TYPES[only] if only else ""
    if asked not in route.training_types:
        offered = " or ".join(route.training_types)
        raise PlanError(
            f"{model.name} is not trained as {asked}, only as {offered} ({route.source}).",
            hint=f"Set foundry.training_type to {offered}, or leave it out.",
        )
    if asked == "standard" and region and not route.serves(region):
        regions = ", ".join(route.regions or ())
        raise PlanError(
            f"{model.name} is not trained as standard in {region}, only in {regions} ({route.source}).",
            hint="Take a resource in one of these regions, or foundry.training_type globalStandard.",
        )
    return TRAINING_TYPES[asked]


def require_method(model: Model | None, method: str) -> None:
    """Raise PlanError where a source says that the model is not tuned by this method."""
    route = model.route(CATALOG_ROUTE) if model else None
    if model is None or route is None or not route.methods or method in route.methods:
        return
    offered = " and ".join(route.methods)
    raise PlanError(
        f"{model.name} is tuned by {offered} there, not by {method} ({route.source}).",
        hint="Take another model, or rows of the other kind.",
    )


def cautions(spec: JobSpec, model: Model | None, kind: str, region: str | None) -> Iterator[str]:
    """What may go wrong with model and training type, a sentence each."""
    route: Route | None = model.route(CATALOG_ROUTE) if model else None
    if model is None:
        yield f"The catalog does not know {spec.model}; the service decides whether it tunes it."
    elif route is not None and not kind:
        offered = ", ".join(route.training_types)
        yield (
            f"foundry.training_type is not set, so the service decides ({offered} are offered); where it "
            "says that the base model does not support fine-tuning, set one."
        )
    if kind == "Standard" and region is None and route is not None and route.regions:
        yield (
            f"Standard training of {spec.model} is offered in {', '.join(route.regions)}; AZURE_LOCATION is "
            "not set, so the check asks where the resource is."
        )
