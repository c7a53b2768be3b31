"""Requests that submitting an unchanged job takes, beside azure-ai-ml's own for an equal job, in one run.

    python bench/submit_roundtrips.py

Both submit the bundled scripts with the same data, config and model to `maas simulate`'s Azure, twice. The
second time, with another name only and by a client opened anew, is counted on the wire: every request that
httpx or urllib3 sends to Azure Resource Manager or to blob storage. Left out on both sides: signing in,
and asking which cloud it is, which azure-ai-ml repeats where ARM_CLOUD_METADATA_URL is set. Exits with 1 when
ours sends a blob, or more requests than azure-ai-ml.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from maas_client.simulator import Simulator  # noqa: E402  from this checkout
from maas_client.simulator.world import Timing  # noqa: E402

SIZE = "Standard_DS3_v2"
_NOT_COUNTED = re.compile(r"/metadata/endpoints|/msi/token|/discovery")
_BY_HTTPX = re.compile(r"HTTP Request: (\w+) (\S+)")
_BY_URLLIB3 = re.compile(r'(https?://[^ ]+) "(\w+) (\S+)')


class Wire(logging.Handler):
    """Counts what the HTTP libraries log of each request."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note a request as METHOD and URL."""
        text = record.getMessage()
        if found := _BY_HTTPX.search(text):
            self.seen.append(f"{found[1]} {found[2]}")
        elif found := _BY_URLLIB3.search(text):
            self.seen.append(f"{found[2]} {found[1]}{found[3]}")

    def counted(self) -> list[str]:
        """The requests that count, without queries."""
        return [each.partition("?")[0] for each in self.seen if not _NOT_COUNTED.search(each)]


@contextmanager
def watched() -> Iterator[Wire]:
    """Count while the block runs."""
    wire = Wire()
    loggers = [logging.getLogger(name) for name in ("httpx", "urllib3.connectionpool")]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(wire)
    try:
        yield wire
    finally:
        for logger in loggers:
            logger.removeHandler(wire)


def main() -> int:
    """Submit four times, print both counts and their ratio, and say whether ours is within bounds."""
    # Jobs wait for machines for ever: nothing trains here.
    with Simulator(speed=60, timing=Timing(queue_s=1e9)) as azure, tempfile.TemporaryDirectory() as scratch:
        os.environ.pop("AZUREML_CURRENT_CLOUD", None)
        os.environ.update(azure.environment)
        os.chdir(scratch)
        ours, theirs = _ours(Path(scratch)), _theirs(Path(scratch))
        results = {"maas_client": _second(ours), "azure-ai-ml": _second(theirs)}
    for name, (requests, seconds) in results.items():
        kinds = Counter(_kind(each, azure.url) for each in requests)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        print(f"{name:12} {len(requests):3} requests in {seconds:.2f} s: {told}")
    sent = [each for each in results["maas_client"][0] if _kind(each, azure.url) == "blob sent"]
    ratio = len(results["maas_client"][0]) / len(results["azure-ai-ml"][0])
    print(f"ratio {ratio:.2f} (bound 1.00); blobs sent by maas_client: {len(sent)} (bound 0)")
    return int(ratio > 1 or bool(sent))


def _second(submit: Callable[[int], None]) -> tuple[list[str], float]:
    """The requests and seconds of the second submission."""
    submit(1)
    with watched() as wire:
        began = time.perf_counter()
        submit(2)
        return wire.counted(), time.perf_counter() - began


def _kind(request: str, arm: str) -> str:
    method, _, url = request.partition(" ")
    if url.startswith(arm):
        return "to ARM"
    return "blob sent" if method == "PUT" else "blob looked at"


def _ours(scratch: Path) -> Callable[[int], None]:
    from maas_client.backends.azureml import open_here
    from maas_client.spec import JobSpec

    spec = JobSpec.model_validate(
        {
            "name": "ours",
            "task": "classification",
            "model": "tiny-phi3",
            "backend": "azureml",
            "data": {"train": str(_rows(scratch))},
            "compute": {"size": SIZE},
        }
    )

    def submit(number: int) -> None:
        jobs = open_here(scratch / "home", time.time).jobs
        print(f"submitted {jobs.submit(replace(jobs.plan(spec), number=number))}")

    return submit


def _theirs(scratch: Path) -> Callable[[int], None]:
    """The job that somebody would write with the package alone: local inputs, a named environment."""
    from azure.ai.ml import Input, MLClient, Output, command
    from azure.ai.ml.entities import Environment
    from azure.identity import DefaultAzureCredential

    from maas_client.backends.azureml.environment import bundled_environment
    from maas_client.bundled import jobs_folder, model_folder

    (scratch / "config.json").write_text(json.dumps({"task": "classification"}))
    bundled = bundled_environment("training")
    names = [os.environ[f"AZURE_{name}"] for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP")]
    names.append(os.environ["AZUREML_WORKSPACE_NAME"])

    def submit(number: int) -> None:
        client = MLClient(DefaultAzureCredential(), *names, show_progress=False)
        inputs: dict[str, Any] = {
            "config": Input(type="uri_file", path=str(scratch / "config.json")),
            "train": Input(type="uri_file", path=str(_rows(scratch))),
            "model": Input(type="uri_folder", path=str(model_folder("tiny-phi3"))),
        }
        job = command(
            name=f"theirs-{number}",
            command="python train.py --config ${{inputs.config}} --train ${{inputs.train}} "
            "--model ${{inputs.model}} --output ${{outputs.run}}",
            code=str(jobs_folder()),
            environment=Environment(
                name="theirs", version="1", image=bundled.image, conda_file=dict(bundled.conda)
            ),
            inputs=inputs,
            outputs={"run": Output(type="uri_folder", mode="rw_mount")},
            instance_type=SIZE,
        )
        print(f"submitted {client.jobs.create_or_update(job).name}")

    return submit


def _rows(scratch: Path) -> Path:
    path = scratch / "rows.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n' * 20)
    return path


if __name__ == "__main__":
    sys.exit(main())
