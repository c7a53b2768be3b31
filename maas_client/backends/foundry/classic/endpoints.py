"""Serverless endpoints of a workspace: made by one request, told by their tags when to end, deleted for good.

A deployment of Azure takes minutes. `deploy` does the next thing that can be done and returns; the same call
again goes on, whatever was cut off before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.classic.costs import hosting_cost, serving_cost
from maas_client.backends.foundry.classic.marketplace import (
    API_VERSION,
    ensure_subscription,
    needs_subscription,
)
from maas_client.backends.foundry.classic.wire import (
    DELETING,
    TAG_MODEL,
    TAG_TTL,
    billing_of,
    endpoint_body,
    endpoint_state,
    expires_at,
)
from maas_client.catalog import lookup, region_name
from maas_client.endpoint import (
    Billing,
    EndpointAccess,
    EndpointRef,
    EndpointState,
    EndpointStatus,
    traffic_of_one,
)
from maas_client.errors import ConflictError, NotFoundError, ServiceError
from maas_client.transport.credential import KeyCredential
from maas_client.transport.errorwords import ErrorWords, error_words
from maas_client.transport.members import mapping_at, text_at
from maas_client.transport.operations import Operation, OperationState
from maas_client.transport.rest import Rest
from maas_client.transport.retrying import RetryPolicy

if TYPE_CHECKING:
    from maas_client.backend import Registry
    from maas_client.model import ModelRef, RegisteredModel
    from maas_client.spec import DeploySpec
    from maas_client.workspace.session import Workspace

_VERSION = {"api-version": API_VERSION}
_GOES_ON = "The same deploy again goes on."
_NOT_READY_CODE = "DeploymentNotReady"
_DELETE_S = 1800.0


class ClassicEndpoints:
    """The Serving of the classic route. `models` are those of the same workspace."""

    def __init__(
        self, workspace: Callable[[], Workspace], models: Registry, *, location: str | None = None
    ) -> None:
        self._open = workspace
        self._models = models
        self._location = location
        self._making: dict[str, Operation] = {}

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:  # noqa: ARG002
        """Hosting by the hour until it is deleted, and tokens."""
        return serving_cost(spec)

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Do the next thing towards an endpoint for a model, and return at once; see the module.

        Another version, place or one whose creation failed is deleted first; a failure of the last deploy is
        told once before that. Raises NotFoundError for an unknown model, ConflictError where the name serves
        another model or something that maas did not make.
        """
        registered = self._models.get(model.name, model.version)
        there = self._get(spec.name)
        if there is None:
            return self._create(registered, spec)
        self._require_same_model(there, model)
        state, word = endpoint_state(there)
        if word.lower() == DELETING:
            return self._waiting(spec, model, word, "What had this name before is being deleted.")
        status = self._status(there)
        if state is EndpointState.FAILED and spec.name in self._making:
            return self._told(status)
        if state is EndpointState.FAILED or not self._is_same_place(there, model, spec):
            self._workspace.arm.begin(
                "DELETE", self._path(spec.name), params=_VERSION, operation=f"delete endpoint {spec.name}"
            )
            return self._waiting(spec, model, "Deleting", f"{status.model} makes room.")
        if status.state is EndpointState.EXPIRED or text_at(there, "tags", TAG_TTL) != spec.ttl:
            return self._put(registered, spec)
        return self._seen(status)

    def status(self, ref: EndpointRef) -> EndpointStatus:
        """Look at the endpoint and, where Azure says that it is online, whether it answers."""
        return self._seen(self._told(self._status(self._require(ref))))

    def list(self) -> tuple[EndpointStatus, ...]:
        """Every endpoint of the workspace that maas made, by name, as Azure says; none is asked itself."""
        rows = self._workspace.arm.paging(
            self._workspace.path("serverlessEndpoints"),
            params=_VERSION,
            operation="list serverless endpoints",
        )
        ours = [row for row in rows if isinstance(row, Mapping) and _is_ours(row)]
        return tuple(sorted((self._status(row) for row in ours), key=lambda status: status.ref.name))

    def access(self, ref: EndpointRef) -> EndpointAccess:
        """URL and key. Raises ConflictError while the endpoint is not ready."""
        status = self.status(ref)
        if status.state is not EndpointState.READY:
            raise status.not_ready()
        return EndpointAccess(status.url, status.model.rpartition(":")[0], self._key(ref.name), "chat")

    def traffic(self, ref: EndpointRef, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """One deployment answers everything. Raises ConflictError for any other share."""
        return traffic_of_one(ref, self._status(self._require(ref)).model, shares)

    def delete(self, ref: EndpointRef) -> None:
        """Delete the endpoint and wait until it is gone, so that it bills no more. Raises NotFoundError."""
        self._require(ref)
        self._workspace.arm.long_running(
            "DELETE",
            self._path(ref.name),
            params=_VERSION,
            operation=f"delete endpoint {ref.name}",
            timeout_s=_DELETE_S,
        )

    # -- requests

    @property
    def _workspace(self) -> Workspace:
        return self._open()

    def _path(self, *parts: str) -> str:
        return self._workspace.path("serverlessEndpoints", *parts)

    def _get(self, name: str) -> Mapping[str, Any] | None:
        try:
            return self._workspace.arm.get(
                self._path(name), params=_VERSION, operation=f"get endpoint {name}"
            ).mapping
        except NotFoundError:
            return None

    def _require(self, ref: EndpointRef) -> Mapping[str, Any]:
        there = self._get(ref.name)
        if there is None or not _is_ours(there):
            why = "" if there is None else " that maas made"
            raise NotFoundError(
                f"There is no serverless endpoint {ref.name}{why} in {self._workspace.target}.",
                operation="look",
                hint="maas endpoints list shows those that are.",
            )
        return there

    def _create(self, registered: RegisteredModel, spec: DeploySpec) -> EndpointStatus:
        base = lookup(registered.lineage.base_model)
        registry_id = base.azure_registry_id.value if base and needs_subscription(base) else None
        if registry_id and not ensure_subscription(self._workspace, registry_id):
            message = f"Waits for the marketplace subscription to {registered.lineage.base_model}."
            return self._waiting(spec, registered.ref, "Subscribing", message)
        return self._put(registered, spec)

    def _put(self, registered: RegisteredModel, spec: DeploySpec) -> EndpointStatus:
        """Make the endpoint, or give it another end. Of two at once, one makes it and both find it."""
        body = endpoint_body(
            str(registered.place),
            region_name(spec.location or self._location or self._workspace.facts.location),
            model=str(registered.ref),
            ttl=spec.ttl,
            expires_at=self._workspace.clock() + spec.ttl_s,
            run=registered.lineage.run,
        )
        try:
            making = self._workspace.arm.begin(
                "PUT", self._path(spec.name), body, params=_VERSION, operation=f"deploy {registered.ref}"
            )
            self._making[spec.name] = making
            return self._status(making.answer.mapping)
        except ConflictError:
            there = self._get(spec.name)
            if there is None or text_at(there, "tags", TAG_MODEL) != str(registered.ref):
                raise
            return self._status(there)

    def _told(self, status: EndpointStatus) -> EndpointStatus:
        """The same, with the reason of a failure that came since the last deploy."""
        if status.state is not EndpointState.FAILED or status.ref.name not in self._making:
            return status
        return replace(status, message=self._why(self._making.pop(status.ref.name)) or status.message)

    def _why(self, making: Operation) -> str:
        """Why Azure could not make it, as far as the operation still tells; "" where it does not."""
        with suppress(ServiceError):
            body = self._workspace.arm.look(replace(making, state=OperationState.RUNNING)).answer.body
            words = error_words(body) if mapping_at(body, "error") else ErrorWords()
            said = ": ".join(part for part in (words.code, words.message.rstrip(". ")) if part)
            return f"Azure could not make it: {said}." if said else ""
        return ""

    def _key(self, name: str) -> str:
        keys = self._workspace.arm.post(
            self._path(name, "listKeys"), params=_VERSION, operation=f"get the key of {name}", idempotent=True
        ).mapping
        return text_at(keys, "primaryKey") or text_at(keys, "secondaryKey")

    # -- what is seen

    def _status(self, body: Mapping[str, Any]) -> EndpointStatus:
        """An endpoint as its resource describes it. One past its time is EXPIRED, and bills all the same."""
        state, word = endpoint_state(body)
        tags, now = mapping_at(body, "tags"), self._workspace.clock()
        ends = expires_at(tags)
        message = _MESSAGES.get(word.lower(), "")
        if state is EndpointState.READY and ends is not None and ends <= now:
            state, message = (
                EndpointState.EXPIRED,
                "Its time is over; maas reap deletes it, and it bills until then.",
            )
        return EndpointStatus(
            ref=EndpointRef("foundry", text_at(body, "name")),
            state=state,
            native_state=word,
            seen_at=now,
            model=text_at(tags, TAG_MODEL),
            billing=billing_of(word),
            url=text_at(body, "properties", "inferenceEndpoint", "uri").rstrip("/"),
            expires_at=ends,
            message=message,
            cost=hosting_cost(),
        )

    def _seen(self, status: EndpointStatus) -> EndpointStatus:
        """The same, READY only if the endpoint itself answers: Azure says Online minutes before that."""
        if status.state is not EndpointState.READY:
            return status
        from maas_client.transport.exchange import Timeouts

        policy, timeouts = RetryPolicy(attempts=1), Timeouts(connect_s=5, read_s=10, whole_s=15)
        credential = KeyCredential(self._key(status.ref.name), "Authorization", "Bearer ")
        try:
            with Rest(status.url, credential, policy=policy, timeouts=timeouts) as rest:
                rest.get("/info", operation=f"ask endpoint {status.ref.name}")
        except ServiceError as error:
            if error.code == _NOT_READY_CODE or error.status is None or error.status >= 500:
                what = f"Online, but it does not answer yet: {error.message}"
                return replace(status, state=EndpointState.STARTING, message=what)
        return status

    def _waiting(self, spec: DeploySpec, model: ModelRef, word: str, message: str) -> EndpointStatus:
        """An endpoint that cannot be made yet."""
        return EndpointStatus(
            EndpointRef("foundry", spec.name),
            EndpointState.STARTING,
            word,
            self._workspace.clock(),
            str(model),
            Billing.UNKNOWN,
            message=f"{message} {_GOES_ON}",
            cost=hosting_cost(),
        )

    def _require_same_model(self, there: Mapping[str, Any], model: ModelRef) -> None:
        served = text_at(there, "tags", TAG_MODEL)
        if served.rpartition(":")[0] == model.name:
            return
        name = text_at(there, "name")
        what = f"serves {served}, another model" if served else "is there, and maas did not make it"
        hint = f"maas endpoints delete {name}, then deploy again; or choose another name."
        raise ConflictError(
            f"Endpoint {name} {what}.",
            operation="deploy",
            hint=hint if served else "Choose another name.",
        )

    def _is_same_place(self, there: Mapping[str, Any], model: ModelRef, spec: DeploySpec) -> bool:
        """Whether what is there serves this version where it is wanted."""
        if text_at(there, "tags", TAG_MODEL) != str(model):
            return False
        return not spec.location or region_name(spec.location) == region_name(text_at(there, "location"))


_MESSAGES = {
    "creationfailed": "Azure could not make it.",
    "suspended": "Azure suspended it: see the subscription's billing.",
    "deletionfailed": "Azure could not delete it; delete it again.",
}


def _is_ours(body: Mapping[str, Any]) -> bool:
    return bool(text_at(body, "tags", TAG_MODEL))
