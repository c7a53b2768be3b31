"""Watch runs and endpoints until they come to an end: the only place that polls a backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from maas_client.backend import Backend, Serving
from maas_client.endpoint import EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ServiceError, StillRunningError, UnavailableError
from maas_client.run import Event, RunRef, RunState, RunStatus

POLL_S = 0.5
_FAILED_LOOKS = 20
UNKNOWN_LOOKS = 20
"""So many looks in a row that find a run's state unknown end the watching."""


@dataclass(frozen=True)
class Sight:
    """What one look brought: the status, and the log lines and events that came since the look before."""

    status: RunStatus
    lines: tuple[str, ...]
    events: tuple[Event, ...]


@dataclass
class _Cursors:
    """How far a run's log and events were read; `None` after the first page means that no more can come."""

    logs: str | None = None
    metrics: str | None = None
    logs_open: bool = True
    metrics_open: bool = True
    lines: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def follow(
    jobs: Backend,
    ref: RunRef,
    *,
    poll_s: float = POLL_S,
    timeout_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Sight]:
    """Look at a run every `poll_s` seconds until it has ended and all that it wrote was given.

    Each log line and event comes once. The last Sight has the final status. A look that finds the service
    away is tried again; after 20 in a row UnavailableError is raised, and after 20 that find the state
    unknown ServiceError. StillRunningError is raised after `timeout_s`.
    """
    began, cursors, away, unknown = clock(), _Cursors(), 0, 0
    while True:
        try:
            status = jobs.status(ref)
            _read(jobs, ref, cursors)
            away = 0
        except UnavailableError:
            away += 1
            if away >= _FAILED_LOOKS:
                raise
            sleep(poll_s)
            continue
        yield Sight(status, tuple(cursors.lines), tuple(cursors.events))
        cursors.lines, cursors.events = [], []
        if status.state.is_final and not (cursors.logs_open or cursors.metrics_open):
            return
        unknown = unknown + 1 if status.state is RunState.UNKNOWN else 0
        if unknown >= UNKNOWN_LOOKS:
            raise stays_unknown(ref, status)
        if timeout_s is not None and clock() - began >= timeout_s:
            raise StillRunningError(
                f"{ref} is {status.state} after {timeout_s:.0f} s.", hint=f"maas watch {ref.id}"
            )
        if not status.state.is_final:
            sleep(poll_s)


def stays_unknown(ref: RunRef, status: RunStatus) -> ServiceError:
    """For a run of which nothing can be learned, look after look."""
    words = (status.message or status.native_state).rstrip(".")
    hint = f"maas runs show {ref.id} says more; maas watch {ref.id} looks again."
    return ServiceError(f"The state of {ref.id} cannot be learned: {words}.", operation="look", hint=hint)


def _read(jobs: Backend, ref: RunRef, cursors: _Cursors) -> None:
    """Take the next pages. What was read is kept in the cursors even when the second read fails."""
    if cursors.logs_open:
        log_page = jobs.logs(ref, after=cursors.logs)
        cursors.logs, cursors.logs_open = log_page.next, log_page.next is not None
        cursors.lines += log_page.lines
    if cursors.metrics_open:
        metric_page = jobs.metrics(ref, after=cursors.metrics)
        cursors.metrics, cursors.metrics_open = metric_page.next, metric_page.next is not None
        cursors.events += metric_page.events


def wait_until_ready(
    endpoints: Serving,
    ref: EndpointRef,
    *,
    go_on: Callable[[], EndpointStatus] | None = None,
    model: str = "",
    watch: Callable[[EndpointStatus], None] | None = None,
    timeout_s: float = 120.0,
    poll_s: float = 0.2,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> EndpointStatus:
    """Look at an endpoint until it answers.

    `go_on` is called instead of a look where a deployment takes several steps: the same deployment again.
    `model` is the one that must answer, written `name:version`. `watch` is told of each look. Raises
    ServiceError when it fails, StillRunningError after `timeout_s`, and UnavailableError after 20 looks in a
    row that find the service away.
    """
    look, began, away, unknown = go_on or (lambda: endpoints.status(ref)), clock(), 0, 0
    while True:
        try:
            status, away = look(), 0
        except UnavailableError:
            away += 1
            if away >= _FAILED_LOOKS:
                raise
            sleep(poll_s)
            continue
        if watch is not None:
            watch(status)
        if status.state is EndpointState.READY:
            return _require_model(status, model)
        unknown = unknown + 1 if status.state is EndpointState.UNKNOWN else 0
        if status.state is not EndpointState.STARTING and not 0 < unknown < UNKNOWN_LOOKS:
            raise _endpoint_failed(status)
        if clock() - began >= timeout_s:
            raise StillRunningError(
                f"Endpoint {ref.name} is not ready after {timeout_s:.0f} s.",
                hint=f"maas endpoints show {ref.name}",
            )
        sleep(poll_s)


def _require_model(status: EndpointStatus, model: str) -> EndpointStatus:
    """The status, unless an endpoint went on answering with an older model."""
    if model and status.model != model:
        words = f": {status.message.rstrip('.')}" if status.message else ""
        raise ServiceError(
            f"Endpoint {status.ref.name} still serves {status.model}, not {model}{words}.",
            operation="deploy",
            hint=f"maas endpoints show {status.ref.name}",
        )
    return status


def _endpoint_failed(status: EndpointStatus) -> ServiceError:
    words, name = (status.message or status.native_state).rstrip("."), status.ref.name
    hint = f"maas endpoints delete {name}, then deploy again."
    return ServiceError(f"Endpoint {name} is {status.state}: {words}.", operation="deploy", hint=hint)
