"""Record the journeys: `python -m tests.recordings.record [NAME...]`, with --live against the Azure of .env.

Each cassette is played right after it was recorded. It is kept when that goes well and nothing in it looks
private.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from maas_client.settings import Settings, settings
from maas_client.simulator import Simulator
from maas_client.transport.cloud import open_cloud
from maas_client.transport.credential import open_credential
from tests.recordings.journeys import JOURNEYS, Journey
from tests.recordings.play import CERTIFICATES, environment, play
from tests.recordings.provenance import write_entry
from tests.recordings.scenes import Scene, Where, own_values, simulated_cloud
from tests.recordings.scrubbing import Scrubber, leaks
from tests.recordings.tape import recording

CASSETTES = Path(__file__).parent / "cassettes"
PACKAGES = (
    *("azure-ai-ml", "azure-identity", "azure-storage-blob", "azure-ai-inference", "openai", "httpx"),
    "vcrpy",
)


def main() -> None:
    """Record what is named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.recordings.record", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(JOURNEYS))
    parser.add_argument("--live", action="store_true", help="against the Azure that .env names; this bills")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="live: real seconds that a second of waiting takes"
    )
    parser.add_argument("--into", type=Path, default=CASSETTES, help="the folder of the cassettes")
    words = parser.parse_args()
    fit = [name for name, each in JOURNEYS.items() if each.is_live or not words.live]
    if unfit := [name for name in words.names if name not in fit]:
        parser.error(f"{unfit[0]} is no journey that can be recorded so; there are {', '.join(fit)}.")
    for name in words.names or fit:
        record(name, words.into, live=words.live, pace=words.pace)


def record(name: str, into: Path, *, live: bool, pace: float) -> None:
    """Record one journey, play it, and keep it with where it came from."""
    journey, into = JOURNEYS[name], into.absolute()
    path = into / f"{name}{'.live' if live else ''}.yaml"
    fresh = path.with_suffix(".new")
    print(f"{path.name}: recording", file=sys.stderr, flush=True)
    with real_azure(pace) if live else simulated_azure(name) as where:
        travel(journey, where, fresh)
        private = [*where.names(), *where.secrets()]
    text = fresh.read_text(encoding="utf-8")
    if found := leaks(text, private):
        words = f"{fresh} is not kept: {len(found)} things in it look private, one begins with {found[0][:5]}"
        sys.exit(f"{words}. Teach it to tests/recordings/scrubbing.py, then record again.")
    play(journey, fresh)
    fresh.replace(path)
    if into == CASSETTES:
        packages = {package: importlib.metadata.version(package) for package in PACKAGES}
        write_entry(path, source="live" if live else "simulator", text=text, packages=packages)
    print(f"{path.name}: {text.count('- request:')} requests, {len(text) >> 10} KiB", file=sys.stderr)


def travel(journey: Journey, where: Where, path: Path) -> None:
    """Take a journey where it can be taken, and write down what is said."""
    began = int(time.time())
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # azure-ai-ml tells of a git repository
        stage = journey.prepare(Scene(where, Path(folder), began))
        scrubber = Scrubber(where.names(), where.secrets())
        with recording(path, own_values(stage.plan), scrubber, began=began, **where.about()):
            journey.go(stage)


@contextmanager
def simulated_azure(name: str) -> Iterator[Where]:
    """A simulator in a process of its own, for what it asks itself belongs into no cassette; and this process
    pointed at it, as far as packages need that.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_simulate, args=(theirs, name))
    process.start()
    try:
        variables = ours.recv()
        needed = ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "NO_PROXY", "no_proxy", *CERTIFICATES)
        with environment(**{name: variables[name] for name in needed}):
            named = {name.lower(): variables[name] for name in variables if name.startswith("AZURE")}
            found = Settings(_env_file=None, **named)
            credential = open_credential(found)
            url = variables["MAAS_SIMULATOR_URL"]
            yield Where(simulated_cloud(url), found, lambda: credential.source, pace=JOURNEYS[name].pace)
    finally:
        ours.send("stop")
        process.join(60)


def _simulate(pipe: Connection, name: str) -> None:
    """Be a simulator until something is said."""
    with Simulator(speed=60, **JOURNEYS[name].simulator) as azure:
        for fault in JOURNEYS[name].faults:
            azure.world.faults.order(dict(fault))
        pipe.send(dict(azure.environment))
        pipe.recv()


@contextmanager
def real_azure(pace: float) -> Iterator[Where]:
    """The Azure of the environment and of .env."""
    found = settings()
    credential = open_credential(found)
    yield Where(open_cloud(found), found, lambda: credential.source, pace=pace)


if __name__ == "__main__":
    main()
