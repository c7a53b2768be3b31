"""Deployments of a Foundry resource: made by one request under their name, told by their tags when to end.

Azure takes minutes for one, and says Succeeded before it answers. `deploy` sends what is missing and returns;
the same call again goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.backends.foundry.openai_v1.costs import hosting_cost, serving_cost
from maas_client.backends.foundry.openai_v1.deployments import MESSAGES, Deployment, Lease, deployment_body
from maas_client.backends.foundry.openai_v1.hosted import Leases, key_of, why_failed, why_silent
from maas_client.backends.foundry.openai_v1.offers import sku_of
from maas_client.backends.foundry.openai_v1.results import tuned_name
from maas_client.backends.local.folders import lock, told
from maas_client.endpoint import (
    Billing,
    EndpointAccess,
    EndpointRef,
    EndpointState,
    EndpointStatus,
    traffic_of_one,
)
from maas_client.errors import ConflictError, NotFoundError, PlanError

if TYPE_CHECKING:
    from maas_client.backend import Registry
    from maas_client.backends.foundry.openai_v1.account import Account
    from maas_client.model import ModelRef, RegisteredModel
    from maas_client.spec import DeploySpec

NAME = "foundry"
_DELETE_S = 900.0
_OVER = "Its time is over; maas reap deletes it, and it bills until then."
_GOES_ON = "The same deploy again goes on."
_ONLY_HERE = "Azure shows no tags on it: when it ends is only written in this project."


class OpenAIEndpoints:
    """The Serving of the openai route. `models` are those of the same route, `folder` its own."""

    def __init__(
        self,
        account: Callable[[], Account],
        models: Registry,
        folder: Path,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._open = account
        self._models = models
        self._folder = folder / "endpoints"
        self._leases = Leases(self._folder)
        self._clock = clock
        self._making: set[str] = set()

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:  # noqa: ARG002
        """Hosting by the hour, or the developer tier's day, and tokens."""
        return serving_cost(spec, sku_of(spec))

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Have a deployment of a model under the name, and return at once; the name is the key.

        Another version of the model, another offer or a new end change the one there is. Raises NotFoundError
        for an unknown model, ConflictError where the name serves another model or one that maas did not make.
        """
        registered = self._models.get(model.name, model.version)
        resource, tuned = tuned_name(registered.place)
        if resource != self._account.resource.name:
            what = f"{model} is in Foundry resource {resource}, not in {self._account.resource}."
            raise PlanError(what, hint="Set AZURE_OPENAI_ENDPOINT to that resource.")
        with told("deploy", self._folder), lock(self._folder / f".{spec.name}.lock"):
            there = self._find(spec.name)
            if there is not None:
                self._require_same_model(there, model)
                if there.native.lower() == "deleting":
                    return self._waiting(spec, model, "What had this name before is being deleted.")
                if there.state is EndpointState.FAILED and spec.name in self._making:
                    return self._seen(there)  # told once; the same deploy again makes it anew
                if self._is_wanted(there, registered, tuned, spec):
                    return self._seen(there)
            return self._put(registered, tuned, spec)

    def status(self, ref: EndpointRef) -> EndpointStatus:
        """Look at the deployment and, where Azure says that it is there, whether it answers."""
        return self._seen(self._require(ref))

    def list(self) -> tuple[EndpointStatus, ...]:
        """Every deployment of the resource that maas made, by name, as Azure says; none is asked itself.

        Without a subscription in the settings nothing can have been deployed from here.
        """
        if not self._account.subscription:
            return ()
        rows = self._account.arm.paging(
            self._account.path("deployments"), params=self._account.params, operation="list deployments"
        )
        read = (self._leases.read(row) for row in rows if isinstance(row, Mapping))
        ours = (self._status(each) for each in read if each.lease is not None)
        return tuple(sorted(ours, key=lambda status: status.ref.name))

    def access(self, ref: EndpointRef) -> EndpointAccess:
        """Address and key; without a key, whoever asks signs in. Raises ConflictError until it is ready."""
        status = self.status(ref)
        if status.state is not EndpointState.READY:
            raise status.not_ready()
        return EndpointAccess(status.url, ref.name, key_of(self._account), "openai")

    def traffic(self, ref: EndpointRef, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """One model answers everything. Raises ConflictError for any other share."""
        return traffic_of_one(ref, self._status(self._require(ref)).model, shares)

    def delete(self, ref: EndpointRef) -> None:
        """Delete the deployment and wait until it is gone, so that it bills no more; the model stays.

        Raises NotFoundError for one that is not there, or that maas did not make.
        """
        self._require(ref)
        self._account.arm.long_running(
            "DELETE",
            self._account.path("deployments", ref.name),
            params=self._account.params,
            operation=f"delete deployment {ref.name}",
            timeout_s=_DELETE_S,
        )
        with told("delete", self._folder):
            self._leases.drop(ref.name)

    # -- requests

    @property
    def _account(self) -> Account:
        return self._open()

    def _find(self, name: str) -> Deployment | None:
        place = self._account.path("deployments", name)
        try:
            answer = self._account.arm.get(
                place, params=self._account.params, operation=f"get deployment {name}"
            )
        except NotFoundError:
            return None
        return self._leases.read(answer.mapping)

    def _require(self, ref: EndpointRef) -> Deployment:
        there = self._find(ref.name)
        if there is None or there.lease is None:
            why = "" if there is None else " that maas made"
            raise NotFoundError(
                f"There is no deployment {ref.name}{why} in {self._account.resource}.",
                operation="look",
                hint="maas endpoints list shows those that are.",
            )
        return there

    def _put(self, registered: RegisteredModel, tuned: str, spec: DeploySpec) -> EndpointStatus:
        """Make the deployment or change it; of two at once both name the same one."""
        lease = Lease(
            str(registered.ref), spec.ttl, self._clock() + spec.ttl_s, registered.lineage.run, tuned
        )
        self._leases.keep(spec.name, lease)
        operation = self._account.arm.begin(
            "PUT",
            self._account.path("deployments", spec.name),
            deployment_body(registered, tuned, spec, lease),
            params=self._account.params,
            operation=f"deploy {registered.ref} as {spec.name}",
        )
        self._making.add(spec.name)
        self._leases.keep(spec.name, replace(lease, operation=operation.look_url))
        return self._seen(self._leases.read(operation.answer.mapping))

    # -- what is seen

    def _is_wanted(
        self, there: Deployment, registered: RegisteredModel, tuned: str, spec: DeploySpec
    ) -> bool:
        """Whether what is there is what is asked for, and its time is not over."""
        assert there.lease is not None  # noqa: S101  asked before
        same = there.lease.model == str(registered.ref) and there.lease.ttl == spec.ttl
        over = there.lease.expires_at <= self._clock() or there.state is EndpointState.FAILED
        return same and not over and there.fits(deployment_body(registered, tuned, spec, there.lease))

    def _require_same_model(self, there: Deployment, model: ModelRef) -> None:
        served = there.lease.model if there.lease else ""
        if served.rpartition(":")[0] == model.name:
            return
        what = f"serves {served}, another model" if served else "is there, and maas did not make it"
        hint = f"maas endpoints delete {there.name}, then deploy again; or choose another name."
        raise ConflictError(
            f"Endpoint {there.name} {what}.",
            operation="deploy",
            hint=hint if served else "Choose another name.",
        )

    def _status(self, there: Deployment) -> EndpointStatus:
        """A deployment as Azure describes it. One past its time is EXPIRED, and bills all the same."""
        now, state = self._clock(), there.state
        message = MESSAGES.get(there.native.lower(), "" if there.is_tagged else _ONLY_HERE)
        if state is EndpointState.FAILED:
            message = why_failed(self._account, there) or message
        if state is EndpointState.READY and there.ends_at is not None and there.ends_at <= now:
            state, message = EndpointState.EXPIRED, _OVER
        return EndpointStatus(
            ref=EndpointRef(NAME, there.name),
            state=state,
            native_state=there.native,
            seen_at=now,
            model=there.lease.model if there.lease else "",
            billing=there.billing,
            url=f"{self._account.resource.endpoint}/openai/v1",
            expires_at=there.ends_at,
            message=message,
            cost=hosting_cost(there.sku),
        )

    def _seen(self, there: Deployment) -> EndpointStatus:
        """The same, READY only if the deployment answers: Azure says Succeeded before that."""
        status = self._status(there)
        if status.state is EndpointState.FAILED:
            self._making.discard(there.name)
        if status.state is not EndpointState.READY or there.lease is None or there.lease.answered:
            return status
        if silence := why_silent(self._account, there.name):
            what = f"Azure says {there.native}, but it does not answer yet: {silence} {_GOES_ON}"
            return replace(status, state=EndpointState.STARTING, message=what)
        with told("look", self._folder):
            self._leases.keep(there.name, replace(there.lease, answered=True))
        return status

    def _waiting(self, spec: DeploySpec, model: ModelRef, message: str) -> EndpointStatus:
        """A deployment that cannot be made yet."""
        return EndpointStatus(
            EndpointRef(NAME, spec.name),
            EndpointState.STARTING,
            "Deleting",
            self._clock(),
            str(model),
            Billing.UNKNOWN,
            message=f"{message} {_GOES_ON}",
            cost=hosting_cost(sku_of(spec)),
        )
