"""Long-running operations: what ARM hands out to poll, and what becomes of the resource in the end."""

from __future__ import annotations

import math
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maas_client.simulator.clock import timestamp
from maas_client.simulator.faults import Fault
from maas_client.simulator.replies import Reply, not_found
from maas_client.simulator.routing import LOCATION, Call, Operation
from maas_client.simulator.world import PROVIDER, World

_COGNITIVE = "Microsoft.CognitiveServices"
_SIGNATURE_LENGTH = 2800
"""Poll URLs of the service are signed with a certificate and a signature of about this many characters."""


@dataclass
class Running:
    """One operation. `finish` is called once with None or the error, by whoever looks first after the end."""

    name: str
    subscription: str
    location: str
    started_at: float
    ends_at: float
    finish: Callable[[dict[str, Any] | None], None]
    error: dict[str, Any] | None = None
    is_over: bool = False


class Operations:
    """Every operation of this life of the simulator."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: dict[str, Running] = {}

    def start(
        self,
        call: Call,
        finish: Callable[[dict[str, Any] | None], None],
        *,
        service: str = "mfe",
        seconds: float | None = None,
        error: dict[str, Any] | None = None,
    ) -> dict[str, str]:
        """Begin an operation for this request; returns the headers that the caller polls by.

        It ends with `error`, or with the one that a fault orders.
        """
        world = self._world
        took = world.timing.provisioning_s if seconds is None else seconds
        request = f"{call.method} {call.path}"
        if slow := world.faults.take("lro_slow", request):
            took = float(slow["seconds"])
        now = world.clock.now()
        name = str(uuid.uuid4())
        if service != "cognitive":
            name = f"{service}:{world.workspace_guid(call.workspace_id)}:{name}"
        subscription, location = call.params["subscription"], world.names.location
        running = Running(name, subscription, location, now, now + took, finish, error)
        if failure := world.faults.take("lro_fail", request):
            running.error = _error(failure)
        self._running[name] = running
        return self._headers(running, call.query.get("api-version", ""), service)

    def _headers(self, running: Running, version: str, service: str) -> dict[str, str]:
        provider = _COGNITIVE if service == "cognitive" else PROVIDER
        start = f"{self._world.base_url}/subscriptions/{running.subscription}/providers/{provider}"
        start += f"/locations/{running.location}"
        left_s = (running.ends_at - self._world.clock.now()) / self._world.clock.speed
        if service == "compute":
            place = f"{start}/computeOperationsStatus/{running.name}?api-version={version}&service=new"
            return {"Azure-AsyncOperation": place, "Retry-After": str(_wait_s(left_s))}
        signed = f"api-version={version}&t={int(running.started_at * 1e7)}&c={secrets.token_urlsafe(1500)}"
        signed += f"&s={secrets.token_urlsafe(_SIGNATURE_LENGTH * 3 // 8)}&h={secrets.token_urlsafe(32)}"
        if service == "cognitive":
            place = f"{start}/operationResults/{running.name}?{signed}"
            return {"Azure-AsyncOperation": place, "Location": place, "Retry-After": str(_wait_s(left_s))}
        return {
            "Azure-AsyncOperation": f"{start}/mfeOperationsStatus/{running.name}?{signed}",
            "Location": f"{start}/mfeOperationResults/{running.name}?{signed}",
            "x-ms-async-operation-timeout": "PT30M",
            "Retry-After": str(_wait_s(left_s)),
        }

    def settle(self) -> None:
        """Finish what is over by now."""
        now = self._world.clock.now()
        for running in list(self._running.values()):
            if not running.is_over and now >= running.ends_at:
                running.is_over = True
                running.finish(running.error)

    def find(self, name: str) -> Running:
        """The operation of this name. Raises Refusal 404."""
        if name not in self._running:
            raise not_found(f"Operation {name} was not found.")
        self.settle()
        return self._running[name]


def _wait_s(left_s: float) -> int:
    return max(1, min(30, math.ceil(left_s)))


def _error(fault: Fault) -> dict[str, Any]:
    message = fault["message"] or "The operation failed on the side of the service."
    return {"code": fault["code"], "message": message}


def status(call: Call) -> Reply:
    """GET of the status monitor: InProgress (Running), then Succeeded or Failed with an error."""
    running = call.world.operations.find(call.params["operation"])
    body: dict[str, Any] = {
        "id": call.path,
        "name": running.name,
        "status": "Running" if "/operationResults/" in call.path else "InProgress",
        "startTime": timestamp(running.started_at),
        "percentComplete": 0.0,
    }
    if not running.is_over:
        left_s = (running.ends_at - call.world.clock.now()) / call.world.clock.speed
        return Reply(200, body, {"Retry-After": str(_wait_s(left_s))})
    body |= {"endTime": timestamp(running.ends_at), "percentComplete": 100.0}
    body["status"] = "Failed" if running.error else "Succeeded"
    return Reply(200, {**body, "error": running.error} if running.error else body)


def result(call: Call) -> Reply:
    """GET of Location: 202 while it goes on, then an empty 200."""
    running = call.world.operations.find(call.params["operation"])
    if not running.is_over:
        return Reply(
            202, None, {"Location": f"{call.world.base_url}{call.path}?{_query(call)}", "Retry-After": "1"}
        )
    return Reply(200, {"error": running.error}) if running.error else Reply(200)


def _query(call: Call) -> str:
    return "&".join(f"{key}={value}" for key, value in call.query.items())


OPERATIONS = [
    Operation("GET", LOCATION + "/mfeOperationsStatus/{operation}", status),
    Operation("GET", LOCATION + "/mfeOperationResults/{operation}", result),
    Operation("GET", LOCATION + "/computeOperationsStatus/{operation}", status),
    Operation("GET", LOCATION.replace(PROVIDER, _COGNITIVE) + "/operationResults/{operation}", status),
]
