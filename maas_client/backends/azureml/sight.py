"""One look at an endpoint as a status: what it does, whether it answers and bills, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from maas_client.backends.azureml.lease import TAG_DEPLOYMENT, TAG_TTL, expires_at_of, is_over
from maas_client.catalog import price
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus

if TYPE_CHECKING:
    from maas_client.backends.azureml.health import Health
    from maas_client.backends.azureml.online import Deployment
    from maas_client.backends.azureml.rollout import Seen
    from maas_client.backends.azureml.serving import Wanted

STUCK_S = 15 * 60.0
"""Azure needs up to 15 minutes for a deployment; after that its log says more."""
AGAIN = "run the same deploy again to go on"
_ENDS = "Azure does not end it: `maas reap` deletes it when its time is over"


def wanted_of(seen: Seen) -> Deployment | None:
    """The deployment that is to get the requests, if it is there."""
    return seen.find(seen.endpoint.tags.get(TAG_DEPLOYMENT, ""))


def asked_of(seen: Seen) -> Deployment | None:
    """The deployment whose answer decides: the wanted one once it is up, else the one that serves.

    One whose last change failed may go on answering as it was.
    """
    mine = wanted_of(seen)
    if mine is None or mine.is_up:
        return mine or seen.serving
    return seen.serving or (mine if mine.has_failed and seen.share(mine) else None)


def is_stuck(deployment: Deployment, now: float) -> bool:
    """Whether a deployment has been as it is for longer than Azure needs."""
    return deployment.changed_at is not None and now - deployment.changed_at > STUCK_S


def to_status(
    ref: EndpointRef, seen: Seen, health: Health | None, *, now: float, evidence: str = ""
) -> EndpointStatus:
    """The status. `health` is that of `asked_of(seen)`, None where nobody was asked; `evidence` is why
    something failed or is stuck: Azure's words, the container's last lines.
    """
    endpoint = seen.endpoint
    state, message, model = _judge(seen, health, evidence)
    end = expires_at_of(endpoint.tags)
    if is_over(endpoint.tags, now):
        state = EndpointState.EXPIRED
        message = f"Its time of {endpoint.tags.get(TAG_TTL, 'days')} is over. {_ENDS}."
    return EndpointStatus(
        ref=ref,
        state=state,
        native_state=_native(seen),
        seen_at=now,
        model=model or endpoint.model,
        billing=_billing(seen.deployments),
        url=endpoint.scoring_url,
        expires_at=end,
        message=message,
        cost=_cost(seen.deployments),
        traffic=seen.shares if len(seen.shares) > 1 else {},
    )


def _judge(seen: Seen, health: Health | None, evidence: str) -> tuple[EndpointState, str, str]:
    """(state, message, model that answers) without a look at the clock."""
    endpoint, mine, serving = seen.endpoint, wanted_of(seen), seen.serving
    why = f": {evidence}" if evidence else ""
    if endpoint.has_failed and serving is None:
        return EndpointState.FAILED, f"Azure says {endpoint.native_state}{why}.", ""
    if mine is not None and mine.has_failed:
        return _failed(seen, mine, health, why)
    if mine is None or mine.is_busy or endpoint.is_busy:
        return EndpointState.STARTING, _rest_of_way(seen, mine, evidence), ""
    if not mine.is_up:
        words = f"Azure calls deployment {mine.name} {mine.native_state}, which nobody knows"
        return EndpointState.UNKNOWN, f"{words}{why}.", ""
    state, words = _answering(health, evidence)
    if state is EndpointState.READY and not seen.share(mine):
        return EndpointState.STARTING, f"It answers but gets no requests yet: {AGAIN}.", ""
    others = (each for each in seen.deployments if each is not mine and not each.is_going)
    idle = [each.name for each in others if not seen.share(each)]
    if state is EndpointState.READY and endpoint.has_failed:
        words = f"The last change of the endpoint has failed{why}."
    elif state is EndpointState.READY and idle:
        words = f"{', '.join(idle)} gets no requests and costs all the same: {AGAIN}."
    return state, words, ""


def _failed(seen: Seen, mine: Deployment, health: Health | None, why: str) -> tuple[EndpointState, str, str]:
    """The wanted deployment has failed: who goes on, if anybody does."""
    chosen = asked_of(seen)
    words = f"Deployment {mine.name} of {seen.endpoint.model} has failed{why}."
    if chosen is None or health is None or health.answers is False:
        return EndpointState.FAILED, words, ""
    goes_on = "it goes on as it was" if chosen is mine else f"{chosen.model or chosen.name} goes on"
    state, doubt = _answering(health, "")
    return state, f"{words.rstrip('.')}; {goes_on}. {doubt}".strip(), chosen.model


def _rest_of_way(seen: Seen, mine: Deployment | None, evidence: str) -> str:
    if seen.endpoint.is_busy:
        return f"Azure says {seen.endpoint.native_state}; then {AGAIN}."
    if mine is None:
        return f"It has no deployment of {seen.endpoint.model} yet: {AGAIN}."
    why = f", for a long time: {evidence}" if evidence else ""
    return f"Deployment {mine.name} of {seen.endpoint.model} is {mine.native_state}{why}; then {AGAIN}."


def _answering(health: Health | None, evidence: str) -> tuple[EndpointState, str]:
    if health is None or health.answers is None:
        words = health.words if health is not None else "nobody asked"
        return EndpointState.UNKNOWN, f"Azure says Succeeded; whether it answers is not known: {words}."
    if health.answers:
        return EndpointState.READY, ""
    why = f"; for a long time: {evidence}" if evidence else ""
    return EndpointState.STARTING, f"Azure says Succeeded, but it does not answer yet: {health.words}{why}."


def _native(seen: Seen) -> str:
    """Azure's own words: the endpoint's and each deployment's."""
    words = [f"{each.name} {each.native_state}" for each in seen.deployments]
    return ", ".join([f"endpoint {seen.endpoint.native_state}", *words])


def _billing(deployments: Iterable[Deployment]) -> Billing:
    """Machines bill while they are there. Nobody says whether those of a failed deployment do."""
    there = list(deployments)
    if any(not each.has_failed for each in there):
        return Billing.BILLING
    return Billing.UNKNOWN if there else Billing.FREE


def _cost(deployments: Iterable[Deployment]) -> str:
    """What stays costs by the hour; what is being deleted only until it has gone."""
    there = list(deployments)
    stays = cost_of((each.size, each.instances) for each in there if not each.is_going)
    going = ", ".join(each.name for each in there if each.is_going)
    return f"{stays} Until {going} is deleted, its machines bill too.".strip() if going else stays


def cost_of(machines: Iterable[tuple[str, int]], *, ttl: str = "", ttl_s: int = 0) -> str:
    """What machines (size, count) cost, in a sentence; "" for none. An unknown price is said to be so."""
    counts: Counter[str] = Counter()
    for size, count in machines:
        counts[size] += count
    if not counts:
        return ""
    names = " and ".join(f"{count} x {size}" for size, count in counts.items())
    found = [price(size) for size in counts]
    prices = [each for each in found if each is not None]
    if len(prices) < len(found):
        return f"unknown: no source tells the price of {names}. {_ENDS}."
    hourly = sum(each.usd_per_hour * count for each, count in zip(prices, counts.values(), strict=True))
    sources = "; ".join(dict.fromkeys(str(each.source) for each in prices))
    total = f", ${hourly * ttl_s / 3600:,.2f} for {ttl}" if ttl_s else ""
    return f"${hourly:,.2f} an hour for {names}{total} ({sources}). {_ENDS}."


def cost_of_wanted(wanted: Wanted) -> str:
    """What a deployment would cost for its time."""
    return cost_of([(wanted.size, wanted.spec.instances)], ttl=wanted.spec.ttl, ttl_s=wanted.spec.ttl_s)
