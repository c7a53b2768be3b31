"""Versioned assets of a workspace, all alike on the wire: codes, environments, data and models."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from maas_client.simulator.replies import Reply, not_found, user_error
from maas_client.simulator.routing import WORKSPACE, Call, Operation, page
from maas_client.simulator.state import Resource
from maas_client.simulator.world import resource

_IMMUTABLE: Mapping[str, tuple[str, ...]] = {
    "codes": ("codeUri",),
    "data": ("dataUri", "dataType"),
    "models": ("modelUri", "modelType"),
    "environments": ("image", "condaFile"),
}
_WORDS = {"codes": "code", "data": "dataset", "models": "model", "environments": "environment"}


def get_version(kind: str, call: Call) -> Reply:
    """GET of one version."""
    found = call.world.store.get(_version_id(kind, call))
    if found is None:
        raise not_found(_missing(kind, call.params["name"], call.params["version"]))
    return Reply(200, found)


def put_version(kind: str, call: Call) -> Reply:
    """PUT of one version: made once; afterwards only its words may change."""
    asked = call.properties
    path = _version_id(kind, call)
    there = call.world.store.get(path)
    if there is not None and any(_differs(there, asked, key) for key in _IMMUTABLE[kind]):
        name, version = call.params["name"], call.params["version"]
        text = (
            f"A {_WORDS[kind]} with this name and version already exists: {name}:{version}. It is immutable."
        )
        raise user_error(text, "AlreadyExists", status=409)
    made = resource(
        path, f"workspaces/{kind}/versions", _completed(kind, asked, there), call.world.system_data(there)
    )
    return Reply(201 if there is None else 200, call.world.store.put(path, made))


def _differs(there: Resource, asked: Mapping[str, Any], key: str) -> bool:
    return asked.get(key) is not None and (there["properties"].get(key) or "") != (asked.get(key) or "")


def _completed(kind: str, asked: Mapping[str, Any], there: Resource | None) -> dict[str, Any]:
    """The properties as the service shows them."""
    old = there["properties"] if there else {}
    given = {key: value for key, value in asked.items() if value is not None}
    base: dict[str, Any] = {
        "description": None,
        "tags": {},
        "properties": {},
        "isArchived": False,
        "isAnonymous": False,
    }
    extra: dict[str, dict[str, Any]] = {
        "codes": {"provisioningState": "Succeeded"},
        "data": {},
        "models": {"flavors": {}, "jobName": None, "provisioningState": "Succeeded", "stage": None},
        "environments": {"environmentType": "UserCreated", "condaFile": "", "osType": "Linux"},
    }
    made = {**base, **extra[kind], **old, **given}
    made["properties"] = {key: str(value) for key, value in (made["properties"] or {}).items()}
    return made


def delete_version(kind: str, call: Call) -> Reply:
    """DELETE of one version."""
    return Reply(200 if call.world.store.delete(_version_id(kind, call)) else 204)


def list_versions(kind: str, call: Call) -> Reply:
    """GET of the versions of a name, newest first; for codes also by hash, over all names."""
    start = f"{call.workspace_id}/{kind}"
    if kind == "codes" and (digest := call.query.get("hash")):
        every = [each for name in call.world.store.names(start) for each in _versions(call, start, name)]
        return page(
            call, [each for each in every if each["properties"]["properties"].get("hash_sha256") == digest]
        )
    found = list(reversed(_versions(call, start, call.params["name"])))
    return page(call, [each for each in found if _shown(each, call.query.get("listViewType", "ActiveOnly"))])


def _versions(call: Call, start: str, name: str) -> list[Resource]:
    return call.world.store.members(f"{start}/{name}/versions")


def _shown(each: Resource, view: str) -> bool:
    return view == "All" or bool(each["properties"].get("isArchived")) == (view == "ArchivedOnly")


def get_container(kind: str, call: Call) -> Reply:
    """GET of a name: its latest version and the next number."""
    versions = _versions(call, f"{call.workspace_id}/{kind}", call.params["name"])
    if not versions:
        raise not_found(_missing(kind, call.params["name"], ""))
    return Reply(200, _container(kind, versions))


def list_containers(kind: str, call: Call) -> Reply:
    """GET of every name."""
    start = f"{call.workspace_id}/{kind}"
    versions = [_versions(call, start, name) for name in call.world.store.names(start)]
    return page(call, [_container(kind, each) for each in versions if each])


def _container(kind: str, versions: list[Resource]) -> Resource:
    newest = versions[-1]
    path = newest["id"].rpartition("/versions/")[0]
    numbers = [int(each["name"]) for each in versions if each["name"].isdigit()]
    properties: dict[str, Any] = {
        "description": None,
        "tags": {},
        "properties": {},
        "isArchived": False,
        "latestVersion": newest["name"],
        "nextVersion": str(max(numbers, default=0) + 1),
    }
    if kind == "data":
        properties["dataType"] = newest["properties"].get("dataType")
    return resource(path, f"workspaces/{kind}", properties, newest["systemData"])


def start_pending_upload(kind: str, call: Call) -> Reply:
    """POST for a place to upload to: a new container and a signed URL for it."""
    storage = call.world.storage
    if kind == "environments":
        raise user_error("Environments take no uploads here.", "BadArgument")
    container = f"{call.params['name'][:8].lower().strip('-')}-{uuid.uuid4().hex}"
    storage.ensure_container(container)
    url = f"{storage.endpoint}/{quote(container)}"
    reference = {
        "blobUri": url,
        "storageAccountArmId": call.workspace["properties"]["storageAccount"],
        "credential": {
            "credentialType": "SAS",
            "sasUri": f"{url}?{storage.sas(container, write=True, hours=8)}",
        },
    }
    body = {"pendingUploadId": str(uuid.uuid4()), "pendingUploadType": "TemporaryBlobReference"}
    return Reply(200, {**body, "blobReferenceForConsumption": reference})


def _version_id(kind: str, call: Call) -> str:
    return f"{call.child_id(kind, call.params['name'])}/versions/{call.params['version']}"


def _missing(kind: str, name: str, version: str) -> str:
    return f"No {_WORDS[kind]} exists for name: {name}, version: {version}, label: "


def _bound(function: Callable[[str, Call], Reply], kind: str) -> Callable[[Call], Reply]:
    return partial(function, kind)


def _operations(kind: str) -> list[Operation]:
    name = f"{WORKSPACE}/{kind}/{{name}}"
    version = name + "/versions/{version}"
    return [
        Operation("GET", f"{WORKSPACE}/{kind}", _bound(list_containers, kind)),
        Operation("GET", name, _bound(get_container, kind)),
        Operation("GET", name + "/versions", _bound(list_versions, kind)),
        Operation("GET", version, _bound(get_version, kind)),
        Operation("PUT", version, _bound(put_version, kind)),
        Operation("DELETE", version, _bound(delete_version, kind)),
        Operation("POST", version + "/startPendingUpload", _bound(start_pending_upload, kind), blocking=True),
    ]


OPERATIONS = [each for kind in _IMMUTABLE for each in _operations(kind)]
