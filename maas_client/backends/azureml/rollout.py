"""What to do next on the way from what is there to what is wanted: one step, decided without asking anybody.

endpoint -> its tags -> deployment -> (it answers) -> traffic -> older deployments away

Each step is one request to Azure and depends only on what Azure shows, so whoever comes next, in whichever
process, goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from maas_client.errors import ConflictError

if TYPE_CHECKING:
    from maas_client.backends.azureml.online import Deployment, Endpoint
    from maas_client.backends.azureml.serving import Wanted


class Act(StrEnum):
    """What a step does. WAIT does nothing now; DONE is the end."""

    MAKE_ENDPOINT = "make endpoint"
    REMOVE_ENDPOINT = "remove endpoint"
    REPAIR = "repair endpoint"
    TAG = "tag"
    MAKE = "make deployment"
    REMOVE = "remove deployment"
    SCALE = "scale"
    SHIFT = "shift traffic"
    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True)
class Step:
    """`deployment` is what REMOVE removes; `words` say what is waited for."""

    act: Act
    words: str = ""
    deployment: str = ""


@dataclass(frozen=True)
class Seen:
    """One look at an endpoint and its deployments."""

    endpoint: Endpoint
    deployments: tuple[Deployment, ...]

    def find(self, name: str) -> Deployment | None:
        """The deployment of that name."""
        return next((each for each in self.deployments if each.name == name), None)

    def share(self, deployment: Deployment | None) -> int:
        """Percent of the requests that a deployment gets."""
        return self.endpoint.traffic.get(deployment.name, 0) if deployment is not None else 0

    @property
    def shares(self) -> dict[str, int]:
        """Percent of the requests of each deployment, without those that are being deleted."""
        return {each.name: self.share(each) for each in self.deployments if not each.is_going}

    @property
    def serving(self) -> Deployment | None:
        """The deployment with most requests among those that are up; None where nobody gets any."""
        up = [each for each in self.deployments if each.is_up and self.share(each)]
        return max(up, key=self.share, default=None)


def next_step(seen: Seen | None, wanted: Wanted, now: float) -> Step:
    """The next step. Raises ConflictError where the name is taken by something else."""
    if seen is None:
        return Step(Act.MAKE_ENDPOINT)
    endpoint = seen.endpoint
    _require_ours(endpoint, wanted)
    if endpoint.is_busy:
        return Step(Act.WAIT, _doing(f"Endpoint {endpoint.name}", endpoint.native_state))
    if endpoint.has_failed and not seen.deployments:
        return Step(Act.REMOVE_ENDPOINT, "The endpoint that failed is removed first.")
    if endpoint.has_failed:
        return Step(Act.REPAIR)
    if not wanted.is_written(endpoint, now):
        return Step(Act.TAG)
    return _deployment_step(seen, wanted)


def _require_ours(endpoint: Endpoint, wanted: Wanted) -> None:
    name = endpoint.name
    if not endpoint.model:
        words = f"There is an endpoint {name} in the workspace that maas did not make."
        raise ConflictError(words, operation="deploy", hint="Take another name for the endpoint.")
    if endpoint.is_going:
        return
    if endpoint.model.rpartition(":")[0] != wanted.model.ref.name:
        words = f"Endpoint {name} serves {endpoint.model}, another model."
        hint = f"maas endpoints delete {name}, then deploy again; or choose another name."
        raise ConflictError(words, operation="deploy", hint=hint)


def _deployment_step(seen: Seen, wanted: Wanted) -> Step:
    mine, what = seen.find(wanted.deployment), f"Deployment {wanted.deployment} of {wanted.model.ref}"
    if mine is None:
        return Step(Act.MAKE)
    if mine.is_busy:
        return Step(Act.WAIT, _doing(what, mine.native_state))
    if mine.has_failed and not seen.share(mine):
        return Step(Act.REMOVE, f"{what} failed before and is removed first.", mine.name)
    if mine.has_failed:  # it gets requests, so it cannot be removed; it is made again in its place
        return Step(Act.MAKE)
    if mine.instances != wanted.spec.instances:
        return Step(Act.SCALE)
    if seen.endpoint.traffic != {mine.name: 100}:
        return Step(Act.SHIFT)
    for other in _others(seen, mine):
        if not other.is_busy:
            return Step(Act.REMOVE, f"Deployment {other.name} of {other.model} is removed.", other.name)
        if not other.is_going:
            return Step(Act.WAIT, _doing(f"Deployment {other.name} of {other.model}", other.native_state))
    return Step(Act.DONE)


def _others(seen: Seen, mine: Deployment) -> Iterator[Deployment]:
    """Older deployments that maas made; nobody else's is touched."""
    return (each for each in seen.deployments if each.model and each.name != mine.name)


def _doing(what: str, native_state: str) -> str:
    """A sentence about what Azure is doing."""
    verbs = {"creating": "is being made", "deleting": "is being deleted"}
    return f"{what} {verbs.get(native_state.lower(), 'is being changed')}."
