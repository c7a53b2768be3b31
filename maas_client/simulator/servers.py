"""Processes that answer for endpoints: started when first asked, stopped with their endpoint."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from maas_client.backends.local.process import identify
from maas_client.bundled import PACKAGE, jobs_folder, model_folder
from maas_client.simulator.execution import fetch
from maas_client.simulator.node import LOGS, NODE
from maas_client.simulator.places import STAND_IN, Place, locate
from maas_client.simulator.replies import Refusal
from maas_client.simulator.routing import Call
from maas_client.simulator.world import World

_START_S = 120.0
_STOP_S = 10.0
_STATE = "server.json"
_PASSED_ON = frozenset({"content-type", "accept", "extra-parameters"})


@dataclass
class _Server:
    folder: Path
    process: subprocess.Popen[bytes]
    key: str
    url: str = ""


@dataclass(frozen=True)
class Deployed:
    """What a process is to answer for: its ARM id, the workspace's, the model's URI and its name.

    `code` is the id of a snapshot and `script` the scoring script in it; without them the bundled server
    answers.
    """

    path: str
    workspace_id: str
    model: str
    name: str
    code: str = ""
    script: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


class Servers:
    """One process for each deployment that was asked something."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: dict[str, _Server] = {}
        self._lock = threading.Lock()

    async def ask(self, call: Call, deployed: Deployed, rest: str) -> Response:
        """Pass a request on to the deployment's process, which is started if need be. Raises Refusal.

        `rest` is the path behind the endpoint's own.
        """
        server = await run_in_threadpool(self._ensure, deployed)
        headers = {key: value for key, value in call.headers.items() if key in _PASSED_ON}
        headers["authorization"] = f"Bearer {server.key}"
        client = httpx.AsyncClient(timeout=httpx.Timeout(300, connect=5), trust_env=False)
        request = client.build_request(call.method, f"{server.url}/{rest}", content=call.raw, headers=headers)
        try:
            answer = await client.send(request, stream=True)
        except httpx.HTTPError as error:
            await client.aclose()
            raise Refusal(502, "BadGateway", f"The deployment did not answer: {error}.", inner=None) from None

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_bytes():
                    yield chunk
            finally:
                await answer.aclose()
                await client.aclose()

        kind = answer.headers.get("content-type", "application/json")
        return StreamingResponse(body(), answer.status_code, media_type=kind)

    def _ensure(self, deployed: Deployed) -> _Server:
        path = deployed.path.lower()
        with self._lock:
            server = self._running.get(path)
            if server is None or server.process.poll() is not None:
                server = self._running[path] = self._start(deployed)
        _await_ready(server)
        return server

    def _start(self, deployed: Deployed) -> _Server:
        folder = self._world.folder / "servers" / secrets.token_hex(6)
        weights = target = folder / "model" / self._base_name(deployed)
        target.mkdir(parents=True)
        if deployed.model:
            weights = fetch(self._world, deployed.workspace_id, deployed.model, target)
        key = secrets.token_urlsafe(16)
        variables = {**deployed.environment, "MAAS_ENDPOINT_KEY": key, "PYTHONUNBUFFERED": "1"}
        state = folder / _STATE
        if deployed.script:
            place = folder / "code"
            place.mkdir()
            fetch(self._world, deployed.workspace_id, deployed.code, place)
            variables |= {"AZUREML_MODEL_DIR": str(folder / "model"), "AZUREML_ENTRY_SCRIPT": deployed.script}
            variables["PYTHONPATH"] = str(PACKAGE.parent)
            words = [sys.executable, "-m", "maas_client.simulator.scoring_host"]
            words += [str(place / deployed.script), str(state)]
        else:
            place = jobs_folder()
            words = _bundled_server(weights, deployed.name, state)
        return _Server(folder, _launch(folder, words, place, variables), key)

    def _base_name(self, deployed: Deployed) -> str:
        """The model's folder below AZUREML_MODEL_DIR: named as the folder that was registered."""
        place = locate(self._world, deployed.workspace_id, deployed.model) if deployed.model else None
        path = place.path if isinstance(place, Place) else ""
        return path.rstrip("/").rpartition("/")[2] or "model"

    def log(self, path: str) -> str:
        """What the deployment's process has written."""
        server = self._running.get(path.lower())
        file = server.folder / LOGS / "std_log.txt" if server else None
        return file.read_text(encoding="utf-8", errors="replace") if file and file.is_file() else ""

    def end(self, path: str) -> None:
        """End the process of a deployment, if it has one."""
        server = self._running.pop(path.lower(), None)
        if server is not None:
            _end(server)

    def stop(self) -> None:
        """End every process."""
        for path in list(self._running):
            self.end(path)


def _bundled_server(weights: Path, name: str, state: Path) -> list[str]:
    """serve.py on the first folder that holds weights or an adapter."""
    for file in ("adapter_config.json", "config.json"):
        found = sorted(weights.rglob(file), key=lambda path: len(path.parts))
        found = [
            each for each in found if (each.parent / "config.json").exists() or file.startswith("adapter")
        ]
        if found and _has_weights(found[0].parent):
            words = [sys.executable, "serve.py", "--model", str(found[0].parent), "--name", name]
            if file.startswith("adapter"):
                words += ["--base", str(model_folder(STAND_IN))]
            return [*words, "--port", "0", "--state", str(state)]
    raise Refusal(424, "FailedDependency", "The model holds neither weights nor an adapter.", inner=None)


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _launch(
    folder: Path, words: list[str], place: Path, variables: dict[str, str]
) -> subprocess.Popen[bytes]:
    me = identify(os.getpid())
    content = {
        "command": "exec " + shlex.join(words),
        "code": str(place),
        "environment": dict(variables),
        "distribution": "",
        "per_node": 1,
        "processes": 1,
        "port": 0,
        "owner": vars(me) if me else {},
    }
    (folder / NODE).touch(mode=0o600)
    (folder / NODE).write_text(json.dumps(content), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "maas_client.simulator.node", str(folder)],
        cwd=PACKAGE.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _await_ready(server: _Server) -> None:
    """Wait until the process says where it listens. Raises Refusal with its last words."""
    deadline = time.monotonic() + _START_S
    while not server.url:
        with suppress(FileNotFoundError):
            server.url = str(json.loads((server.folder / _STATE).read_text(encoding="utf-8"))["url"])
            return
        if server.process.poll() is not None or time.monotonic() > deadline:
            file = server.folder / LOGS / "std_log.txt"
            said = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
            words = said.splitlines()[-1] if said else "it said nothing"
            raise Refusal(502, "BadGateway", f"The deployment's process did not start: {words}", inner=None)
        time.sleep(0.05)


def _end(server: _Server) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGTERM)
    try:
        server.process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
