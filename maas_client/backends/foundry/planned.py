"""What a plan of either route decided, and the files that it was made from, read as they were then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.command import JsonFile
from maas_client.errors import PlanError
from maas_client.plan import file_hash

if TYPE_CHECKING:
    from maas_client.plan import Plan


def config_of(plan: Plan) -> Mapping[str, Any]:
    """What would be sent, besides the rows; `route` is in it. Raises PlanError for another backend's plan."""
    source = plan.job.inputs.get("config")
    if not isinstance(source, JsonFile) or "route" not in source.value:
        hint = "Plan the job again: maas plan JOB"
        raise PlanError("The plan was not made for Azure AI Foundry.", hint=hint)
    return source.value


@contextmanager
def unchanged(plan: Plan) -> Iterator[None]:
    """What is read inside of the plan's files of rows is what was planned, to the last byte.

    Raises PlanError.
    """
    inputs = plan.job.inputs
    files = {name: source for name in ("train", "validation") if isinstance(source := inputs.get(name), Path)}
    before = {path: _stamp(path) for path in files.values()}
    _require_same(path for name, path in files.items() if file_hash(path) != plan.hashes[name])
    yield
    _require_same(path for path, stamp in before.items() if _stamp(path) != stamp)


def _require_same(changed: Iterator[Path]) -> None:
    for path in changed:
        hint = "Give the command again to plan with what is there now."
        raise PlanError(f"{path} changed since the plan was made.", hint=hint)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
