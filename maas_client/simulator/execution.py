"""A job's command, really run: code and inputs fetched, outputs and logs written to blobs as they come."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maas_client.backends.local.process import (
    ask_to_stop,
    identify,
    is_alive,
    kill_group,
    supervise,
    wait_gone,
)
from maas_client.backends.local.wire import EXIT, PROCESS, Exit, Launch, Processes
from maas_client.bundled import PACKAGE
from maas_client.errors import UnavailableError
from maas_client.simulator.node import LOGS, NODE, free_port
from maas_client.simulator.places import Place, locate
from maas_client.simulator.replies import user_error
from maas_client.simulator.storage import ARTIFACT_CONTAINER
from maas_client.simulator.world import World

_BINDING = re.compile(r"\$\{\{\s*(inputs|outputs)\.([\w.-]+)\s*\}\}")
_GRACE_S = 10.0
_LAST_WORDS_S = 0.2


@dataclass(frozen=True)
class Order:
    """What is to run. `inputs` and `outputs` are those of the job; `code` is a local folder."""

    command: str
    code: Path
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    distribution: str = ""
    nodes: int = 1
    per_node: int = 1


class Execution:
    """One attempt of one job, in a folder of its own."""

    def __init__(self, world: World, workspace_id: str, job: str, attempt: int) -> None:
        self.world = world
        self.workspace_id = workspace_id
        self.job = job
        self.folder = world.folder / "jobs" / f"{job}.{attempt}"
        self._sent: dict[str, tuple[int, float]] = {}
        self._logged: dict[str, int] = {}
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def fetch_code(self, code_id: str | None) -> Path:
        """The snapshot in a folder; an empty folder where the job has none."""
        folder = self.folder / "code"
        folder.mkdir()
        if code_id:
            self._fetch(code_id, folder)
        return folder

    def _fetch(self, uri: str, to: Path) -> Path:
        return fetch(self.world, self.workspace_id, uri, to)

    def launch(self, order: Order) -> None:
        """Start the command; returns when it runs. Raises Refusal for inputs that are not there."""
        places = {f"outputs.{name}": self._open_output(name, each) for name, each in order.outputs.items()}
        for name, each in order.inputs.items():
            places[f"inputs.{name}"] = self._input(name, each)
        command = _BINDING.sub(lambda match: _place(places, match), order.command)
        variables = {
            f"AZURE_ML_{'INPUT' if key.startswith('inputs') else 'OUTPUT'}_{key.partition('.')[2]}": value
            for key, value in places.items()
        }
        me = identify(os.getpid())
        if me is None:
            raise UnavailableError("The process table cannot be read.", operation="start")
        content = {
            "command": command,
            "code": str(order.code),
            "environment": {**self._environment(), **variables, **order.environment},
            "distribution": order.distribution,
            "per_node": order.per_node,
            "processes": order.nodes * order.per_node,
            "port": free_port(),
            "owner": vars(me),
        }
        (self.folder / NODE).write_text(json.dumps(content), encoding="utf-8")
        (self.folder / NODE).chmod(0o600)
        words = [sys.executable, "-m", "maas_client.simulator.node", str(self.folder)]
        Launch(words, str(PACKAGE.parent), "node.txt", {}, grace_s=_GRACE_S).write(
            self.folder / "launch.json"
        )
        supervise(self.folder)

    def _input(self, name: str, each: Mapping[str, Any]) -> str:
        if each.get("jobInputType") == "literal":
            return str(each.get("value", ""))
        to = self.folder / "inputs" / name
        if each.get("jobInputType") in {"uri_folder", "mltable", "mlflow_model", "triton_model"}:
            to.mkdir(parents=True)
        return str(self._fetch(each["uri"], to))

    def _open_output(self, name: str, each: Mapping[str, Any]) -> str:
        """The folder of an output, with what is at its place already (it is a mount)."""
        folder = self.folder / "outputs" / name
        folder.mkdir(parents=True)
        place = self._place_of(each)
        for path in self.world.storage.download(place.container, place.path.rstrip("/") + "/", folder):
            self._sent[f"{name}/{path.relative_to(folder.resolve())}"] = _stamp(path)
        return str(folder)

    def _place_of(self, output: Mapping[str, Any]) -> Place:
        place = locate(self.world, self.workspace_id, output["uri"])
        if isinstance(place, Path):
            raise user_error(f"{output['uri']} cannot be written.", "BadArgument")
        return place

    def _environment(self) -> dict[str, str]:
        """What the service sets in every job."""
        names = self.world.names
        python = str(Path(sys.executable).parent)
        return {
            "PATH": f"{python}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "AZUREML_RUN_ID": self.job,
            "AZUREML_ARM_SUBSCRIPTION": names.subscription,
            "AZUREML_ARM_RESOURCEGROUP": names.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": self.workspace_id.rpartition("/")[2],
            "MLFLOW_RUN_ID": self.job,
        }

    def is_over(self) -> bool:
        """True when the command has ended and that is written down, or nobody is left to do so."""
        if Exit.read(self.folder / EXIT) is not None:
            return True
        if any(is_alive(each) for each in self._processes()):
            return False
        time.sleep(_LAST_WORDS_S)
        return True

    def exit_code(self) -> int:
        """How the command ended; 137 where nobody could say."""
        ended = Exit.read(self.folder / EXIT)
        return 137 if ended is None else ended.exit_code

    def _processes(self) -> tuple[Any, ...]:
        found = Processes.read(self.folder / PROCESS)
        return found.both if found else ()

    def stop(self, *, at_once: bool = False) -> None:
        """End the command: asked first, killed after a grace; at once when its nodes are taken away."""
        found = Processes.read(self.folder / PROCESS)
        if found is None:
            return
        if at_once:
            kill_group(found.child)
        else:
            ask_to_stop(found.supervisor)
        if not wait_gone(found.both, _GRACE_S + 5):
            kill_group(found.supervisor)

    def pump(self, log_blobs: dict[str, str]) -> None:
        """Append what is new in the logs to their blobs; notes the blob of each log."""
        for path in sorted((self.folder / LOGS).glob("*")):
            name = f"{LOGS}/{path.name}"
            with path.open("rb") as file:
                file.seek(self._logged.get(name, 0))
                data = file.read()
            blob = f"ExperimentRun/dcid.{self.job}/{name}"
            if data or name not in log_blobs:
                self.world.storage.append(ARTIFACT_CONTAINER, blob, data)
                log_blobs[name] = blob
                self._logged[name] = self._logged.get(name, 0) + len(data)

    def upload(self, outputs: Mapping[str, Any]) -> None:
        """Write changed files of the outputs to their blobs; remove those whose files are gone: a mount."""
        for name, each in outputs.items():
            folder = self.folder / "outputs" / name
            place = self._place_of(each)
            here = set()
            for path in sorted(folder.rglob("*")):
                key = f"{name}/{path.relative_to(folder)}"
                with suppress(FileNotFoundError):  # renamed or removed by the command just now
                    if path.is_file():
                        here.add(key)
                        self._send(path, key, place.container, _blob(place, key))
            for key in [key for key in self._sent if key.startswith(f"{name}/") and key not in here]:
                self.world.storage.delete(place.container, _blob(place, key))
                del self._sent[key]

    def _send(self, path: Path, key: str, container: str, blob: str) -> None:
        """Write a file that changed since it was written last. Raises FileNotFoundError."""
        stamp = _stamp(path)
        if self._sent.get(key) != stamp:
            self.world.storage.upload(container, blob, path)
            self._sent[key] = stamp

    def clean(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fetch(world: World, workspace_id: str, uri: str, to: Path) -> Path:
    """Bring what a URI names to this machine; a single file keeps its name. Raises Refusal."""
    place = locate(world, workspace_id, uri)
    if isinstance(place, Path):
        return place
    name = place.path.rstrip("/").rpartition("/")[2]
    target = to / name if not to.is_dir() and name else to
    written = world.storage.download(place.container, place.path, target)
    if not written:
        raise user_error(f"The data at {uri} was not found.", "NotFoundError")
    return written[0] if written == [target] else target


def _place(places: Mapping[str, str], match: re.Match[str]) -> str:
    key = f"{match[1]}.{match[2]}"
    if key not in places:
        raise user_error(f"The command uses {match[0]}, which the job does not have.", "BadArgument")
    return places[key]


def _blob(place: Place, key: str) -> str:
    """The blob of an output's file; its key begins with the output's name."""
    return f"{place.path.strip('/')}/{Path(key.partition('/')[2]).as_posix()}"


def _stamp(path: Path) -> tuple[int, float]:
    found = path.stat()
    return found.st_size, found.st_mtime
