"""What a region offers: models that can be tuned there, sizes of machines, and cores that are left."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from maas_client import catalog
from maas_client.catalog import region_name
from maas_client.check import Check
from maas_client.errors import MaasError, ServiceError
from maas_client.workspace.quota import Machines, Size, Usage, cores_needed, read_sizes, read_usages, rows_for
from maas_client.workspace.registries import find_registry_model

if TYPE_CHECKING:
    from maas_client.catalog import Model
    from maas_client.workspace.session import Workspace

REGIONS_TAG = "maas-finetuning-deploy-regions"
"""The tag of a registry's model that lists where it can be tuned and served; it wins over the catalog."""
_ML_VERSION = "2024-10-01"
_QUOTA_HINT = (
    "Ask for quota in the Azure portal (Quotas), or take a smaller size, fewer machines or another region."
)
_WORDS = {"dedicated": "dedicated", "low": "low-priority", "endpoint": "endpoint"}


def check_region(
    workspace: Workspace, model: str, route: str, day: date, more_regions: Sequence[str] = ()
) -> tuple[Check, ...]:
    """Whether a route takes a model on a day, and in the workspace's region and in further ones.

    The day is the catalog's word. The regions are those of the model's tag in its registry; where that cannot
    be read, the catalog's.
    """
    known = catalog.lookup(model)
    if known is not None and (refused := known.refusal(route, day)) is not None:
        return (Check("Region", False, refused.message, refused.hint),)
    listed, source = _listed_regions(workspace, known, model, route)
    wanted = dict.fromkeys(map(region_name, (workspace.facts.location, *more_regions)))
    return tuple(_judge_region(model, region, listed, source) for region in wanted)


def _judge_region(model: str, region: str, listed: Sequence[str] | None, source: str) -> Check:
    if listed is None:
        return Check("Region", None, f"{source} does not say whether {model} is offered in {region}")
    if region in listed:
        return Check("Region", True, f"{model} is offered in {region} ({source})")
    hint = f"Use one of the regions {', '.join(listed)}."
    return Check("Region", False, f"{model} is not offered in {region} ({source})", hint)


def _listed_regions(
    workspace: Workspace, known: Model | None, model: str, route: str
) -> tuple[Sequence[str] | None, str]:
    """The regions that take the model, and who says so."""
    try:
        live = _tagged_regions(workspace, (known and known.azure_registry_id.value) or model)
    except MaasError:
        live = None
    if live is not None:
        return live, "says its registry"
    found = known.route(route) if known else None
    if found is None or found.regions is None:
        return None, "the catalog"
    return found.regions, f"says the catalog: {found.source}"


def _tagged_regions(workspace: Workspace, registry_id: str) -> Sequence[str] | None:
    """The regions in the tag of the newest version; None where there is no such tag. Raises ServiceError."""
    if not registry_id.startswith("azureml://registries/"):
        return None
    newest = find_registry_model(workspace, registry_id.partition("/versions/")[0])
    text = newest.tags.get(REGIONS_TAG)
    if text is None:
        return None
    return [region_name(each) for each in re.split(r"[,;]", str(text)) if each.strip()]


def check_machines(workspace: Workspace, machines: Sequence[Machines]) -> tuple[Check, ...]:
    """Whether the region has the sizes, and the subscription the cores for them; a Check or two for each."""
    target = workspace.target
    start = (
        f"/subscriptions/{target.subscription_id}/providers/Microsoft.MachineLearningServices"
        f"/locations/{workspace.facts.location}"
    )

    def rows(what: str) -> Iterable[Any]:
        params = {"api-version": _ML_VERSION}
        return workspace.arm.paging(f"{start}/{what}", params=params, operation=f"list {what} of the region")

    sizes = read_sizes(rows("vmSizes"))
    try:
        usages = read_usages(rows("usages"))
    except ServiceError as error:
        usages, trouble = None, error
        return (
            *judge_machines(machines, sizes, usages, workspace.facts.location),
            Check("Quota", None, trouble.message, trouble.hint),
        )
    return tuple(judge_machines(machines, sizes, usages, workspace.facts.location))


def judge_machines(
    machines: Iterable[Machines],
    sizes: Mapping[str, Size],
    usages: Sequence[Usage] | None,
    region: str,
) -> Iterator[Check]:
    """The Checks for machines, from what the region lists. `usages` None: they are not known. Pure."""
    for one in machines:
        size = sizes.get(one.size.lower())
        offered = _judge_size(one, size, region)
        yield offered
        if size is not None and offered.ok is not False and usages is not None:
            yield _judge_quota(one, size, rows_for(usages, size, one.use), region)


def _judge_size(machines: Machines, size: Size | None, region: str) -> Check:
    name = f"Size {machines.size}"
    hint = "Take another size (`maas models gpus`) or another region."
    if size is None:
        return Check(name, False, f"not offered in {region}", hint)
    if machines.use == "low" and not size.low_priority:
        return Check(name, False, f"not offered in {region} at low priority", "Use priority: dedicated.")
    if machines.use != "endpoint" and size.kinds and "AmlCompute" not in size.kinds:
        return Check(name, False, f"not offered for clusters in {region}", hint)
    return Check(name, True, f"offered in {region}, {size.cores} cores")


def _judge_quota(machines: Machines, size: Size, rows: Sequence[Usage], region: str) -> Check:
    """The tightest row decides; nothing can be told where no row is about the family."""
    name = f"Quota for {_WORDS[machines.use]} {machines.size}"
    need = cores_needed(machines, size)
    if not any(one.family for one in rows) and machines.use != "low":
        return Check(
            name, None, f"needs {need} cores; nothing is listed for {size.family} in {region}", _QUOTA_HINT
        )
    limited = [(one.left, one) for one in rows if one.left is not None]
    if not limited:
        return Check(
            name, None, f"needs {need} cores; no limit is listed for {size.family} in {region}", _QUOTA_HINT
        )
    left, row = min(limited, key=lambda pair: pair[0])
    shown = f"needs {need} cores; {left} of {row.limit} are left in {row.name} ({region})"
    return Check(name, left >= need, shown, _QUOTA_HINT)
