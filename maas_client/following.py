"""Watch runs and endpoints until they come to an end: the only place that polls a backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from maas_client.backend import Backend, Serving
from maas_client.endpoint import EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ServiceError, StillRunningError, UnavailableError
from maas_client.run import Event, RunRef, RunState, RunStatus

LOCAL = "local"
POLL_S = 0.5
"""Seconds between looks at runs on this machine."""
_SERVICE_POLL_S = 3.0
_LONGEST_POLL_S = 15.0
_SLOWER = 1.3
_LONGEST_WAIT_S = 60.0
_AWAY_S = 3600.0
"""So long a service may be away before the watching ends; this machine's runs, 20 looks."""
_FAILED_LOOKS = 20
UNKNOWN_LOOKS = 20
"""So many looks in a row that find a run's state unknown end the watching."""
REFUSED_LOOKS = 5
"""So many looks in a row that are refused, after one that was not, end the watching."""


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


def pause_s(backend: str, quiet_looks: int) -> float:
    """Seconds until the next look at a run, after so many looks that brought nothing new.

    Services are asked less often the longer nothing happens: they count requests.
    """
    if backend == LOCAL:
        return POLL_S
    return min(_LONGEST_POLL_S, _SERVICE_POLL_S * _SLOWER ** min(quiet_looks, 20))


def follow(
    jobs: Backend,
    ref: RunRef,
    *,
    poll_s: float | None = None,
    timeout_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Sight]:
    """Look at a run until it has ended and all that it wrote was given.

    A look is made every `poll_s` seconds, by default as `pause_s` says. Each log line and event comes once.
    The last Sight has the final status. A look that finds the service away is tried again, for an hour (on
    this machine 20 times) until UnavailableError is raised; one that is refused although one before went
    well, 5 times. After 20 that find the state unknown ServiceError is raised, StillRunningError after
    `timeout_s`.
    """

    def pause(looks: int) -> float:
        return pause_s(ref.backend, looks) if poll_s is None else poll_s

    began, cursors, unknown, quiet = clock(), _Cursors(), 0, 0
    patience = _Patience(is_service=ref.backend != LOCAL, pause=pause, clock=clock)
    while True:
        try:
            status = jobs.status(ref)
            _read(jobs, ref, cursors)
        except ServiceError as error:
            wait_s = patience.wait_s(error)
            if timeout_s is not None and clock() - began >= timeout_s:
                raise
            sleep(wait_s)
            continue
        patience.is_well()
        quiet = 0 if cursors.lines or cursors.events else quiet + 1
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
        if not status.state.is_final or quiet:
            sleep(pause(quiet))


class _Patience:
    """How long looks that fail are tried again. `pause` gives the seconds after so many of them."""

    def __init__(
        self, *, is_service: bool, pause: Callable[[int], float], clock: Callable[[], float]
    ) -> None:
        self._away_s = _AWAY_S if is_service else 0.0
        self._pause = pause
        self._clock = clock
        self._failed = 0
        self._since = 0.0
        self._went_well = False

    def is_well(self) -> None:
        """A look went well."""
        self._failed, self._went_well = 0, True

    def wait_s(self, error: ServiceError) -> float:
        """Seconds to wait after a look that failed. Raises the error where another one is of no use."""
        if not self._failed:
            self._since = self._clock()
        self._failed += 1
        if isinstance(error, UnavailableError):
            if self._failed >= _FAILED_LOOKS and self._clock() - self._since >= self._away_s:
                raise error
            return max(min(_LONGEST_WAIT_S, error.retry_after_s or 0.0), self._pause(self._failed))
        if not self._went_well or self._failed >= REFUSED_LOOKS:
            raise error
        return self._pause(self._failed)


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
