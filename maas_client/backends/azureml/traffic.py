"""Who gets how many percent of an endpoint's requests, set without undoing what others set meanwhile.

Azure offers neither ETags nor a change of the traffic alone: the whole endpoint is written. While it works on
one change it refuses the next, so a change is lost only where it fits whole between our last look and our
request. That look is therefore made right before each request, and again after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from maas_client.backends.azureml.lease import TAG_DEPLOYMENT, TAG_MODEL
from maas_client.errors import ConflictError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from maas_client.backends.azureml.online import Endpoint, Online
    from maas_client.backends.azureml.rollout import Seen

PATIENCE_S = 300.0
_NAPS_S = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0)
_VERSION = re.compile(r"v\d{1,9}")
_OPERATION = "traffic"


def shares_for(seen: Seen, shares: Mapping[str, int]) -> dict[str, int]:
    """The shares by names of deployments, without zeros. Raises ConflictError where they do not fit.

    `v2` names the only deployment of version 2.
    """
    name = seen.endpoint.name
    named: dict[str, int] = {}
    for key, share in shares.items():
        found = _find(seen, key)
        if found in named:
            raise _misfit(f"{found} is named twice")
        named[found] = share
    if min(named.values(), default=0) < 0 or sum(named.values()) != 100:
        total = sum(named.values())
        raise _misfit(f"The shares of {name} add up to {total}, not to 100 of 0 to 100 each")
    asked = {key: share for key, share in named.items() if share}
    for each in seen.deployments:
        if each.name in asked and not each.is_up:
            raise _misfit(f"Deployment {each.name} is {each.native_state} and can take no requests")
    return asked


def _find(seen: Seen, key: str) -> str:
    names = [each.name for each in seen.deployments]
    if key in names:
        return key
    matching = [each for each in names if _VERSION.fullmatch(key) and each.startswith(f"{key}-")]
    if len(matching) == 1:
        return matching[0]
    there = f"it has {', '.join(names)}" if names else "it has none"
    raise _misfit(f"Endpoint {seen.endpoint.name} has no single deployment {key}; {there}")


def _misfit(words: str) -> ConflictError:
    return ConflictError(f"{words}.", operation=_OPERATION, hint="maas endpoints show NAME lists them.")


def tags_for(seen: Seen, asked: Mapping[str, int]) -> dict[str, str]:
    """The tags that make the deployment with most requests the wanted one, where maas made it."""
    first = max(asked, key=lambda name: asked[name])
    chosen = seen.find(first)
    if chosen is None or not chosen.model:
        return {}
    return {TAG_DEPLOYMENT: chosen.name, TAG_MODEL: chosen.model}


def set_traffic(
    online: Online,
    seen: Seen,
    asked: Mapping[str, int],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Set the shares and wait until Azure has. `seen` is what the shares were chosen by.

    Raises ConflictError where somebody else changed the traffic since, UnavailableError after five minutes.
    """
    name, before = seen.endpoint.name, dict(seen.endpoint.traffic)
    patience = _Patience(name, clock=clock, sleep=sleep)
    while True:
        endpoint = _settled(online, name, patience)
        if endpoint.traffic == asked:
            return
        if endpoint.traffic != before:
            raise _changed(endpoint)
        body = endpoint.again(traffic=asked, tags=tags_for(seen, asked))
        try:
            online.put_endpoint(name, body, operation=f"share the requests of endpoint {name}")
        except ConflictError:  # another change runs: look what it brings
            patience.nap()
            continue
        endpoint = _settled(online, name, patience)
        if endpoint.traffic != asked:
            raise _changed(endpoint)
        return


class _Patience:
    """Naps that get longer, until five minutes are over."""

    def __init__(self, name: str, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._name = name
        self._clock = clock
        self._sleep = sleep
        self._until = clock() + PATIENCE_S
        self._naps = 0

    def nap(self) -> None:
        """Sleep a little. Raises UnavailableError where patience is over."""
        if self._clock() >= self._until:
            raise UnavailableError(
                f"Azure still works on endpoint {self._name}.",
                operation=_OPERATION,
                hint="Try again in a minute.",
            )
        self._sleep(_NAPS_S[min(self._naps, len(_NAPS_S) - 1)])
        self._naps += 1


def _settled(online: Online, name: str, patience: _Patience) -> Endpoint:
    """The endpoint when Azure works on no change."""
    while True:
        endpoint = online.endpoint(name)
        if endpoint is None or endpoint.is_going:
            raise NotFoundError(f"There is no endpoint {name} any more.", operation=_OPERATION)
        if not endpoint.is_busy:
            return endpoint
        patience.nap()


def _changed(endpoint: Endpoint) -> ConflictError:
    now = ", ".join(f"{name} {share}%" for name, share in endpoint.traffic.items()) or "nobody"
    return ConflictError(
        f"Somebody else changed the traffic of endpoint {endpoint.name} meanwhile; it is {now}.",
        operation=_OPERATION,
        hint=f"Look at it (maas endpoints show {endpoint.name}) and give the command again.",
    )
