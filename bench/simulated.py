"""A simulator in a process of its own, so that its memory and its time are not those of the measured."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

MAAS = str(Path(sys.executable).parent / "maas")
_START_S = 120.0


class Simulated:
    """What a benchmark tells the simulator. `environment` points the Azure packages and maas_client at it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.url = environment["MAAS_SIMULATOR_URL"]
        bundle = environment.get("SSL_CERT_FILE")
        self._admin = httpx.Client(
            base_url=self.url,
            headers={"x-simulator-key": environment["MAAS_SIMULATOR_KEY"]},
            verify=bundle if bundle else True,
            trust_env=False,
            timeout=60.0,
        )

    def tell(self, route: str, body: Any) -> Any:
        """Give an order, such as tell("jobs", {...}); returns its answer."""
        answer = self._admin.post(f"/_simulator/{route}", json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def ask(self, route: str) -> Any:
        """What it says about itself, such as ask("clock")."""
        return self._admin.get(f"/_simulator/{route}").raise_for_status().json()

    def forget(self, route: str) -> None:
        """Drop what it keeps: forget("requests"), forget("faults")."""
        self._admin.delete(f"/_simulator/{route}").raise_for_status()


@contextmanager
def simulated(*, tls: bool, speed: float) -> Iterator[Simulated]:
    """A simulator for the length of a benchmark; the environment of this process is set for it."""
    with tempfile.TemporaryDirectory(prefix="maas-bench-") as folder:
        file = Path(folder) / "azure.env"
        words = [MAAS, "simulate", "--env", str(file), "--speed", str(speed), *([] if tls else ["--http"])]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            environment = _wait_for(file, process)
            os.environ.pop("AZUREML_CURRENT_CLOUD", None)
            os.environ.update(environment)
            yield Simulated(environment)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait_for(file: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    """The variables that the simulator prints once it answers."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if file.is_file() and (text := file.read_text(encoding="utf-8")).endswith("\n"):
            return dict(word.split("=", 1) for word in shlex.split(text))
        time.sleep(0.1)
    raise SystemExit("The simulator did not start.")
