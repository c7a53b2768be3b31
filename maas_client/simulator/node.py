"""One simulated cluster: runs a job's command, as many times side by side as its distribution asks.

    python -m maas_client.simulator.node FOLDER

FOLDER holds node.json. Each process writes into FOLDER/user_logs. The exit code is that of the first process
that failed. When the simulator that ordered this is gone, so are the processes, within a second.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from maas_client.backends.local.process import is_alive
from maas_client.backends.local.wire import ProcessId

NODE = "node.json"
LOGS = "user_logs"
_LOOK_S = 0.1
_OWNER_LOOK_S = 1.0
_ORPHANED = 137


def main() -> int:
    """Run what node.json orders; returns the exit code."""
    folder = Path(sys.argv[1])
    order = json.loads((folder / NODE).read_text(encoding="utf-8"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _wait_for_the_processes)
    (folder / LOGS).mkdir(exist_ok=True)
    processes = [_start(folder, order, rank) for rank in range(order["processes"])]
    return _watch(processes, ProcessId(**order["owner"]))


def _wait_for_the_processes(_number: int, _frame: FrameType | None) -> None:
    """The whole group got the signal; this process stays until the others have ended."""


def _start(folder: Path, order: dict[str, Any], rank: int) -> subprocess.Popen[bytes]:
    alone = order["processes"] == 1
    name = "std_log.txt" if alone else f"std_log_process_{rank:02}.txt"
    environment = {**os.environ, **order["environment"]}
    if order["distribution"]:
        environment |= _rank_variables(order, rank)
    with (folder / LOGS / name).open("ab") as log:
        return subprocess.Popen(
            ["bash", "-c", order["command"]],
            cwd=order["code"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _rank_variables(order: dict[str, Any], rank: int) -> dict[str, str]:
    """What the service sets for each process of a distributed job."""
    local, node = rank % order["per_node"], rank // order["per_node"]
    if order["distribution"].lower() == "mpi":
        return {
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": str(order["processes"]),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
        }
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(order["port"]),
        "WORLD_SIZE": str(order["processes"]),
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "NODE_RANK": str(node),
    }


def _watch(processes: list[subprocess.Popen[bytes]], owner: ProcessId) -> int:
    looked = time.monotonic()
    while True:
        codes = [process.poll() for process in processes]
        if failed := [code for code in codes if code]:
            _end(processes)
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if all(code == 0 for code in codes):
            return 0
        if time.monotonic() - looked > _OWNER_LOOK_S:
            looked = time.monotonic()
            if not is_alive(owner):
                _end(processes)
                return _ORPHANED
        time.sleep(_LOOK_S)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop what still runs: a distributed job is lost when one of its processes is."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + 5
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        process.kill()


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
