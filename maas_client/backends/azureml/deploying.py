"""Going from what is there to what is wanted, a step a call: each step is looked up, done once, looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from maas_client.backends.azureml.lease import TAG_DEPLOYMENT, TAG_MODEL, TAG_TTL
from maas_client.backends.azureml.rollout import Act, Seen, Step, next_step
from maas_client.backends.azureml.serving import Assets, Wanted, deployment_body, endpoint_body
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError, RejectedError, ServiceError

if TYPE_CHECKING:
    from maas_client.backends.azureml.looks import Looks
    from maas_client.backends.azureml.online import Online
    from maas_client.workspace.models import WorkspaceModels
    from maas_client.workspace.session import Workspace

_MOST_STEPS = 40
_PATIENCE = 3
_NAP_S = 1.0
_AT_ONCE = {Act.TAG, Act.REMOVE}
"""Steps after which the next one can be done at once; Azure works on the others for a while."""


class Deploying:
    """Brings endpoints of a workspace to what is wanted.

    `assets` are opened when the first deployment is made. What is remembered is only what this object began
    itself: a failure of that is told before it is tried again, and a change by others is not undone.
    """

    def __init__(
        self,
        workspace: Workspace,
        online: Online,
        looks: Looks,
        *,
        models: WorkspaceModels,
        assets: Callable[[], Assets],
        clock: Callable[[], float],
    ) -> None:
        self._workspace = workspace
        self._online = online
        self._looks = looks
        self._models = models
        self._assets = assets
        self._clock = clock
        self._begun: dict[str, tuple[str, str]] = {}

    def forget(self, name: str) -> None:
        """Somebody decided otherwise about an endpoint: what was begun is no longer wanted."""
        self._begun.pop(name, None)

    def go_on(self, wanted: Wanted) -> EndpointStatus:
        """Do what can be done now and return the status. See AzuremlEndpoints.deploy."""
        name, refusals = wanted.spec.name, _Refusals()
        for _ in range(_MOST_STEPS):
            seen = self._looks.see(name)
            if seen is not None and self._has_failed(seen, wanted):
                return self._told(seen, wanted)
            step = next_step(seen, wanted, self._clock())
            self._require_no_rival(seen, wanted, step)
            if step.act in {Act.WAIT, Act.DONE}:
                return self._status(seen, wanted, step)
            refusals.require_another(step)
            if step.act is Act.SHIFT and seen is not None:
                health = self._looks.health(seen)
                if health is None or not health.answers:
                    return self._looks.status(seen, health)
            try:
                self._do(step, wanted, seen)
            except (ConflictError, RejectedError) as error:
                refusals.note(step, error)
                self._workspace.sleep(_NAP_S)
                continue
            if step.act not in _AT_ONCE:
                return self._status(self._looks.see(name), wanted, step)
        words = f"Endpoint {name} is changed by others all the time."
        raise ConflictError(words, operation="deploy", hint="Find out who, then deploy again.")

    def _has_failed(self, seen: Seen, wanted: Wanted) -> bool:
        """Whether what this object began has failed; then it is no longer begun."""
        name, mine = wanted.spec.name, seen.find(wanted.deployment)
        if name not in self._begun:
            return False
        failed = seen.endpoint.has_failed or (mine is not None and mine.has_failed)
        if failed:
            self.forget(name)
        return failed

    def _told(self, seen: Seen, wanted: Wanted) -> EndpointStatus:
        """The status of what failed. Raises ServiceError where that leaves the same model answering."""
        status = self._looks.status(seen, self._looks.health(seen))
        if status.state is EndpointState.READY and status.model == str(wanted.model.ref):
            hint = "Deploy again when the reason is gone, or as it was before."
            raise ServiceError(status.message, operation="deploy", hint=hint)
        return status

    def _require_no_rival(self, seen: Seen | None, wanted: Wanted, step: Step) -> None:
        """Raise ConflictError where others now want something else here than this object wrote."""
        name = wanted.spec.name
        if seen is None or step.act is not Act.TAG or self._begun.get(name) != _key(wanted):
            return
        tags = seen.endpoint.tags
        if all(tags.get(tag) == wanted.tags[tag] for tag in (TAG_MODEL, TAG_DEPLOYMENT, TAG_TTL)):
            return
        self.forget(name)
        words = f"Endpoint {name} is wanted for {seen.endpoint.model} by somebody else now."
        hint = f"Look at it (maas endpoints show {name}); deploy again if you still want to."
        raise ConflictError(words, operation="deploy", hint=hint)

    def _do(self, step: Step, wanted: Wanted, seen: Seen | None) -> None:
        """One change at Azure; before a deployment, what it is made of."""
        name, online = wanted.spec.name, self._online
        if step.act is Act.REMOVE:
            online.delete_deployment(name, step.deployment)
        elif step.act is Act.REMOVE_ENDPOINT:
            online.delete_endpoint(name)
        elif step.act is Act.TAG:
            online.tag_endpoint(name, wanted.tags)
            self._begun[name] = _key(wanted)  # not before: other tags than ours would be a rival's
        else:
            self._begun[name] = _key(wanted)
            self._build(step, wanted, seen)

    def _build(self, step: Step, wanted: Wanted, seen: Seen | None) -> None:
        name, online = wanted.spec.name, self._online
        if seen is None:
            body = endpoint_body(self._workspace.facts.location, wanted)
            online.put_endpoint(name, body, operation=f"make endpoint {name}")
        elif step.act is Act.MAKE:
            self._make(wanted)
        elif step.act is Act.SCALE:
            online.scale(name, wanted.deployment, wanted.spec.instances)
        elif step.act is Act.SHIFT:
            body = seen.endpoint.again(traffic={wanted.deployment: 100}, tags={})
            online.put_endpoint(name, body, operation=f"send requests to {name}/{wanted.deployment}")
        else:
            body = seen.endpoint.again(traffic=seen.endpoint.traffic, tags=wanted.tags)
            online.put_endpoint(name, body, operation=f"repair endpoint {name}")

    def _make(self, wanted: Wanted) -> None:
        """Put the deployment, unless another terminal did while its parts were sent (that takes a while)."""
        name = wanted.spec.name
        code_id, environment_id = self._assets().ensure(wanted.base)
        seen = self._looks.see(name)
        there = seen.find(wanted.deployment) if seen is not None else None
        if there is not None and not there.has_failed:
            return
        body = deployment_body(
            self._workspace.facts.location,
            wanted,
            model_id=self._models.arm_id(wanted.model.ref),
            code_id=code_id,
            environment_id=environment_id,
        )
        self._online.put_deployment(name, wanted.deployment, body)

    def _status(self, seen: Seen | None, wanted: Wanted, step: Step) -> EndpointStatus:
        """The status after a step: STARTING until the last one is done."""
        now = self._clock()
        if seen is None or seen.endpoint.is_going:
            return EndpointStatus(
                ref=EndpointRef("azureml", wanted.spec.name),
                state=EndpointState.STARTING,
                native_state=f"endpoint {seen.endpoint.native_state}" if seen else "",
                seen_at=now,
                model=str(wanted.model.ref),
                billing=Billing.UNKNOWN if seen and seen.deployments else Billing.FREE,
                expires_at=wanted.expires_at,
                message=f"{step.words or 'Azure does not show the endpoint yet.'} Then deploy again.",
            )
        status = self._looks.status(seen, self._looks.health(seen))
        if step.act is Act.DONE:
            self.forget(wanted.spec.name)
        elif status.state is EndpointState.READY:  # an older deployment is not gone yet
            return replace(status, state=EndpointState.STARTING, message=step.words or status.message)
        return status


def _key(wanted: Wanted) -> tuple[str, str]:
    return wanted.deployment, wanted.spec.ttl


class _Refusals:
    """Steps that Azure refused. Others may have been faster, so each refusal is followed by a look; what is
    still to be done then was refused for another reason.
    """

    def __init__(self) -> None:
        self._errors: list[tuple[Step, ServiceError]] = []

    def note(self, step: Step, error: ServiceError) -> None:
        """A step was refused."""
        self._errors.append((step, error))

    def require_another(self, step: Step) -> None:
        """Raise what Azure said where the same step is tried again in vain."""
        same = [error for refused, error in self._errors if refused == step]
        if same and (len(same) >= _PATIENCE or not _may_pass(same[-1])):
            raise same[-1]


def _may_pass(error: ServiceError) -> bool:
    """Whether Azure refused because it works on another change, which it may not show yet."""
    return isinstance(error, ConflictError) or "provisioning state" in error.message.lower()
