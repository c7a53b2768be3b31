"""A run's inputs and code, sent to the workspace: by the hash of their content, so nothing goes twice."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.backends.azureml.environment import bundled_environment, ensure_environment
from maas_client.backends.azureml.wire import input_place
from maas_client.backends.local.folders import told
from maas_client.command import JsonFile
from maas_client.errors import PlanError
from maas_client.plan import NOT_CODE, Plan, file_hash, folder_hash
from maas_client.transport.commands import put_job
from maas_client.workspace.datastores import Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from maas_client.workspace.files import Files
    from maas_client.workspace.session import Workspace


def send_inputs(plan: Plan, files: Files) -> None:
    """Put every local input at its place in the workspace's storage, unless it is there whole.

    Raises PlanError where one changed since the plan was made, and ServiceError.
    """
    for name, source in plan.job.inputs.items():
        if isinstance(source, JsonFile):
            data = json.dumps(source.value, sort_keys=True).encode()
            place = input_place(name, source, plan.hashes[name])
            if not _is_there(files, place, {"": len(data)}):
                files.write(place, data)
        elif isinstance(source, Path):
            _send(name, source, plan.hashes[name], files)


def _send(name: str, source: Path, planned: str, files: Files) -> None:
    with told("submit", source):
        sizes = _sizes(source)
        place = input_place(name, source, planned)
        if _is_there(files, place, sizes):
            return
        before = _stamps(source)
        _require_same(name, source, planned)
        files.upload(source, place)
        if _stamps(source) != before:
            raise _changed(name, source)


def _is_there(files: Files, place: Place, sizes: Mapping[str, int]) -> bool:
    """Whether all files of an input are at its place; the place is named by their hash, so size is proof."""
    folder = Place(place.datastore, f"{place.path.rpartition('/')[0]}/")
    there = {blob.path: blob.size_bytes for blob in files.list(folder)}
    return all(there.get(f"{place.path}{name}") == size for name, size in sizes.items())


def _sizes(source: Path) -> dict[str, int]:
    """Bytes of each file below a folder, by its path from there; of a file, by ""."""
    if source.is_file():
        return {"": source.stat().st_size}
    found = (path for path in source.rglob("*") if path.is_file())
    return {path.relative_to(source).as_posix(): path.stat().st_size for path in found}


def _stamps(source: Path) -> dict[Path, tuple[int, int]]:
    paths = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    return {path: ((stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths}


def _require_same(name: str, source: Path, planned: str) -> None:
    if (folder_hash(source) if source.is_dir() else file_hash(source)) != planned:
        raise _changed(name, source)


def _changed(name: str, source: Path) -> PlanError:
    hint = "Give the command again to plan with what is there now."
    return PlanError(f"{source} ({name}) changed since the plan was made.", hint=hint)


@contextmanager
def _code_of(plan: Plan) -> Iterator[Path]:
    """A copy of the code without what is not sent: so its hash at the service is the same again."""
    with tempfile.TemporaryDirectory(prefix="maas-code-") as scratch:
        copy = Path(scratch) / "code"
        with told("submit", plan.job.code):
            shutil.copytree(plan.job.code, copy, ignore=shutil.ignore_patterns(*NOT_CODE))
            if folder_hash(copy) != plan.hashes["code"]:
                raise _changed("code", plan.job.code)
        yield copy


def send_job(plan: Plan, workspace: Workspace, body: Mapping[str, Any]) -> None:
    """Send code, environment and job through azure-ai-ml. Raises PlanError, ServiceError."""
    environment = plan.spec.compute.environment
    if environment is None:
        environment = ensure_environment(workspace, bundled_environment("training"))
    with _code_of(plan) as code:
        workspace.with_client(
            f"start job {plan.run_id}",
            lambda client: put_job(client, plan.run_id, body, code=code, environment=environment),
        )
