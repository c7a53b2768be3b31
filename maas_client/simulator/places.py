"""Where an Azure ML URI leads: into a container of the storage account, or to a model on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from maas_client.bundled import model_folder
from maas_client.simulator.datastores import container_of
from maas_client.simulator.replies import user_error
from maas_client.simulator.routing import all_workspaces
from maas_client.simulator.world import World

STAND_IN = "tiny-phi3"
"""The bundled model that stands for every model of a registry."""
_DATASTORE = re.compile(r"azureml://(?:.+/)?datastores/([^/]+)/(?:paths/)?(.*)", re.IGNORECASE)
_JOB_OUTPUT = re.compile(r"azureml://jobs/([^/]+)/outputs/([^/]+)(?:/paths/(.*))?", re.IGNORECASE)
_LOCATION = re.compile(
    r"azureml://locations/[^/]+/workspaces/([^/]+)/(models|data)/([^/]+)/versions/([^/]+)", re.IGNORECASE
)
_ASSET = re.compile(
    r"(/subscriptions/.+/workspaces/[^/]+)/(models|data|codes)/([^/]+)/versions/([^/]+)", re.IGNORECASE
)
_REGISTRY_MODEL = re.compile(
    r"azureml://registries/[^/]+/models/([^/]+)(?:/(?:versions|labels)/([^/]+))?", re.IGNORECASE
)
_FOUNDRY = re.compile(r"foundry://jobs/(ftjob-[0-9a-f]+)")
"""What a fine-tuning job of the Foundry resource made; only the simulator writes it so."""
_PROPERTIES = {"models": "modelUri", "data": "dataUri", "codes": "codeUri"}


@dataclass(frozen=True)
class Place:
    """A blob, or all blobs under a folder: container and path."""

    container: str
    path: str


def locate(world: World, workspace_id: str, uri: str) -> Place | Path:
    """Follow a URI to blobs, or to the folder of the stand-in model. Raises Refusal for a dead end."""
    if match := _DATASTORE.fullmatch(uri):
        return Place(container_of(world, workspace_id, match[1]), unquote(match[2]))
    if match := _JOB_OUTPUT.fullmatch(uri):
        return _job_output(world, workspace_id, match[1], match[2], match[3] or "")
    if match := _LOCATION.fullmatch(uri):
        home = next(
            (each["id"] for each in all_workspaces(world) if world.workspace_guid(each["id"]) == match[1]), ""
        )
        return _asset(world, home, match[2], match[3], match[4])
    if match := _ASSET.fullmatch(uri):
        return _asset(world, match[1], match[2], match[3], match[4])
    if _REGISTRY_MODEL.fullmatch(uri):
        folder = model_folder(STAND_IN)
        if folder is None:
            raise user_error(f"The bundled model {STAND_IN} is missing from this installation.")
        return folder
    if match := _FOUNDRY.fullmatch(uri):
        return world.folder / "foundry" / "jobs" / match[1] / "run" / "model"
    start = f"{world.storage.endpoint}/"
    if uri.startswith(start):
        container, _, path = uri.partition("?")[0].removeprefix(start).partition("/")
        return Place(container, unquote(path))
    raise user_error(f"The URI {uri} leads nowhere in this simulator.", "NotFoundError")


def _asset(world: World, workspace_id: str, kind: str, name: str, version: str) -> Place | Path:
    found = world.store.get(f"{workspace_id}/{kind}/{name}/versions/{version}")
    if found is None:
        raise user_error(f"There is no {kind} {name}:{version}.", "NotFoundError", status=404)
    return locate(world, workspace_id, found["properties"][_PROPERTIES[kind.lower()]])


def _job_output(world: World, workspace_id: str, job: str, output: str, path: str) -> Place | Path:
    found = world.store.get(f"{workspace_id}/jobs/{job}")
    outputs = found["properties"]["outputs"] if found else {}
    key = "default" if output == "artifacts" else output
    if key not in outputs or not outputs[key].get("uri"):
        raise user_error(f"There is no output {output} of job {job}.", "NotFoundError", status=404)
    place = locate(world, workspace_id, outputs[key]["uri"])
    if isinstance(place, Path):
        return place
    return Place(place.container, "/".join(part for part in (place.path.strip("/"), path) if part))
