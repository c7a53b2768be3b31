"""Endpoints on this machine: each is a folder under home/endpoints and a supervised server on 127.0.0.1."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.backend import Registry
from maas_client.backends.basemodels import weights_of
from maas_client.backends.local.folders import lock, publish, remove, staging, told
from maas_client.backends.local.process import ask_to_stop, kill_group, supervise, wait_gone
from maas_client.backends.local.server import ENDPOINT, KEY, LOG, STATE, Seen, ServerRecord, see
from maas_client.backends.local.wire import CANCEL, LAUNCH, Cancel, Launch, Processes, write_text
from maas_client.bundled import jobs_folder
from maas_client.endpoint import (
    Billing,
    EndpointAccess,
    EndpointRef,
    EndpointState,
    EndpointStatus,
    traffic_of_one,
)
from maas_client.errors import ConflictError, NotFoundError, ServiceError
from maas_client.model import ModelRef, RegisteredModel

if TYPE_CHECKING:
    from maas_client.spec import DeploySpec

_KEY_VARIABLE = "MAAS_ENDPOINT_KEY"
_KEY_BYTES = 32
_STOP_S = 5.0
_RUNNING = {EndpointState.STARTING, EndpointState.READY, EndpointState.UNKNOWN}


class LocalEndpoints:
    """The Serving of this machine. `code` is the folder with serve.py."""

    def __init__(
        self,
        home: Path,
        *,
        models: Registry,
        clock: Callable[[], float] = time.time,
        code: Path | None = None,
    ) -> None:
        self._endpoints = home / "endpoints"
        self._models = models
        self._clock = clock
        self._code = code

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:  # noqa: ARG002
        """Nothing: it runs on this machine."""
        return ""

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        """Start a server for a registered model and return at once.

        One that ended, or that serves another version, port or ttl, is replaced. Raises NotFoundError for an
        unknown model, ConflictError where the name serves another model.
        """
        registered = self._models.get(model.name, model.version)
        ref = EndpointRef("local", spec.name)
        folder = self._endpoints / spec.name
        with told("deploy", folder), lock(self._lock(spec.name)):
            if (folder / ENDPOINT).is_file():
                there = self._see(ref)
                if there.state in _RUNNING and self._is_same(there, model, spec):
                    return self._status(there)
                self._stop_and_remove(folder)
            self._prepare(folder, registered, spec)
            key = (folder / KEY).read_text(encoding="utf-8")
            supervise(folder, secrets={_KEY_VARIABLE: key})
            return self._status(self._see(ref))

    def status(self, ref: EndpointRef) -> EndpointStatus:
        """Look at the files, the process and /health. An endpoint that outlived its time is told to stop."""
        with told("status", self._endpoints):
            return self._status(self._see(ref))

    def list(self) -> tuple[EndpointStatus, ...]:
        """Every endpoint, by name; one whose records cannot be read is UNKNOWN."""
        names = sorted(path.parent.name for path in self._endpoints.glob(f"[!.]*/{ENDPOINT}"))
        found = []
        for name in names:
            with suppress(NotFoundError):  # deleted since the folder was read
                found.append(self._status_or_unknown(EndpointRef("local", name)))
        return tuple(found)

    def _status_or_unknown(self, ref: EndpointRef) -> EndpointStatus:
        try:
            return self.status(ref)
        except NotFoundError:
            raise
        except ServiceError as error:
            native, now = "records cannot be read", self._clock()
            unknown = EndpointState.UNKNOWN
            return EndpointStatus(ref, unknown, native, now, "", Billing.FREE, message=error.message)

    def access(self, ref: EndpointRef) -> EndpointAccess:
        """URL and key. Raises ConflictError while the endpoint is not ready."""
        status = self.status(ref)
        if status.state is not EndpointState.READY:
            raise status.not_ready()
        with told("access", self._endpoints):
            key = (self._endpoints / ref.name / KEY).read_text(encoding="utf-8")
        return EndpointAccess(status.url, ref.name, key)

    def traffic(self, ref: EndpointRef, shares: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """One deployment answers everything. Raises ConflictError for any other share."""
        return traffic_of_one(ref, self._see(ref).record.model, shares)

    def delete(self, ref: EndpointRef) -> None:
        """Stop the server, remove folder and key. Raises NotFoundError for a name that never was deployed."""
        folder = self._endpoints / ref.name
        if not self._lock(ref.name).is_file() and not folder.is_dir():
            raise self._unknown(ref)
        with told("delete", folder), lock(self._lock(ref.name)):
            self._stop_and_remove(folder)

    def _lock(self, name: str) -> Path:
        return self._endpoints / f".{name}.lock"

    def _unknown(self, ref: EndpointRef) -> NotFoundError:
        hint = "maas endpoints list shows those that are."
        return NotFoundError(f"There is no endpoint {ref.name}.", operation="look", hint=hint)

    def _is_same(self, there: Seen, model: ModelRef, spec: DeploySpec) -> bool:
        """Whether what runs is what is wanted; False where it is to be replaced. Raises ConflictError."""
        record = there.record
        if record.model.rpartition(":")[0] != model.name:
            words = f"Endpoint {spec.name} serves {record.model}, another model."
            hint = f"maas endpoints delete {spec.name}, then deploy again; or choose another name."
            raise ConflictError(words, operation="deploy", hint=hint)
        return (record.model, record.port, record.ttl) == (str(model), spec.port, spec.ttl)

    def _prepare(self, folder: Path, model: RegisteredModel, spec: DeploySpec) -> None:
        """Make the endpoint's folder; it appears whole, key included."""
        import secrets

        now = self._clock()
        record = ServerRecord(
            model=str(model.ref),
            created_at=now,
            expires_at=now + spec.ttl_s,
            port=spec.port,
            ttl=spec.ttl,
        )
        code = self._code or jobs_folder()
        with staging(folder.parent) as staged:
            record.write(staged / ENDPOINT)
            write_text(staged / KEY, secrets.token_urlsafe(_KEY_BYTES), mode=0o600)
            words = _words(code, folder, model, spec, record.expires_at)
            environment = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
            if model.adapter and isinstance(weights_of(model.lineage.base_model), str):
                del environment["HF_HUB_OFFLINE"]
            Launch(words, str(code), LOG, environment, grace_s=_STOP_S).write(staged / LAUNCH)
            if not publish(staged, folder):
                hint = f"Move {folder} away and deploy again."
                raise ConflictError(f"{folder} is in the way.", operation="deploy", hint=hint)

    def _see(self, ref: EndpointRef) -> Seen:
        folder = self._endpoints / ref.name
        if ref.backend != "local" or not (folder / ENDPOINT).is_file():
            raise self._unknown(ref)
        seen = see(ref, folder, self._clock())
        if seen.state is EndpointState.EXPIRED:
            _ask_to_stop(seen.processes)
        return seen

    def _status(self, seen: Seen) -> EndpointStatus:
        return EndpointStatus(
            ref=seen.ref,
            state=seen.state,
            native_state=seen.native_state,
            seen_at=self._clock(),
            model=seen.record.model,
            billing=Billing.FREE,
            url=seen.url,
            expires_at=seen.record.expires_at,
            message=seen.message,
        )

    def _stop_and_remove(self, folder: Path) -> None:
        if not folder.is_dir():
            return
        with suppress(OSError):  # on a full disk, too, it is stopped
            Cancel(self._clock()).write(folder / CANCEL)  # a supervisor that is only now starting sees this
        processes = _processes(folder)
        if processes is not None:
            _ask_to_stop(processes)
            if not wait_gone(processes.both, _STOP_S * 2):
                kill_group(processes.child)
                wait_gone(processes.both, _STOP_S)
        remove(folder)


def _processes(folder: Path) -> Processes | None:
    """Who serves; None where nobody is recorded, or where the record is torn and nobody can be named."""
    with suppress(ServiceError):
        return Processes.read(folder / "process.json")
    return None


def _ask_to_stop(processes: Processes | None) -> None:
    """SIGTERM to the supervisor, which passes it on; to the server itself where that is gone."""
    if processes is not None and not ask_to_stop(processes.supervisor):
        ask_to_stop(processes.child)


def _words(
    code: Path, folder: Path, model: RegisteredModel, spec: DeploySpec, expires_at: float
) -> list[str]:
    words = [sys.executable, str(code / "serve.py"), "--model", str(model.place)]
    if model.adapter:
        base = weights_of(model.lineage.base_model)
        words += ["--base", str(base.absolute() if isinstance(base, Path) else base)]
    words += ["--name", spec.name, "--port", str(spec.port), "--state", str(folder / STATE)]
    return [*words, "--expires-at", str(int(expires_at))]
