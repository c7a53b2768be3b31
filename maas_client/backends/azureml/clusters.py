"""Clusters: found, or made so that they scale to zero, where nothing bills but machines that run jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maas_client.backends.azureml.planning import IDLE_S
from maas_client.backends.azureml.wire import TAG_JOB
from maas_client.check import Check
from maas_client.errors import ConflictError, NotFoundError, QuotaError, ServiceError, UnavailableError
from maas_client.transport.commands import put_cluster
from maas_client.transport.members import mapping_at, member, text_at

if TYPE_CHECKING:
    from maas_client.spec import ComputeSpec, JobSpec
    from maas_client.workspace.session import Workspace

_VERSION = {"api-version": "2024-10-01-preview"}
_PATIENCE_S = 1800.0
_LOOK_S = 2.0
_CHANGING = {"creating", "updating"}
_LOW = "lowpriority"


def ensure_cluster(workspace: Workspace, spec: JobSpec) -> None:
    """See that the job's cluster is there and fits; make it where it is not, and return when it can be used.

    Does nothing for serverless compute, and asks nothing where the job file leaves the size to the cluster.
    Raises ConflictError where a cluster of that name is another one, QuotaError where there is no room.
    """
    compute = spec.compute
    if compute.name is None or compute.size is None:
        return
    body = find_cluster(workspace, compute.name)
    if body is None or _state(body) == "failed":
        size, most, is_low = compute.size, compute.instances, compute.priority == "low"
        workspace.with_client(
            f"make cluster {compute.name}",
            lambda client: put_cluster(
                client,
                str(compute.name),
                size=size,
                most=most,
                is_low_priority=is_low,
                idle_s=IDLE_S,
                tags={TAG_JOB: spec.name},
            ),
        )
        return
    _require_fit(body, compute)
    _wait_ready(workspace, compute.name, body)


def check_cluster(workspace: Workspace, compute: ComputeSpec) -> Check:
    """Whether the cluster that a job names is there, or can be made, and is the one that the job wants."""
    name = f"Cluster {compute.name}"
    body = find_cluster(workspace, str(compute.name))
    if body is None:
        if compute.size is None:
            return Check(
                name, False, "it is not there", "Name compute.size to have it made, or another cluster."
            )
        return Check(name, True, "it is not there yet, and will be made")
    try:
        _require_fit(body, compute)
    except ConflictError as error:
        return Check(name, False, error.message, error.hint)
    return Check(
        name, _state(body) not in {"failed", "deleting"}, f"it is there ({_state(body) or 'no state'})"
    )


def find_cluster(workspace: Workspace, name: str) -> Mapping[str, Any] | None:
    """The cluster as Azure shows it, None where there is none of that name."""
    try:
        return workspace.arm.get(
            workspace.path("computes", name), params=_VERSION, operation=f"get cluster {name}"
        ).mapping
    except NotFoundError:
        return None


def _state(body: Mapping[str, Any]) -> str:
    return text_at(body, "properties", "provisioningState").lower()


def _require_fit(body: Mapping[str, Any], compute: ComputeSpec) -> None:
    """Raises ConflictError that names the first thing that differs."""
    inner = mapping_at(body, "properties", "properties")
    size, is_low = text_at(inner, "vmSize"), text_at(inner, "vmPriority").lower() == _LOW
    most = member(inner, "scaleSettings", "maxNodeCount")
    if compute.size is None:
        return
    if size.lower() != compute.size.lower():
        found, wanted = f"has machines of size {size or 'unknown'}", compute.size
    elif is_low != (compute.priority == "low"):
        found, wanted = f"is {'low priority' if is_low else 'dedicated'}", f"priority {compute.priority}"
    elif isinstance(most, int) and most < compute.instances:
        found, wanted = f"has at most {most} machines", f"{compute.instances}"
    else:
        return
    raise ConflictError(
        f"Cluster {compute.name} {found}, but the job file wants {wanted}.",
        hint="Take another compute.name, or leave out compute.size to use the cluster as it is.",
        operation="start job",
    )


def _wait_ready(workspace: Workspace, name: str, body: Mapping[str, Any] | None) -> None:
    """Wait while somebody else makes the cluster. Raises QuotaError, ServiceError where that fails."""
    began = workspace.clock()
    while body is not None and _state(body) in _CHANGING:
        if workspace.clock() - began > _PATIENCE_S:
            hint = "It goes on by itself: submit the job again later."
            raise UnavailableError(f"Cluster {name} is still being made.", operation="start job", hint=hint)
        workspace.sleep(_LOOK_S)
        body = find_cluster(workspace, name)
    if body is None or _state(body) == "failed":
        errors = member(body, "properties", "provisioningErrors")
        first = errors[0] if isinstance(errors, list) and errors else {}
        said = text_at(first, "error", "message") or "it failed without a word"
        kind = QuotaError if "quota" in said.lower() else ServiceError
        hint = "Submit the job again to try once more, or take another size."
        raise kind(f"Cluster {name} was not made: {said}", operation="make cluster", hint=hint)
