"""Looking at an endpoint: what Azure shows, whether the deployment answers, and why where it does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from maas_client.backends.azureml.health import Ask, Health
from maas_client.backends.azureml.rollout import Seen
from maas_client.backends.azureml.sight import asked_of, is_stuck, to_status, wanted_of
from maas_client.endpoint import EndpointRef, EndpointStatus
from maas_client.errors import AccessDeniedError, ServiceError

if TYPE_CHECKING:
    from maas_client.backends.azureml.online import Deployment, Endpoint, Online

_LOG_LINES = 50


class Looks:
    """Looks at the endpoints of a workspace; changes nothing. `ask` asks a deployment whether it answers."""

    def __init__(self, online: Online, *, ask: Ask, clock: Callable[[], float]) -> None:
        self._online = online
        self._ask = ask
        self._clock = clock

    def see(self, name: str) -> Seen | None:
        """What Azure shows of an endpoint and its deployments; None where there is none."""
        endpoint = self._online.endpoint(name)
        return self.complete(endpoint) if endpoint is not None else None

    def complete(self, endpoint: Endpoint) -> Seen:
        """An endpoint together with its deployments."""
        return Seen(endpoint, self._online.deployments(endpoint.name))

    def health(self, seen: Seen) -> Health | None:
        """Whether the deployment that matters answers; None where none is up.

        Who may not have the endpoint's key cannot ask.
        """
        chosen = asked_of(seen)
        if chosen is None:
            return None
        try:
            key = self._online.key(seen.endpoint.name)
        except AccessDeniedError as error:
            return Health(None, error.message.rstrip("."))
        return self._ask(seen.endpoint.scoring_url, key, chosen.name)

    def status(self, seen: Seen, health: Health | None) -> EndpointStatus:
        """The status, with the evidence that Azure and the container give."""
        now = self._clock()
        evidence = self._evidence(seen, health, now)
        return to_status(EndpointRef("azureml", seen.endpoint.name), seen, health, now=now, evidence=evidence)

    def _evidence(self, seen: Seen, health: Health | None, now: float) -> str:
        """Why something failed or is stuck, as far as anybody says; "" where all is well."""
        mine = wanted_of(seen)
        if seen.endpoint.has_failed:
            return self._why(seen.endpoint)
        if mine is None:
            return ""
        silent = mine.is_up and health is not None and health.answers is False
        if not mine.has_failed and not ((mine.is_busy or silent) and is_stuck(mine, now)):
            return ""
        said = [self._why(mine) if mine.has_failed else "", self._last_line(seen.endpoint.name, mine.name)]
        return "; ".join(part.rstrip(".") for part in said if part)

    def _why(self, failed: Endpoint | Deployment) -> str:
        with suppress(ServiceError):  # what operations said is kept for a while only
            return self._online.failure(failed)
        return ""

    def _last_line(self, endpoint: str, deployment: str) -> str:
        with suppress(ServiceError):
            lines = self._online.log(endpoint, deployment, lines=_LOG_LINES)
            written = [line.strip() for line in lines if line.strip()]
            return f"its log ends with: {written[-1]}" if written else ""
        return ""
