"""Deployments as Resource Manager writes them: what is asked for, what a look means, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.openai_v1.costs import DEVELOPER, DEVELOPER_HOURS
from maas_client.backends.foundry.openai_v1.offers import DEFAULT_CAPACITY, model_format, sku_of
from maas_client.backends.foundry.openai_v1.wire import TAG_RUN
from maas_client.backends.local.wire import Record
from maas_client.endpoint import Billing, EndpointState
from maas_client.transport.members import mapping_at, number_at, text_at, time_at

if TYPE_CHECKING:
    from maas_client.model import RegisteredModel
    from maas_client.spec import DeploySpec

TAG_MODEL, TAG_TTL = "maas-model", "maas-ttl"
TAG_EXPIRES_AT, TAG_EXPIRES = "maas-expires-at", "maas-expires"
_LATEST_S = 253_402_300_799  # the last second of the year 9999

STATES: Mapping[str, EndpointState] = {
    "accepted": EndpointState.STARTING,
    "creating": EndpointState.STARTING,
    "updating": EndpointState.STARTING,
    "moving": EndpointState.STARTING,
    "running": EndpointState.STARTING,
    "succeeded": EndpointState.READY,
    "failed": EndpointState.FAILED,
    "canceled": EndpointState.FAILED,
    "disabled": EndpointState.STOPPED,
    "deleting": EndpointState.STOPPED,
}
"""Every word of DeploymentProvisioningState, in lower case; READY is then asked whether it really answers."""
MESSAGES = {
    "failed": "Azure could not make it.",
    "canceled": "Its making was canceled.",
    "disabled": "Azure has disabled it: tuned models that are not asked for 15 days are.",
    "deleting": "It is being deleted.",
}


@dataclass(frozen=True)
class Lease(Record):
    """What maas wants a deployment for and until when (unix seconds): kept in tags, and in the home beside.

    `answered`: it was seen to answer. `operation` is the signed URL of its making, which nobody shows.
    """

    model: str
    ttl: str
    expires_at: float
    run: str = ""
    tuned: str = ""
    answered: bool = False
    operation: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """What is written on the deployment; no secret is in it."""
        moment = datetime.fromtimestamp(min(self.expires_at, _LATEST_S), UTC)
        return {
            TAG_MODEL: self.model,
            TAG_RUN: self.run[:256],
            TAG_TTL: self.ttl,
            TAG_EXPIRES_AT: str(int(self.expires_at)),
            TAG_EXPIRES: f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        }


@dataclass(frozen=True)
class Deployment:
    """One look at a deployment. `lease` None: nothing says that maas made it; `is_tagged`: it does itself."""

    name: str
    native: str
    tuned: str
    sku: str
    capacity: int
    created_at: float | None
    lease: Lease | None
    is_tagged: bool = False

    @property
    def state(self) -> EndpointState:
        """The state in our words, as Resource Manager sees it."""
        return STATES.get(self.native.lower(), EndpointState.UNKNOWN)

    @property
    def billing(self) -> Billing:
        """Whether it bills: certain only while it is there and was not given up."""
        known = {EndpointState.READY, EndpointState.STARTING}
        return Billing.BILLING if self.state in known else Billing.UNKNOWN

    @property
    def ends_at(self) -> float | None:
        """When its time is over: that of its lease, or Azure's own for a developer deployment."""
        ends = [self.lease.expires_at] if self.lease else []
        if self.sku.lower() == DEVELOPER and self.created_at is not None:
            ends.append(self.created_at + DEVELOPER_HOURS * 3600)
        return min(ends, default=None)

    def fits(self, wanted: Mapping[str, Any]) -> bool:
        """Whether what is there is what a body asks for."""
        return (self.tuned, self.sku.lower(), self.capacity) == (
            wanted["properties"]["model"]["name"],
            wanted["sku"]["name"].lower(),
            wanted["sku"]["capacity"],
        )


def deployment_body(model: RegisteredModel, tuned: str, spec: DeploySpec, lease: Lease) -> dict[str, Any]:
    """The body that makes a deployment."""
    return {
        "sku": {"name": sku_of(spec), "capacity": spec.capacity or DEFAULT_CAPACITY},
        "properties": {
            "model": {"format": model_format(model.lineage.base_model), "name": tuned, "version": "1"}
        },
        "tags": lease.tags,
    }


def read_deployment(body: Mapping[str, Any], kept: Lease | None) -> Deployment:
    """Read a deployment. `kept` is the lease in the home, used where the service shows no tags."""
    tuned, tags = text_at(body, "properties", "model", "name"), mapping_at(body, "tags")
    return Deployment(
        name=text_at(body, "name"),
        native=text_at(body, "properties", "provisioningState") or "Unknown",
        tuned=tuned,
        sku=text_at(body, "sku", "name"),
        capacity=int(number_at(body, "sku", "capacity") or 0),
        created_at=time_at(body, "systemData", "createdAt"),
        lease=_lease(tags, tuned, kept),
        is_tagged=bool(tags.get(TAG_MODEL)),
    )


def _lease(tags: Mapping[str, Any], tuned: str, kept: Lease | None) -> Lease | None:
    model = tags.get(TAG_MODEL)
    if not model:
        return kept if kept is not None and kept.tuned == tuned else None
    try:
        ends = float(str(tags.get(TAG_EXPIRES_AT)))
    except ValueError:
        ends = float(_LATEST_S)
    answered = kept.answered if kept is not None and kept.tuned == tuned else False
    operation = kept.operation if kept is not None and kept.tuned == tuned else ""
    return Lease(
        str(model),
        str(tags.get(TAG_TTL) or ""),
        ends,
        str(tags.get(TAG_RUN) or ""),
        tuned,
        answered,
        operation,
    )
