"""The simulator as one object: started, used by its environment variables, stopped without a trace."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from maas_client.errors import UnavailableError
from maas_client.simulator.application import make_application
from maas_client.simulator.arm import make_workspace
from maas_client.simulator.bill import Bill
from maas_client.simulator.certificate import Certificate, make_certificate
from maas_client.simulator.clock import Clock
from maas_client.simulator.datastores import make_datastores
from maas_client.simulator.foundry import make_account
from maas_client.simulator.lro import Operations
from maas_client.simulator.metadata import audiences, environment
from maas_client.simulator.openai_training import Tuner
from maas_client.simulator.runner import Runner
from maas_client.simulator.servers import Servers
from maas_client.simulator.state import Store
from maas_client.simulator.storage import Storage, new_key
from maas_client.simulator.tokens import Tokens
from maas_client.simulator.world import Names, Timing, World

_START_S = 30.0
_SAVE_EVERY_S = 2.0
_SECRETS = "secrets.json"


class Simulator:
    """A small Azure on 127.0.0.1.

    `port` 0 takes a free one. `tls` False speaks plain http, which azure-ai-ml accepts only in part. `speed`
    is how fast the clock runs. `folder` keeps the state for the next start; without it everything is gone in
    the end. `datastore` is what the workspace's datastores are opened with: AccountKey, Sas or None (the
    caller's own identity). `quota` sets cores by VM family (200 for others).
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls: bool = True,
        speed: float = 60.0,
        folder: Path | None = None,
        names: Names | None = None,
        timing: Timing | None = None,
        datastore: str = "AccountKey",
        quota: Mapping[str, int] | None = None,
    ) -> None:
        self._port = port
        self._tls = tls
        self._speed = speed
        self._kept = folder
        self._names = names or Names()
        self._timing = timing or Timing()
        self._datastore = datastore
        self._quota = dict(quota or {})
        self._thread: threading.Thread | None = None
        self._stop_saving = threading.Event()
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.world.base_url

    def start(self) -> None:
        """Start storage and server; returns when both answer. Raises UnavailableError."""
        self._folder = self._kept or Path(tempfile.mkdtemp(prefix="maas-simulator-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        listener = _listen(self._port)
        certificate = make_certificate(self._folder) if self._tls else None
        port = listener.getsockname()[1]
        self.world = self._make_world(f"{'https' if self._tls else 'http'}://localhost:{port}", certificate)
        try:
            self.world.storage.start()
            self._furnish()
            self._serve(listener, certificate)
        except BaseException:
            listener.close()
            self.world.storage.stop()
            self._remove_folder()
            raise
        bundle = str(certificate.authority) if certificate else ""
        self.environment = environment(
            self.world, ca_bundle=bundle, identity_header=self._secrets["identity"]
        )
        self.world.environment = self.environment
        if self._kept is not None:
            threading.Thread(target=self._save_now_and_then, daemon=True).start()

    def _make_world(self, base_url: str, certificate: Certificate | None) -> World:
        self._secrets = self._read_secrets()
        world = World(
            names=self._names,
            folder=self._folder,
            base_url=base_url,
            clock=Clock(self._speed),
            store=Store(self._kept / "state.json" if self._kept else None),
            tokens=Tokens(self._secrets["tokens"].encode(), self._names.tenant, audiences(base_url)),
            timing=self._timing,
            admin_key=self._secrets["admin"],
            quota=self._quota,
        )
        keep = self._kept is not None
        storage = Storage(self._folder / "storage", certificate, self._secrets["storage"], keep=keep)
        world.storage = storage
        world.bill = Bill(world)
        world.operations = Operations(world)
        world.runner = Runner(world)
        world.tuner = Tuner(world)
        world.servers = Servers(world)
        return world

    def _read_secrets(self) -> dict[str, str]:
        """Keys of this simulator: those of the last time where the state is kept."""
        file = self._folder / _SECRETS
        if file.is_file():
            found: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
            return found
        made = {name: secrets.token_urlsafe(32) for name in ("tokens", "admin", "identity")}
        made["storage"] = new_key()
        file.touch(mode=0o600)
        file.write_text(json.dumps(made), encoding="utf-8")
        return made

    def _furnish(self) -> None:
        """The workspace with its datastores; addresses change with every start."""
        workspace = self.world.store.get(self._names.workspace_id) or {"kind": self._names.workspace_kind}
        make_workspace(self.world, self._names.workspace_id, workspace)
        make_datastores(self.world, self._names.workspace_id, self._datastore)
        make_account(self.world)
        self.world.runner.mark_lost()
        self.world.tuner.mark_lost()

    def _serve(self, listener: socket.socket, certificate: Certificate | None) -> None:
        import uvicorn

        config = uvicorn.Config(
            make_application(self.world),
            log_level="critical",
            access_log=False,
            http="h11",
            loop="asyncio",
            lifespan="off",
            timeout_keep_alive=60,
            ssl_certfile=str(certificate.server) if certificate else None,
            ssl_keyfile=str(certificate.key) if certificate else None,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[listener])), name="simulator", daemon=True
        )
        self._thread.start()
        if not _wait_until(lambda: self._server.started, _START_S):
            raise UnavailableError("The simulator's server did not start.")

    def stop(self) -> None:
        """End jobs, endpoints, server and storage; returns when no process is left."""
        if self._thread is None:
            return
        self._stop_saving.set()
        self.world.runner.stop()
        self.world.tuner.stop()
        self.world.servers.stop()
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
        self._thread = None
        if self._kept is not None:
            self.world.store.save()
        self.world.storage.stop()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._kept is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _save_now_and_then(self) -> None:
        while not self._stop_saving.wait(_SAVE_EVERY_S):
            self.world.store.save()

    def fault(self, kind: str, **order: Any) -> None:
        """Order misbehavior, as POST /_simulator/faults does. Raises ValueError."""
        self.world.faults.order({"kind": kind, **order})


def _listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1. Raises UnavailableError when the port is taken."""
    # The protocol is named: asyncio turns Nagle's delay off (40 ms an answer) only for sockets that say TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        hint = "Use --port 0 for a free one."
        raise UnavailableError(f"Port {port} cannot be used: {error.strerror}.", hint=hint) from None
    return listener


def _wait_until(condition: Any, timeout_s: float) -> bool:
    waited = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return True
        waited.wait(0.02)
    return False
