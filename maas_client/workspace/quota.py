"""Cores that machines take, and cores that a subscription has left in a region. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from maas_client.transport.members import member, number_at, text_at

Use = Literal["dedicated", "low", "endpoint"]
_EXEMPT = frozenset(
    {
        "standard_nc24ads_a100_v4",
        "standard_nc48ads_a100_v4",
        "standard_nc96ads_a100_v4",
        "standard_nd96asr_v4",
        "standard_nd96amsr_a100_v4",
    }
)
"""Sizes of which an online deployment takes no cores beyond those that it runs."""
_UPGRADE = 1.2
_FAMILY_WORDS = re.compile(r"\b(?:cluster|dedicated|low ?priority|vcpus?|cores?)\b|\bstandard|family", re.I)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True)
class Machines:
    """Machines that a plan takes: a cluster's or a serverless job's (`dedicated`, or `low` for those that may
    be taken away), or those of a managed online endpoint.
    """

    size: str
    instances: int
    use: Use


@dataclass(frozen=True)
class Size:
    """One size that the region offers. `kinds` are the service's words for what may run on it."""

    name: str
    family: str
    cores: int
    low_priority: bool
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Usage:
    """One row of cores in use and their limit; `limit` None: not limited by this row.

    `family` is a normalized name, "" for the total of the region.
    """

    name: str
    family: str
    is_low: bool
    used: int
    limit: int | None

    @property
    def left(self) -> int | None:
        """Cores that are left; None where nothing limits them here."""
        return None if self.limit is None else max(0, self.limit - self.used)


def cores_needed(machines: Machines, size: Size) -> int:
    """Cores that the machines take. A fifth more for an endpoint, which needs it while it is upgraded."""
    count = machines.instances
    if machines.use == "endpoint" and size.name.lower() not in _EXEMPT:
        count = math.ceil(round(_UPGRADE * count, 6))
    return count * size.cores


def family_key(text: str) -> str:
    """What the names of one family have in common.

    `standardNCADSH100v5Family` and `Standard NCADSH100v5 Family Cluster Dedicated vCPUs` are `ncadsh100v5`.
    """
    return _NOT_IN_NAMES.sub("", _FAMILY_WORDS.sub("", text).lower())


def read_sizes(rows: Iterable[Any]) -> dict[str, Size]:
    """The sizes that `locations/{region}/vmSizes` lists, by lower-case name."""
    found = {}
    for row in rows:
        if isinstance(row, Mapping) and text_at(row, "name"):
            size = _read_size(row)
            found[size.name.lower()] = size
    return found


def _read_size(row: Mapping[str, Any]) -> Size:
    kinds = member(row, "supportedComputeTypes")
    return Size(
        name=text_at(row, "name"),
        family=text_at(row, "family"),
        cores=int(number_at(row, "vCPUs") or 0),
        low_priority=member(row, "lowPriorityCapable") is not False,
        kinds=tuple(map(str, kinds)) if isinstance(kinds, list) else (),
    )


def read_usages(rows: Iterable[Any]) -> list[Usage]:
    """The rows of `locations/{region}/usages` that are about the subscription, not about one workspace."""
    return [usage for row in rows if isinstance(row, Mapping) and (usage := _read_usage(row)) is not None]


def _read_usage(row: Mapping[str, Any]) -> Usage | None:
    kind = text_at(row, "type").partition("/")[2].lower()
    shown = text_at(row, "name", "localizedValue") or text_at(row, "name", "value")
    value = text_at(row, "name", "value") or shown
    is_low = "lowpriority" in kind or "lowpriority" in shown.replace(" ", "").lower()
    if kind in {"dedicatedcores/usages", "lowprioritycores/usages"}:
        family = ""
    elif kind.startswith("vmfamily/"):
        family = family_key(value)
    else:
        return None
    limit, used = number_at(row, "limit"), number_at(row, "currentValue") or 0
    return Usage(shown, family, is_low, int(used), None if limit is None or limit < 0 else int(limit))


def rows_for(usages: Iterable[Usage], size: Size, use: Use) -> list[Usage]:
    """The rows that limit machines of a size: its family's, and the region's total.

    Low-priority machines draw on a pool of their own.
    """
    family = family_key(size.family)
    return [one for one in usages if one.is_low == (use == "low") and one.family in {family, ""}]
