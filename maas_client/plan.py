"""Plan: everything that a submission would do, decided before anything is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maas_client.command import CommandJob, Input, JsonFile
from maas_client.estimate import Estimate
from maas_client.spec import JobSpec

_CHUNK_BYTES = 1 << 20
NOT_CODE = ("__pycache__", ".DS_Store", "examples")
"""Names in a folder of code that are neither hashed nor copied with it."""


@dataclass(frozen=True)
class PlanStep:
    """One thing that would be done: a verb (write, upload, start, ...), its object and what it amounts to."""

    verb: str
    what: str
    detail: str = ""


@dataclass(frozen=True)
class Plan:
    """What would happen for one spec on one backend.

    `hashes` names what went into `fingerprint` (data, code, config, base_model): equal fingerprints are equal
    runs. `number` tells apart deliberate repetitions of the same run. `cost` is a sentence; unknown is said
    as unknown. `is_free` is True only where nothing bills. `estimate` is None where a service decides on
    what it trains, and for what does not train.
    """

    spec: JobSpec
    backend: str
    target: str
    job: CommandJob
    steps: tuple[PlanStep, ...]
    cost: str
    is_free: bool
    hashes: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    number: int = field(default=1)
    estimate: Estimate | None = None

    @property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of the hash over name, config, data, code and base model."""
        text = json.dumps([self.spec.name, self.backend, self.target, dict(sorted(self.hashes.items()))])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def run_id(self) -> str:
        """`<name>-<fingerprint>-<number>`: a run's name on every backend."""
        return f"{self.spec.name}-{self.fingerprint[:8]}-{self.number}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what `maas plan -o json` prints."""
        return {
            "run": self.run_id,
            "backend": self.backend,
            "target": self.target,
            "command": self.job.command,
            "inputs": {name: _shown(source) for name, source in self.job.inputs.items()},
            "outputs": list(self.job.outputs),
            "steps": [{"verb": step.verb, "what": step.what, "detail": step.detail} for step in self.steps],
            "cost": self.cost,
            "estimate": self.estimate.to_dict() if self.estimate else None,
            "hashes": dict(self.hashes),
            "warnings": list(self.warnings),
        }


def _shown(source: Input) -> Any:
    return source.value if isinstance(source, JsonFile) else str(source)


def job_hashes(job: CommandJob) -> dict[str, str]:
    """`sha256:<hex>` of what decides a run's result: config, code, data and base model."""
    hashes = {"code": folder_hash(job.code)}
    for name, source in job.inputs.items():
        if isinstance(source, JsonFile):
            hashes[name] = _sha256([json.dumps(source.value, sort_keys=True).encode()])
        elif isinstance(source, Path):
            hashes[name] = folder_hash(source) if source.is_dir() else file_hash(source)
        else:
            hashes[name] = _sha256([str(source).encode()])
    return hashes


def file_hash(path: Path) -> str:
    """`sha256:<hex>` of a file's content."""
    return _sha256(_file_bytes(path))


def folder_hash(folder: Path) -> str:
    """`sha256:<hex>` over names and contents of a folder's files; caches and examples are left out."""
    return _sha256(_folder_bytes(folder))


def _folder_bytes(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not set(NOT_CODE).intersection(relative.parts):
            yield f"\0{relative.as_posix()}\0{path.stat().st_size}\0".encode()
            yield from _file_bytes(path)


def _file_bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _sha256(chunks: Iterator[bytes] | list[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
