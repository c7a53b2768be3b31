"""The model registry of this machine: home/models/NAME/VERSION with files, lineage and a card."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from maas_client.backends.local.card import model_card
from maas_client.backends.local.folders import lock, publish, size_bytes, staging, told
from maas_client.backends.local.wire import read_json, write_json, write_text
from maas_client.errors import ConflictError, NotFoundError, ServiceError
from maas_client.model import Lineage, ModelRef, RegisteredModel, parse_model
from maas_client.plan import folder_hash
from maas_client.run import Artifact

_RECORD = "model.json"
_FILES = "files"


class LocalModels:
    """The Registry of this machine."""

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._models = home / "models"
        self._clock = clock

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        """Copy the artifact's model as the next version. The same run registered again returns its version.

        Raises ServiceError; then nothing is left behind.
        """
        shelf = self._models / parse_model(name)[0]
        source = artifact.model
        if not isinstance(source, Path) or not source.is_dir():
            hint = "Look at the run's log, and train again."
            raise ConflictError(f"{artifact.folder} holds no model.", operation="register", hint=hint)
        with told("register", shelf), lock(shelf / ".lock"):
            known = self._versions(shelf)
            for model in known:
                if model.lineage.run == lineage.run:
                    return model
            ref = ModelRef(shelf.name, known[0].ref.version + 1 if known else 1)
            with staging(shelf) as staged:
                shutil.copytree(source, staged / _FILES)
                model = self._describe(ref, artifact, lineage, staged / _FILES)
                write_json(staged / _RECORD, _to_json(model, folder_hash(staged / _FILES)))
                write_text(staged / "README.md", model_card(model, artifact.result))
                if not publish(staged, shelf / str(ref.version)):
                    hint = f"Move {shelf / str(ref.version)} away and register again."
                    raise ConflictError(f"Version {ref} is taken.", operation="register", hint=hint)
        return self.get(ref.name, ref.version)

    def list(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """All versions (of one name), newest first."""
        with told("list", self._models):
            if name is not None:
                return self._versions(self._models / parse_model(name)[0])
            shelves = [path for path in self._models.glob("*") if path.is_dir()]
            found = [model for shelf in shelves for model in self._versions(shelf)]
        return tuple(sorted(found, key=lambda model: (model.created_at, model.ref.version), reverse=True))

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        """One version, the newest when None. Raises NotFoundError."""
        found = self.list(name)
        for model in found:
            if version in (None, model.ref.version):
                return model
        wanted = name if version is None else f"{name}:{version}"
        hint = (
            f"There is {', '.join(str(model.ref) for model in found)}."
            if found
            else "maas register makes one."
        )
        raise NotFoundError(f"There is no model {wanted}.", operation="get", hint=hint)

    def _versions(self, shelf: Path) -> tuple[RegisteredModel, ...]:
        numbers = [int(path.name) for path in shelf.glob("[0-9]*") if path.name.isdecimal() and path.is_dir()]
        return tuple(_read(shelf, number) for number in sorted(numbers, reverse=True))

    def _describe(self, ref: ModelRef, artifact: Artifact, lineage: Lineage, files: Path) -> RegisteredModel:
        result = artifact.result
        return RegisteredModel(
            ref=ref,
            place=files,
            created_at=self._clock(),
            lineage=lineage,
            metrics={"before": dict(result.get("before") or {}), "after": dict(result.get("after") or {})},
            adapter=bool(result.get("adapter", (files / "adapter_config.json").is_file())),
            size_bytes=size_bytes(files),
        )


def _to_json(model: RegisteredModel, files_hash: str) -> dict[str, object]:
    return {
        "name": model.ref.name,
        "version": model.ref.version,
        "created_at": model.created_at,
        "adapter": model.adapter,
        "size_bytes": model.size_bytes,
        "files": files_hash,
        "metrics": model.metrics,
        "lineage": asdict(model.lineage),
    }


def _read(shelf: Path, version: int) -> RegisteredModel:
    """One version from its record. Raises ServiceError for a torn or foreign one."""
    path = shelf / str(version) / _RECORD
    value = read_json(path)
    try:
        if value is None:
            raise KeyError(_RECORD)
        return RegisteredModel(
            ref=ModelRef(shelf.name, version),
            place=shelf / str(version) / _FILES,
            created_at=float(value["created_at"]),
            lineage=Lineage(**value["lineage"]),
            metrics=dict(value["metrics"]),
            adapter=bool(value["adapter"]),
            size_bytes=int(value["size_bytes"]),
        )
    except (KeyError, TypeError, ValueError):
        hint = f"Move the folder {path.parent} away and register the run again."
        raise ServiceError(f"{path} does not describe a model.", operation="read", hint=hint) from None
