"""A registered model: a name, a version and where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maas_client.cloudpath import CloudPath
from maas_client.errors import UsageError

_REF = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<version>\d+|latest))?")


@dataclass(frozen=True)
class ModelRef:
    """Identity of a registered model, written `name:version`. Versions count from 1."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def parse_model(text: str) -> tuple[str, int | None]:
    """Split `name`, `name:latest` or `name:3`; the version is None where the newest is meant.

    Raises UsageError.
    """
    match = _REF.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not a model.", hint="Write it as name or name:version, such as card-support:3."
        )
    version = match["version"]
    return match["name"], None if version in (None, "latest") else int(version)


@dataclass(frozen=True)
class Lineage:
    """What a version was made from: enough to make it again.

    `hashes` maps what was hashed (data, code, config, base_model) to `sha256:<hex>`.
    """

    run: str
    base_model: str
    task: str
    method: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredModel:
    """One look at a version in a registry.

    `place` holds its files: a folder here, or an id of the service. `metrics` is {"before": {...},
    "after": {...}}.
    """

    ref: ModelRef
    place: Path | CloudPath
    created_at: float
    lineage: Lineage
    metrics: Mapping[str, Any]
    adapter: bool
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**asdict(self), "ref": str(self.ref), "place": str(self.place)}
