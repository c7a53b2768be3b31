"""Where a version came from, as tags for people and properties for us, within what Azure ML keeps.

Tags can be changed by anyone and are short; properties cannot be changed and hold the whole record as JSON,
in pieces of what one property may hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from maas_client.errors import UsageError
from maas_client.model import Lineage

TAG_RUN = "maas-run"
KEY_CHARACTERS, TAG_CHARACTERS = 100, 256
MOST_TAGS = 50
PROPERTY_CHARACTERS, MOST_PROPERTIES = 1000, 50
"""Limits: the strictest of those that are published for runs, experiments and resources of Azure ML."""
_SPARE_TAGS = 10  # for people, and for what the service adds
_RECORD = "maas-record"
_CUT = "..."


def tags_of(lineage: Lineage, metrics: Mapping[str, Any], *, adapter: bool) -> dict[str, str]:
    """What people look for in the studio: run, base model, task, method, metrics, hashes; each one short."""
    tags = {
        TAG_RUN: lineage.run,
        "maas-base-model": lineage.base_model,
        "maas-task": str(lineage.task),
        "maas-method": lineage.method,
        "maas-weights": "adapter" if adapter else "full",
    }
    tags |= {
        f"maas-{when}-{name}": f"{value:.6g}"
        for when in ("before", "after")
        for name, value in (metrics.get(when) or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    tags |= {f"maas-hash-{name}": digest for name, digest in lineage.hashes.items()}
    kept = list(tags.items())[: MOST_TAGS - _SPARE_TAGS]
    return {_cut(name, KEY_CHARACTERS): _cut(value, TAG_CHARACTERS) for name, value in kept}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - len(_CUT)] + _CUT


def properties_of(
    lineage: Lineage, metrics: Mapping[str, Any], *, adapter: bool, size_bytes: int
) -> dict[str, str]:
    """The whole record in properties. Raises UsageError where it is longer than Azure ML keeps."""
    record = {
        "lineage": {**asdict(lineage), "task": str(lineage.task)},
        "metrics": metrics,
        "adapter": adapter,
        "size_bytes": size_bytes,
    }
    text = json.dumps(record, separators=(",", ":"), default=str)
    pieces = [text[at : at + PROPERTY_CHARACTERS] for at in range(0, len(text), PROPERTY_CHARACTERS)]
    if len(pieces) > MOST_PROPERTIES - _SPARE_TAGS:
        raise UsageError(
            f"What run {lineage.run} was made from takes {len(text)} characters; Azure ML keeps fewer.",
            hint="Make its config shorter.",
        )
    return {f"{_RECORD}-{number:02}": piece for number, piece in enumerate(pieces)}


def read_record(properties: Mapping[str, Any], tags: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a version: lineage, metrics, adapter, size_bytes. What it lacks is as empty as it can be.

    A version that was made by other means, or whose properties are damaged, has what its tags say.
    """
    names = sorted(name for name in properties if name.startswith(f"{_RECORD}-"))
    text = "".join(str(properties[name]) for name in names)
    try:
        read = json.loads(text)
        lineage = Lineage(**read["lineage"])
        sizes = {"adapter": bool(read["adapter"]), "size_bytes": int(read["size_bytes"])}
        return {"lineage": lineage, "metrics": dict(read["metrics"]), **sizes}
    except (ValueError, TypeError, KeyError):
        known = (TAG_RUN, "maas-base-model", "maas-task", "maas-method")
        run, base_model, task, method = (str(tags.get(tag) or "") for tag in known)
        lineage = Lineage(run, base_model, task, method)
        adapter = tags.get("maas-weights") == "adapter"
        return {"lineage": lineage, "metrics": {}, "adapter": adapter, "size_bytes": 0}
