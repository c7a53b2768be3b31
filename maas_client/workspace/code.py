"""Snapshots of code in a workspace, named by the hash of their content: what is unchanged goes once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.errors import NotFoundError
from maas_client.plan import NOT_CODE, folder_hash
from maas_client.workspace.datastores import DEFAULT, Place, get_datastore

if TYPE_CHECKING:
    from maas_client.workspace.files import Files
    from maas_client.workspace.session import Workspace

API_VERSION = "2024-10-01"
_HASH_DIGITS = 32


def register_code(
    workspace: Workspace, files: Files, folder: Path, *, beside: Mapping[str, Path] | None = None
) -> str:
    """The ARM id of a snapshot of `folder`, sent unless the workspace has it; caches are left out.

    `beside` are further folders that go into the snapshot under a name of their own. Several may do so at
    once: they write the same to the same place. Raises ServiceError, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="maas-code-") as scratch:
        copy = Path(scratch) / "code"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*NOT_CODE))
        for name, more in (beside or {}).items():
            shutil.copytree(more, copy / name, ignore=shutil.ignore_patterns(*NOT_CODE))
        digest = folder_hash(copy).removeprefix("sha256:")
        name = f"maas-{digest[:_HASH_DIGITS]}"
        if not _is_there(workspace, name):
            place = Place(DEFAULT, f"maas/code/{digest}")
            files.upload(copy, place)
            _register(workspace, name, place, digest)
    return workspace.path("codes", name, "versions", "1")


def _is_there(workspace: Workspace, name: str) -> bool:
    path = workspace.path("codes", name, "versions", "1")
    try:
        workspace.arm.get(path, params={"api-version": API_VERSION}, operation=f"get code {name}")
    except NotFoundError:
        return False
    return True


def _register(workspace: Workspace, name: str, place: Place, digest: str) -> None:
    store = get_datastore(workspace, place.datastore)
    properties: dict[str, Any] = {
        "codeUri": f"{store.account_url}/{store.container}/{place.path}",
        "isAnonymous": True,
        "description": "Scripts of maas",
        "properties": {"hash_sha256": digest, "hash_version": "maas-1"},
    }
    workspace.arm.put(
        workspace.path("codes", name, "versions", "1"),
        {"properties": properties},
        params={"api-version": API_VERSION},
        operation=f"register code {name}",
    )
