"""The endpoints of a project, on whatever backend they are: found by name, listed, changed and deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maas_client.errors import MaasError, NotFoundError, PlanError, QuotaError, UsageError
from maas_client.places import LOCAL, Places, at_once, split_place
from maas_client.traces import DELETE, DEPLOY, TRAFFIC, EndpointTrace, endpoint_traces

if TYPE_CHECKING:
    from maas_client.endpoint import EndpointAccess, EndpointRef, EndpointStatus
    from maas_client.ledger import Ledger
    from maas_client.model import RegisteredModel
    from maas_client.spec import DeploySpec


@dataclass(frozen=True)
class EndpointList:
    """What one backend lists. With an `error` it could not be asked: `endpoints` are those that the ledger
    knows there, each in an unknown state.
    """

    backend: str
    endpoints: tuple[EndpointStatus, ...]
    error: MaasError | None = None


class Fleet:
    """Endpoints by name or as `backend://name`. Each change is written to the ledger before and after it."""

    def __init__(self, places: Places, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._places = places
        self._ledger = ledger
        self._clock = clock
        self._listed: dict[str, tuple[float, EndpointList | None]] = {}

    def lists(self, *, max_age_s: float = 0.0) -> list[EndpointList]:
        """What each backend lists: this machine, and every service that the settings or the ledger name.

        An endpoint that was made in another target than the settings name now is listed as unknown. A
        service is not asked again within `max_age_s` seconds.
        """
        traces = endpoint_traces(self._ledger.actions())
        backends = self._places.in_use(trace.backend for trace in traces)
        due = [one for one in backends if one == LOCAL or self._age_s(one) > max_age_s]

        def ask(backend: str) -> None:
            listed = self._list(backend, [one for one in traces if one.backend == backend])
            self._listed[backend] = (time.monotonic(), listed)

        at_once(ask, due)
        found = (self._listed[backend][1] for backend in backends)
        return [one for one in found if one is not None]

    def _age_s(self, backend: str) -> float:
        """Seconds since a backend was listed last."""
        return time.monotonic() - self._listed.get(backend, (float("-inf"), None))[0]

    def _list(self, backend: str, traces: list[EndpointTrace]) -> EndpointList | None:
        """What a backend lists; None where it serves nothing, or was never used and cannot be used here."""
        try:
            if self._places.open(backend).endpoints is None:
                return None
            is_service, here = self._places.is_service(backend), self._places.targets(backend)
            elsewhere = [one for one in traces if is_service and one.target and one.target not in here]
            listed = self._places.serving(backend).list() if here or not is_service else ()
        except MaasError as error:
            if isinstance(error, PlanError) and not traces:  # its packages are not installed
                return None
            unknown = tuple(self._unknown(one, error.message) for one in traces)
            return EndpointList(backend, unknown, error)
        words = "is in {}, which the settings do not name"
        away = tuple(self._unknown(one, words.format(one.target)) for one in elsewhere)
        return EndpointList(backend, (*listed, *away))

    def _unknown(self, trace: EndpointTrace, message: str) -> EndpointStatus:
        from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus

        return EndpointStatus(
            EndpointRef(trace.backend, trace.name),
            EndpointState.UNKNOWN,
            "not asked",
            self._clock(),
            trace.model,
            Billing.UNKNOWN,
            expires_at=trace.expires_at,
            message=message,
        )

    def find(self, text: str) -> EndpointRef:
        """The endpoint with this name, or `backend://name`.

        A name that stands on several backends is a UsageError, one that stands nowhere a NotFoundError.
        """
        from maas_client.backends import KNOWN
        from maas_client.endpoint import EndpointRef

        backend, name = split_place(text, KNOWN)
        if backend is not None:
            return EndpointRef(backend, name)
        found = [one.backend for one in endpoint_traces(self._ledger.actions()) if one.name == name]
        others = [LOCAL] if found else self._places.in_use()
        found += [one for one in others if one not in found and self._is_there(EndpointRef(one, name))]
        if len(found) > 1:
            choices = " or ".join(f"{one}://{name}" for one in found)
            raise UsageError(f"Endpoint {name!r} is on {' and '.join(found)}.", hint=f"Write {choices}.")
        if not found:
            hint = "maas endpoints list shows all."
            raise NotFoundError(f"There is no endpoint {name!r}.", operation="find endpoint", hint=hint)
        return EndpointRef(found[0], name)

    def _is_there(self, ref: EndpointRef) -> bool:
        if self._places.open(ref.backend).endpoints is None:
            return False
        try:
            self._places.serving(ref.backend).status(ref)
        except (NotFoundError, PlanError):  # the latter where its packages are not installed
            return False
        return True

    def knows(self, ref: EndpointRef) -> bool:
        """Whether an endpoint was made from here and not deleted from here."""
        traces = endpoint_traces(self._ledger.actions())
        return any((one.backend, one.name) == (ref.backend, ref.name) for one in traces)

    def require(self, ref: EndpointRef) -> str:
        """The target that an endpoint is in, "" where that is not known or this machine.

        Raises TargetError where it was made in another target than the settings name.
        """
        for one in endpoint_traces(self._ledger.actions()):
            if (one.backend, one.name) == (ref.backend, ref.name) and one.target:
                self._places.require(ref.backend, one.target, f"Endpoint {ref.name}")
                return one.target
        return self._places.only_target(ref.backend)

    def status(self, text: str) -> EndpointStatus:
        """Look once. Raises NotFoundError, TargetError."""
        ref = self.find(text)
        self.require(ref)
        return self._places.serving(ref.backend).status(ref)

    def access(self, text: str) -> EndpointAccess:
        """URL and key of a ready endpoint. Raises NotFoundError, ConflictError, TargetError."""
        ref = self.find(text)
        self.require(ref)
        return self._places.serving(ref.backend).access(ref)

    def deploy(self, model: RegisteredModel, spec: DeploySpec, backend: str) -> EndpointStatus:
        """Start an endpoint, or do the next thing that it needs; returns at once."""
        target = self.target_for(model, backend)
        intent = {"backend": backend, "target": target, "model": str(model.ref), "ttl": spec.ttl}
        with self._ledger.action(DEPLOY, spec.name, run=model.lineage.run, **intent) as result:
            status = self._places.serving(backend).deploy(model.ref, spec)
            result.update(endpoint=str(status.ref), expires_at=status.expires_at)
        return status

    def target_for(self, model: RegisteredModel, backend: str) -> str:
        """The target that a model's endpoint would be in: its run's, where the settings name that."""
        made = (run.plan.get("target") for run in self._ledger.runs() if run.id == model.lineage.run)
        named = self._places.targets(backend)
        return next((one for one in made if one in named), self._places.only_target(backend))

    def traffic(self, text: str, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """Percent of the requests that each deployment behind an endpoint gets; `shares` sets it first."""
        ref = self.find(text)
        target = self.require(ref)
        serving = self._places.serving(ref.backend)
        if shares is None:
            return serving.traffic(ref)
        intent = {"backend": ref.backend, "target": target, "shares": dict(shares)}
        with self._ledger.action(TRAFFIC, ref.name, **intent) as result:
            now = serving.traffic(ref, shares)
            result["shares"] = dict(now)
        return now

    def delete(self, text: str) -> None:
        """Stop an endpoint and forget it, key included. May be repeated."""
        try:
            ref = self.find(text)
        except NotFoundError:
            if self._was_deleted(text):
                return
            raise
        self.delete_ref(ref)

    def delete_ref(self, ref: EndpointRef) -> None:
        """Delete by identity; where the ledger finds the disk full, all the same."""
        target = self.require(ref)
        serving = self._places.serving(ref.backend)
        try:
            with self._ledger.action(DELETE, ref.name, backend=ref.backend, target=target):
                serving.delete(ref)
        except QuotaError:
            serving.delete(ref)

    def _was_deleted(self, name: str) -> bool:
        return any(one.verb == DELETE and one.result is not None for one in self._ledger.actions(name))

    def is_over(self, status: EndpointStatus, now: float) -> bool:
        """Whether an endpoint's time is over, or, on this machine, its process is gone."""
        from maas_client.endpoint import EndpointState

        ended = {EndpointState.EXPIRED}
        if not self._places.is_service(status.ref.backend):
            ended |= {EndpointState.STOPPED, EndpointState.FAILED}
        return status.state in ended or (status.expires_at is not None and status.expires_at <= now)
