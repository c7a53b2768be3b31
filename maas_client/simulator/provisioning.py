"""What serverless endpoints, online endpoints and deployments have in common: keys and long provisioning."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from maas_client.simulator.replies import Refusal, Reply
from maas_client.simulator.routing import Call
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

_KEYS = "/_keys/keys"


def provision(
    call: Call,
    made: Resource,
    *,
    created: bool,
    done: Callable[[dict[str, Any] | None], None] = lambda _: None,
    refusal: dict[str, Any] | None = None,
) -> Reply:
    """Answer a PUT: Creating or Updating now, Succeeded or Failed when the operation is over.

    `done` hears of the end with the error or None. `refusal` is an error that the operation ends with anyway.
    """
    made["properties"]["provisioningState"] = "Creating" if created else "Updating"

    def finish(error: dict[str, Any] | None) -> None:
        made["properties"]["provisioningState"] = "Failed" if error else "Succeeded"
        done(error)

    headers = call.world.operations.start(call, finish, error=refusal)
    return Reply(201 if created else 200, made, headers)


def remove(call: Call, path: str, done: Callable[[], None]) -> Reply:
    """Answer a DELETE: 204 for what is not there, else 202; it is gone when the operation is over."""
    found = call.world.store.get(path)
    if found is None:
        return Reply(204)
    found["properties"]["provisioningState"] = "Deleting"

    def finish(error: dict[str, Any] | None) -> None:
        if error is not None:
            found["properties"]["provisioningState"] = "Failed"
            return
        call.world.store.delete(found["id"])
        done()

    return Reply(202, None, call.world.operations.start(call, finish))


def keys_of(world: World, path: str) -> dict[str, str]:
    """The two keys of an endpoint, made when first asked for."""
    found = world.store.get(path + _KEYS)
    if found is None:
        made = {name: secrets.token_urlsafe(24) for name in ("primaryKey", "secondaryKey")}
        found = world.store.put(path + _KEYS, made)
    return found


def regenerate(world: World, path: str, which: str) -> None:
    """Replace one key; `which` is Primary or Secondary."""
    keys_of(world, path)[f"{which.lower()}Key"] = secrets.token_urlsafe(24)


def check_key(world: World, path: str, headers: Any) -> None:
    """Accept a key as api-key, as a bearer token or bare. Raises Refusal 401."""
    given = headers.get("api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not any(secrets.compare_digest(given, key) for key in keys_of(world, path).values()):
        text = "Access denied due to invalid subscription key or wrong API endpoint."
        raise Refusal(401, "Unauthorized", text, inner=None, headers={"WWW-Authenticate": "Bearer"})


def not_ready(world: World, request: str) -> None:
    """Raise the refusal that a fault orders for an endpoint that says Succeeded."""
    if fault := world.faults.take("not_ready", request):
        text = "The deployment is not ready yet. Please try again later."
        raise Refusal(int(fault["status"]), "DeploymentNotReady", text, inner=None)
