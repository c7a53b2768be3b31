"""Processes by evidence: who one is, whether it lives, how it is started detached and how stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from maas_client.backends.local.wire import ProcessId
from maas_client.errors import ServiceError, UnavailableError

_PACKAGE_PARENT = Path(__file__).resolve().parents[3]
_SUPERVISOR = "maas_client.backends.local.supervisor"
_START_TIMEOUT_S = 60.0
_LOOK_S = 0.02
_SECRET = re.compile(
    r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|SAS|CREDENTIALS?|CONNECTION_STRING)$", re.IGNORECASE
)
_NEEDED_SECRETS = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}


@cache
def boot_name() -> str:
    """Which life of the machine this is: another value after a restart."""
    if sys.platform == "linux":
        with suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    import psutil

    return str(int(psutil.boot_time()))


def identify(pid: int) -> ProcessId | None:
    """The process that has this number now; None when there is none, or only one to be reaped."""
    if sys.platform == "linux":
        try:
            facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if facts[0] in "ZX" else ProcessId(pid, float(facts[19]), boot_name())
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessId(pid, process.create_time(), boot_name())
    except psutil.Error:
        return None


def is_alive(process: ProcessId | None) -> bool:
    """True while exactly this process lives; a later one with its number is not it."""
    if process is None:
        return False
    now = identify(process.pid)
    return now is not None and now.boot == process.boot and abs(now.birth - process.birth) < 1


def children(pid: int) -> list[int]:
    """The direct children of a process, unreaped dead ones included. Linux only; empty elsewhere."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def ask_to_stop(process: ProcessId | None) -> bool:
    """Send SIGTERM to exactly this process; False when it is gone."""
    return _send(process, signal.SIGTERM, group=False)


def kill_group(process: ProcessId | None) -> bool:
    """Kill this process and its group; False when it is gone."""
    return _send(process, signal.SIGKILL, group=True)


def _send(process: ProcessId | None, number: signal.Signals, *, group: bool) -> bool:
    if process is None or not is_alive(process):
        return False
    with suppress(ProcessLookupError):
        if group and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
        return True
    return False


def wait_gone(processes: tuple[ProcessId | None, ...], timeout_s: float) -> bool:
    """Wait until none of them lives; False when `timeout_s` was not enough."""
    deadline = time.monotonic() + timeout_s
    while any(is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def supervise(folder: Path, *, secrets: Mapping[str, str] | None = None) -> None:
    """Start the command of `folder`/launch.json in a process that outlives this one; returns when it runs.

    `secrets` are added to the environment. A command that runs or ran is left alone. Raises ServiceError.
    """
    environment = {**_passed_on(os.environ), **(secrets or {})}
    try:
        starter = subprocess.Popen(
            [sys.executable, "-m", _SUPERVISOR, str(folder)],
            cwd=_PACKAGE_PARENT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        words = error.strerror or str(error)
        hint = "Close other programs and try again."
        raise UnavailableError(
            f"No process can be started: {words}.", operation="start", hint=hint
        ) from error
    with starter:
        try:
            _, said = starter.communicate(timeout=_START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            starter.kill()
            hint = "The machine may be busy; try again in a moment."
            raise UnavailableError(
                f"The process for {folder} did not start.", operation="start", hint=hint
            ) from None
    if starter.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {starter.returncode}"]
        hint = "maas doctor says what this machine lacks."
        raise ServiceError(f"{folder.name} could not be started: {last[0]}", operation="start", hint=hint)


def _passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the environment a command gets: all but secrets, save those for downloading models."""
    return {
        name: value
        for name, value in environment.items()
        if name in _NEEDED_SECRETS or not _SECRET.search(name)
    }
