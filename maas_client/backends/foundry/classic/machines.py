"""Whose machines a FineTuning job runs on: the service's own, or some of the subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maas_client.spec import ComputeSpec, JobSpec


def is_managed(spec: JobSpec) -> bool:
    """Whether the job runs on machines of the subscription."""
    return bool(spec.compute.name or spec.compute.size)


def machines(compute: ComputeSpec, workspace_path: str) -> dict[str, Any]:
    """Whose machines train: nothing for the service's own, else a cluster (by its whole ARM id, which
    azure-ai-ml shortens to a bare name) or sizes to choose from.
    """
    body: dict[str, Any] = {}
    if compute.name:
        body["computeId"] = f"{workspace_path}/computes/{compute.name}"
    elif compute.size:
        body["resources"] = {"instanceTypes": [compute.size]}
        if compute.priority == "low":
            body["queueSettings"] = {"jobTier": "Spot"}
    return body
