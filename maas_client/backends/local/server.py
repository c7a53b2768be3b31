"""A look at an endpoint's server: its record, its process, the state it wrote, whether /health answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maas_client.backends.local.pages import last_text
from maas_client.backends.local.process import boot_name, is_alive
from maas_client.backends.local.wire import EXIT, PROCESS, Exit, Processes, Record, read_json
from maas_client.endpoint import EndpointRef, EndpointState
from maas_client.errors import ServiceError

ENDPOINT = "endpoint.json"
KEY = "key"
STATE = "state.json"
LOG = "log.txt"
_HEALTH_TIMEOUT_S = 1.0
_YOUNG_S = 30.0
_OK = 200
_STOP_CODES = {0, 130, 143}


@dataclass(frozen=True)
class ServerRecord(Record):
    """endpoint.json: what was deployed. Times are unix seconds; `ttl` and `port` are as asked for."""

    model: str
    created_at: float
    expires_at: float
    port: int
    ttl: str


@dataclass(frozen=True)
class Seen:
    """One look at an endpoint."""

    ref: EndpointRef
    record: ServerRecord
    state: EndpointState
    native_state: str
    processes: Processes | None
    url: str = ""
    message: str = ""


def see(ref: EndpointRef, folder: Path, now: float) -> Seen:
    """Look once; takes at most a second. Raises ServiceError when endpoint.json cannot be read."""
    record = ServerRecord.read(folder / ENDPOINT)
    if record is None:
        raise ServiceError(
            f"{folder / ENDPOINT} is missing.", operation="status", hint=f"maas endpoints delete {ref.name}"
        )
    try:
        processes = Processes.read(folder / PROCESS)
        alive = processes is not None and any(map(is_alive, processes.both))
        ended = Exit.read(folder / EXIT)
        served = read_json(folder / STATE)
    except ServiceError as error:
        return Seen(ref, record, EndpointState.UNKNOWN, "records cannot be read", None, message=error.message)
    if now >= record.expires_at:
        message = f"Its time of {record.ttl} is over."
        native = "process is alive" if alive and ended is None else "process is gone"
        return Seen(ref, record, EndpointState.EXPIRED, native, processes, message=message)
    if alive and ended is None:
        state, native, url = _living(served, now)
        return Seen(ref, record, state, native, processes, url=url)
    state, native, message = _dead(processes, ended, folder / LOG)
    return Seen(ref, record, state, native, processes, message=message)


def _living(served: dict[str, Any] | None, now: float) -> tuple[EndpointState, str, str]:
    """State, evidence and URL of an endpoint whose process lives."""
    if served is None:
        return EndpointState.STARTING, "process is alive, model is loading", ""
    url, port = str(served.get("url", "")), int(served.get("port", 0))
    if _is_healthy(port):
        return EndpointState.READY, "process is alive, /health answers", url
    is_young = now - float(served.get("started_at", 0)) < _YOUNG_S
    state = EndpointState.STARTING if is_young else EndpointState.UNKNOWN
    return state, "process is alive, /health does not answer", url


def _is_healthy(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _dead(processes: Processes | None, ended: Exit | None, log: Path) -> tuple[EndpointState, str, str]:
    """State, evidence and words for an endpoint whose process does not live."""
    if processes is None:
        return EndpointState.FAILED, "prepared, not started", "It was never started; deploy it again."
    if ended is None:
        if processes.supervisor.boot != boot_name():
            return (
                EndpointState.STOPPED,
                "machine was restarted",
                "The machine was restarted; deploy it again.",
            )
        return EndpointState.FAILED, "process is gone", "The server was killed; deploy it again."
    native = f"exited with code {ended.exit_code}"
    if ended.exit_code in _STOP_CODES:
        return EndpointState.STOPPED, native, "The server was stopped; deploy it again."
    if ended.signal:  # it had no last word; what the log ends with is something else
        return (
            EndpointState.FAILED,
            native,
            f"The server was ended by signal {ended.signal}; deploy it again.",
        )
    return (
        EndpointState.FAILED,
        native,
        _last_line(log) or ended.message or "The server ended without a word.",
    )


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in last_text(log).splitlines()]
    return next((line for line in reversed(lines) if line), "")
