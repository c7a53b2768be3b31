"""An endpoint that serves a registered model: its identity, one look at it, and the way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from maas_client.errors import ConflictError


class EndpointState(StrEnum):
    """What an endpoint is doing, in the same words on every backend."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    EXPIRED = "expired"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class Billing(StrEnum):
    """Whether money is being spent. Unknown is said as unknown."""

    FREE = "free"
    BILLING = "billing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class EndpointRef:
    """Identity of an endpoint, written `backend://name`."""

    backend: str
    name: str

    def __str__(self) -> str:
        return f"{self.backend}://{self.name}"


@dataclass(frozen=True)
class EndpointStatus:
    """One look at an endpoint. Times are unix seconds; `expires_at` is None where it runs until deleted.

    `cost` is a sentence about what it costs, "" where that is nothing; `traffic` maps the deployments behind
    it to their percent of the requests, empty where there is only one.
    """

    ref: EndpointRef
    state: EndpointState
    native_state: str
    seen_at: float
    model: str
    billing: Billing
    url: str = ""
    expires_at: float | None = None
    message: str = ""
    cost: str = ""
    traffic: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; holds no key."""
        return {**asdict(self), "ref": str(self.ref)}

    def not_ready(self) -> ConflictError:
        """Why this endpoint cannot be asked anything now."""
        words = (self.message or self.native_state).rstrip(".")
        what = f"Endpoint {self.ref.name} is {self.state}: {words}."
        return ConflictError(what, operation="access", hint=f"maas endpoints show {self.ref.name}")


@dataclass(frozen=True)
class EndpointAccess:
    """The way into an endpoint. The key is kept out of every printed form of this object.

    `speaks` is how it is asked: `chat` (URL/chat/completions and URL/v1/chat/completions), `openai`
    (URL/chat/completions of Foundry's /openai/v1) or `score` (the URL itself takes a chat request).
    """

    url: str
    model: str
    key: str = field(repr=False)
    speaks: Literal["chat", "openai", "score"] = "chat"


def traffic_of_one(ref: EndpointRef, deployment: str, shares: Mapping[str, int] | None) -> Mapping[str, int]:
    """The traffic of an endpoint behind which one deployment answers everything.

    Raises ConflictError for any other share that is wanted.
    """
    only = {deployment: 100}
    if shares is not None and dict(shares) != only:
        raise ConflictError(
            f"Endpoint {ref.name} has one deployment, {deployment}, which gets every request.",
            operation="traffic",
            hint="A managed online endpoint (backend: azureml) can share its requests.",
        )
    return only
