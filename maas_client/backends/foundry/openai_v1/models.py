"""The registry of the openai route: names and versions, kept here, for models that stay in the resource.

The service knows a tuned model by one long name and keeps no versions: the project's home counts them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maas_client.backends.foundry.openai_v1.results import tuned_name
from maas_client.backends.local.folders import lock, told
from maas_client.backends.local.wire import read_json, write_json
from maas_client.cloudpath import CloudPath
from maas_client.errors import ConflictError, NotFoundError, ServiceError, UsageError
from maas_client.model import Lineage, ModelRef, RegisteredModel
from maas_client.run import Artifact

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class OpenAIModels:
    """The Registry of the openai route: a file for each version below `folder`/models."""

    def __init__(self, folder: Path, *, clock: Callable[[], float]) -> None:
        self._models = folder / "models"
        self._clock = clock

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        """Keep a tuned model as the next version of `name`; the same run again returns its version.

        Raises ConflictError for what is no tuned model of this route, UsageError for a name that is none.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name of a model.", hint="Use letters, digits, '-', '_' and '.'."
            )
        place = artifact.model
        if not isinstance(place, CloudPath) or not tuned_name(place)[1]:
            what = f"{place} is no tuned model of a Foundry resource."
            raise ConflictError(what, operation="register", hint="Register the run on its own backend.")
        shelf = self._models / name
        with told("register", shelf), lock(self._models / f".{name}.lock"):
            there = list(self._versions(name))
            for model in there:
                if model.lineage.run == lineage.run:
                    return model
            number = max((model.ref.version for model in there), default=0) + 1
            result = artifact.result
            metrics = {
                key: dict(result[key]) for key in ("before", "after") if isinstance(result.get(key), Mapping)
            }
            model = RegisteredModel(
                ModelRef(name, number), place, self._clock(), lineage, metrics, adapter=False, size_bytes=0
            )
            shelf.mkdir(parents=True, exist_ok=True)
            write_json(shelf / f"{number}.json", _written(model))
        return model

    def list(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """All versions (of one name), newest first."""
        names = [name] if name else [path.name for path in self._models.glob("*/")]
        found = [model for each in names for model in self._versions(each)]
        return tuple(sorted(found, key=lambda model: (model.created_at, model.ref.version), reverse=True))

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        """One version, the newest when None. Raises NotFoundError."""
        found = [model for model in self._versions(name) if version in (None, model.ref.version)]
        if not found:
            wanted = name if version is None else f"{name}:{version}"
            hint = "maas models registered shows those that are."
            raise NotFoundError(
                f"There is no model {wanted} of a Foundry resource here.", operation="look", hint=hint
            )
        return max(found, key=lambda model: model.ref.version)

    def _versions(self, name: str) -> Iterator[RegisteredModel]:
        """The versions of a name; a file that cannot be read is left out."""
        if not _NAME.fullmatch(name):
            return
        for path in (self._models / name).glob("*.json"):
            try:
                read = read_json(path)
                if read is not None:
                    yield _read(name, int(path.stem), read)
            except (ServiceError, ValueError, KeyError, TypeError):
                continue


def _written(model: RegisteredModel) -> dict[str, Any]:
    return {
        "place": str(model.place),
        "created_at": model.created_at,
        "metrics": model.metrics,
        "lineage": asdict(model.lineage),
    }


def _read(name: str, version: int, read: Mapping[str, Any]) -> RegisteredModel:
    return RegisteredModel(
        ModelRef(name, version),
        CloudPath(str(read["place"])),
        float(read["created_at"]),
        Lineage(**read["lineage"]),
        read["metrics"],
        adapter=False,
        size_bytes=0,
    )
