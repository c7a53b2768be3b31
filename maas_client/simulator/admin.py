"""Orders to the simulator itself, under /_simulator, with the header x-simulator-key."""

from __future__ import annotations

from maas_client.simulator.faults import KINDS
from maas_client.simulator.machines import family_of
from maas_client.simulator.replies import Reply, user_error
from maas_client.simulator.routing import Call, Operation


def add_fault(call: Call) -> Reply:
    """POST of one order to misbehave, or of a list of them."""
    orders = call.body if isinstance(call.body, list) else [call.body or {}]
    try:
        made = [call.world.faults.order(order) for order in orders]
    except (ValueError, TypeError, AttributeError) as error:
        raise user_error(str(error)) from None
    return Reply(201, [fault.to_dict() for fault in made])


def list_faults(call: Call) -> Reply:
    """GET of the orders, what struck, and what kinds there are."""
    kinds = {kind: {"does": words, "parameters": dict(defaults)} for kind, (words, defaults) in KINDS.items()}
    standing = [fault.to_dict() for fault in call.world.faults.standing()]
    return Reply(200, {"faults": standing, "struck": dict(call.world.faults.struck), "kinds": kinds})


def clear_faults(call: Call) -> Reply:
    """DELETE of every order."""
    call.world.faults.clear()
    return Reply(204)


def bill(call: Call) -> Reply:
    """GET of what would have been charged."""
    return Reply(200, call.world.bill.to_dict())


def clock(call: Call) -> Reply:
    """POST {"move_on_s": N} to jump ahead, or {"speed": N}; GET shows the time."""
    body = call.body or {}
    try:
        if "move_on_s" in body:
            call.world.clock.move_on(float(body["move_on_s"]))
        if "speed" in body:
            call.world.clock.change_speed(float(body["speed"]))
    except (TypeError, ValueError):
        raise user_error("move_on_s and speed are numbers.") from None
    return Reply(
        200, {"now": call.world.now(), "unix_s": call.world.clock.now(), "speed": call.world.clock.speed}
    )


def preempt(call: Call) -> Reply:
    """POST {"job": NAME}: take the nodes away from a job that runs."""
    name = (call.body or {}).get("job", "")
    job = call.world.store.get(f"{call.world.names.workspace_id}/jobs/{name}")
    if job is None or not call.world.runner.preempt(job):
        raise user_error(f"No job {name!r} is running.", status=409)
    return Reply(202, {"job": name})


def expire_tokens(call: Call) -> Reply:
    """POST: every token until now counts as expired; {"lifetime_s": N} also sets how long new ones live."""
    lifetime = (call.body or {}).get("lifetime_s")
    if lifetime is not None:
        try:
            call.world.tokens.lifetime_s = float(lifetime)
        except (TypeError, ValueError):
            raise user_error("lifetime_s is a number.") from None
    call.world.tokens.void_all()
    return Reply(204)


def plant_jobs(call: Call) -> Reply:
    """POST of scripted jobs: they follow the clock and run nothing."""
    try:
        return Reply(201, {"jobs": call.world.runner.scripted.plant(call.body or {})})
    except (ValueError, TypeError) as error:
        raise user_error(str(error)) from None


def set_quota(call: Call) -> Reply:
    """POST {FAMILY: CORES, ...}: limits of VM families, each named by itself or by a size of it."""
    try:
        limits = {family_of(str(name)): int(cores) for name, cores in (call.body or {}).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise user_error(f"Quota is a number of cores by family: {error}") from None
    call.world.quota.update(limits)
    return Reply(200, dict(call.world.quota))


def requests(call: Call) -> Reply:
    """GET of the requests that came, oldest first, as "METHOD /path"; DELETE forgets them."""
    if call.method == "DELETE":
        call.world.requests.clear()
        return Reply(204)
    return Reply(200, {"requests": list(call.world.requests)})


OPERATIONS = [
    Operation("POST", "/_simulator/faults", add_fault),
    Operation("GET", "/_simulator/faults", list_faults),
    Operation("DELETE", "/_simulator/faults", clear_faults),
    Operation("GET", "/_simulator/bill", bill),
    Operation("GET", "/_simulator/clock", clock),
    Operation("POST", "/_simulator/clock", clock),
    Operation("POST", "/_simulator/preempt", preempt),
    Operation("POST", "/_simulator/tokens/expire", expire_tokens),
    Operation("POST", "/_simulator/jobs", plant_jobs),
    Operation("POST", "/_simulator/quota", set_quota),
    Operation("GET", "/_simulator/requests", requests),
    Operation("DELETE", "/_simulator/requests", requests),
]
