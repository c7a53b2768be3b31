"""Sizes of virtual machines in the region, the quota of their families, and who uses how much of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from maas_client import catalog
from maas_client.simulator.world import PROVIDER, World

DEFAULT_LIMIT = 200
"""Cores a family, unless the simulator is told otherwise. (A real new subscription has none for GPUs.)"""
POOL = "lowPriorityCores"
"""Under this name the quota of all low-priority machines together is set."""
_RUNNING = frozenset({"Preparing", "Running", "Finalizing"})


@dataclass(frozen=True)
class Size:
    """One size: cores, GiB of memory, GPUs and the family whose quota it draws on."""

    name: str
    family: str
    cores: int
    memory_gib: float
    gpus: int = 0


_CPU_SIZES = (
    Size("Standard_DS3_v2", "standardDSv2Family", 4, 14),
    Size("Standard_E4s_v3", "standardESv3Family", 4, 32),
    Size("Standard_D8s_v5", "standardDSv5Family", 8, 32),
)


def sizes() -> list[Size]:
    """Every size that is offered: those of the catalog, and three without GPUs.

    A size whose family is unknown is a family by itself.
    """
    gpus = [
        Size(each.name, each.quota_family or f"family of {each.name}", each.vcpus, each.ram_gib, each.gpus)
        for each in catalog.gpus()
    ]
    return [*gpus, *_CPU_SIZES]


def find_size(name: str) -> Size | None:
    """The size of this name; letter case does not matter."""
    return next((each for each in sizes() if each.name.lower() == name.lower()), None)


def family_of(name: str) -> str:
    """The family (or the pool of low-priority machines) that a family's or a size's name means.

    Raises ValueError that lists them.
    """
    known = {POOL.lower(): POOL}
    for each in sizes():
        known |= {each.family.lower(): each.family, each.name.lower(): each.family}
    if name.lower() not in known:
        raise ValueError(
            f"{name!r} is no family and no size; there are {', '.join(sorted(set(known.values())))}."
        )
    return known[name.lower()]


def limit_of(world: World, family: str) -> int:
    """Cores that the quota of a family allows."""
    return world.quota.get(family, DEFAULT_LIMIT)


def reserved_cores(size: Size, instances: int) -> int:
    """Cores that an online deployment takes: a fifth more than it runs, for its upgrades."""
    return math.ceil(1.2 * instances) * size.cores


def used_cores(world: World, workspace_id: str) -> dict[str, int]:
    """Cores in use, by family: of jobs that run and of online deployments."""
    used: dict[str, int] = {}
    for job in world.store.members(f"{workspace_id}/jobs"):
        size = size_of_job(world, job["properties"])
        if size is not None and job["properties"]["status"] in _RUNNING:
            count = (job["properties"].get("resources") or {}).get("instanceCount") or 1
            used[size.family] = used.get(size.family, 0) + size.cores * count
    for endpoint in world.store.members(f"{workspace_id}/onlineEndpoints"):
        for deployment in world.store.members(f"{endpoint['id']}/deployments"):
            size = find_size(deployment["properties"].get("instanceType") or "")
            if size is not None and deployment["properties"]["provisioningState"] != "Failed":
                cores = reserved_cores(size, deployment["sku"]["capacity"])
                used[size.family] = used.get(size.family, 0) + cores
    return used


def size_of_job(world: World, properties: dict[str, Any]) -> Size | None:
    """The size that a job runs on; None where nobody said."""
    resources = properties.get("resources") or {}
    name = resources.get("instanceType") or (resources.get("instanceTypes") or [""])[0]
    if not name and (compute := properties.get("computeId")) and compute.startswith("/"):
        found = world.store.get(compute)
        name = found["properties"]["properties"]["vmSize"] if found else ""
    return find_size(name) if name else None


def is_preemptible(world: World, properties: dict[str, Any]) -> bool:
    """Whether a job may lose its nodes: a spot tier, or a cluster of low priority."""
    if ((properties.get("queueSettings") or {}).get("jobTier") or "") == "Spot":
        return True
    found = world.store.get(properties.get("computeId") or "/")
    return found is not None and found["properties"]["properties"].get("vmPriority") == "LowPriority"


def _pooled_row(world: World, start: str) -> dict[str, Any]:
    """The row of the pool that low-priority machines draw on, whatever their family."""
    words = "Total Cluster LowPriority Regional vCPUs"
    return {
        "id": start,
        "type": f"{PROVIDER}/lowPriorityCores/usages",
        "unit": "Count",
        "currentValue": 0,
        "limit": limit_of(world, POOL),
        "name": {"value": words, "localizedValue": words},
    }


def usage_rows(world: World, workspace_id: str) -> list[dict[str, Any]]:
    """The rows of `usages`: dedicated cores with their limits, low priority ones without."""
    used = used_cores(world, workspace_id)
    start = f"/subscriptions/{world.names.subscription}/usages"
    rows = [_pooled_row(world, start)]
    for family in sorted({each.family for each in sizes()}):
        for kind, words, limit in (
            ("dedicatedCores", "Dedicated", limit_of(world, family)),
            ("lowPriorityCores", "LowPriority", -1),
        ):
            rows.append(
                {
                    "id": f"{start}/{family}",
                    "type": f"{PROVIDER}/vmFamily/{kind}/usages",
                    "unit": "Count",
                    "currentValue": used.get(family, 0) if kind == "dedicatedCores" else 0,
                    "limit": limit,
                    "name": {"value": family, "localizedValue": f"{family} Cluster {words} vCPUs"},
                }
            )
    return rows
