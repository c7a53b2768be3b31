"""A job file through `backend: azureml` against a small Azure on this machine, and the bill it would write.

From submit to an answer of the endpoint, by the commands that it prints. Whatever happens, everything that
was started is stopped. Words are handed to `maas run`; --data and --job choose other files.
"""

from __future__ import annotations

import argparse
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
from types import FrameType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
MAAS = str(Path(sys.executable).with_name("maas"))
DATA = ROOT.parent / "shared/data/banking77/train.csv"
JOB = ROOT / "jobs/examples/banking77-azureml.yaml"
QUESTION = "I am still waiting for my new card. Where is it?"
SPEED = "10"
"""How fast the simulated clock runs: queues and provisioning take minutes in Azure."""
_START_S, _STOP_S = 120, 60


def main() -> int:
    """Take the job all the way; the exit code of the first command that failed, or 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="the rows: train.csv of banking77")
    parser.add_argument("--job", type=Path, default=JOB, help="the job file; it has a `deploy:`")
    parser.add_argument("words", nargs="*", help="words for maas run")
    asked = parser.parse_args()
    if not asked.data.is_file():
        where = "Get train.csv of PolyAI's banking77 (CC BY 4.0), then: make azure-demo DATA=PATH"
        print(f"There is no {asked.data}. {where}", file=sys.stderr)
        return 2
    endpoint = str(yaml.safe_load(asked.job.read_text(encoding="utf-8"))["deploy"]["name"])
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    data = f"data.train={asked.data.resolve()}"
    with tempfile.TemporaryDirectory(prefix="maas-azure-demo-") as folder, small_azure(Path(folder)) as azure:
        variables = {**azure, "MAAS_HOME": str(Path(folder) / "home")}
        return (
            maas(["run", str(asked.job), "--set", data, "--yes", *asked.words], variables)
            or maas(["chat", endpoint, "-m", QUESTION], variables)
            or maas(["endpoints", "delete", endpoint, "--yes"], variables)
        )


def _leave(number: int, _: FrameType | None) -> None:
    """End as if by Ctrl-C: what was started is stopped on the way."""
    raise SystemExit(128 + number)


@contextmanager
def small_azure(folder: Path) -> Iterator[Mapping[str, str]]:
    """`maas simulate` in a process of its own; the variables that lead to it. Prints its bill in the end."""
    print("Starting a small Azure on this machine (the first time, npm fetches Azurite) ...", file=sys.stderr)
    said, env = folder / "simulator.txt", folder / "azure.env"
    with said.open("w", encoding="utf-8") as log:
        words = [MAAS, "simulate", "--speed", SPEED, "--env", str(env), "-o", "json"]
        # a session of its own: Ctrl-C is for the command that runs, which may have something to finish
        azure = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + _START_S
        while "A small Azure listens" not in said.read_text(encoding="utf-8"):
            if azure.poll() is not None or time.monotonic() > until:
                print(said.read_text(encoding="utf-8"), file=sys.stderr)
                raise SystemExit(1)
            time.sleep(0.2)
        yield read_variables(env)
    finally:
        azure.send_signal(signal.SIGINT)
        try:
            azure.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            azure.kill()
        print(said.read_text(encoding="utf-8").partition("Ctrl-C ends it.\n")[2], end="", file=sys.stderr)


def read_variables(env: Path) -> dict[str, str]:
    """The variables of a file that a shell would read."""
    lines = (line.partition("=") for line in env.read_text(encoding="utf-8").splitlines())
    return {name: shlex.split(value)[0] if value else "" for name, _, value in lines}


def maas(words: list[str], variables: Mapping[str, str]) -> int:
    """Run a command of `maas` as a user would; its exit code. It is stopped when this script is."""
    print(f"$ maas {shlex.join(words)}", file=sys.stderr, flush=True)
    ours: dict[str, Any] = {"env": {**os.environ, **variables}, "cwd": ROOT}
    with subprocess.Popen([MAAS, *words], **ours) as command:
        try:
            return command.wait()
        except BaseException:
            command.send_signal(signal.SIGINT)
            command.wait(_STOP_S)
            raise


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
