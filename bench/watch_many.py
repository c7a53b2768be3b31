"""A look at 1,000 runs, beside a loop of azure-ai-ml's jobs.get over the same ones, in turns, in one run.

    python bench/watch_many.py             # three rounds, a minute
    python bench/watch_many.py --runs 200 --rounds 1

Both sides ask the same simulator over TLS. It runs in a process of its own, so seconds and CPU are those of
the asking side alone. `ours` is Backend.statuses of the azureml backend, as `maas runs list` and the
dashboard call it. Exits 1 where it takes more than 50 requests for 1,000 runs, more than 1/20 of the seconds
or more than 1/10 of the CPU seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.simulated import Simulated, simulated

REQUESTS_BOUND, TIME_BOUND, CPU_BOUND = 50, 1 / 20, 1 / 10
RUN_TAG = "maas-run"


@dataclass(frozen=True)
class Cost:
    """What one look at all runs took."""

    seconds: float
    cpu_s: float
    requests: int


def main() -> int:
    """Measure, print, and say whether every bound holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with simulated(tls=True, speed=60.0) as azure:
        names = plant(azure, asked.runs)
        sides = {"ours": open_ours(names), "theirs": open_theirs(names)}
        costs: dict[str, list[Cost]] = {side: [] for side in sides}
        for number in range(asked.rounds):
            for side in sorted(sides, reverse=bool(number % 2)):
                costs[side].append(measure(azure, sides[side], len(names)))
                print(f"round {number + 1}, {side}: {costs[side][-1]}", flush=True)
    return judge(costs, len(names))


def plant(azure: Simulated, count: int) -> list[str]:
    """Runs of all kinds: most go on, some wait, some have ended. Returns their ids."""
    names = []
    for number in range(count):
        kind = {"queue_s": 1e7} if number % 10 == 0 else {"queue_s": 0.0}
        order = {"prefix": f"run-{number}", "seconds": 1e7, **kind, "tags": {RUN_TAG: f"run-{number}-0"}}
        names += azure.tell("jobs", order)["jobs"]
    return names


def open_ours(names: Sequence[str]) -> Callable[[], int]:
    """A look at the runs by the backend; gives how many were seen."""
    from maas_client.backends import open_platform
    from maas_client.run import RunRef

    jobs = open_platform("azureml", home=Path(tempfile.gettempdir()) / "maas-bench-home").jobs
    refs = [RunRef("azureml", name) for name in names]
    assert jobs.status(refs[0]).state  # signs in and finds the workspace
    return lambda: len(jobs.statuses(refs))


def open_theirs(names: Sequence[str]) -> Callable[[], int]:
    """The loop that azure-ai-ml offers for it."""
    import os

    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    client: Any = MLClient(
        DefaultAzureCredential(),
        os.environ["AZURE_SUBSCRIPTION_ID"],
        os.environ["AZURE_RESOURCE_GROUP"],
        os.environ["AZUREML_WORKSPACE_NAME"],
    )
    assert client.jobs.get(names[0]).status
    return lambda: sum(1 for name in names if client.jobs.get(name).status)


def measure(azure: Simulated, look: Callable[[], int], count: int) -> Cost:
    """One look at all runs."""
    azure.forget("requests")
    began, cpu_began = time.perf_counter(), time.process_time()
    seen = look()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    if seen != count:
        raise SystemExit(f"{seen} of {count} runs were seen.")
    return Cost(seconds, cpu_s, len(azure.ask("requests")["requests"]))


def judge(costs: dict[str, list[Cost]], runs: int) -> int:
    """Print medians and ratios; 1 where a bound is missed."""
    middle = {
        side: Cost(
            statistics.median(one.seconds for one in found),
            statistics.median(one.cpu_s for one in found),
            max(one.requests for one in found),
        )
        for side, found in costs.items()
    }
    for side, cost in middle.items():
        print(f"{side:>7}: {cost.seconds:8.3f} s  {cost.cpu_s:8.3f} s of CPU  {cost.requests:5d} requests")
    ours, theirs = middle["ours"], middle["theirs"]
    bounds = {
        "requests": (ours.requests, REQUESTS_BOUND * max(1.0, runs / 1000)),
        "time ratio": (ours.seconds / theirs.seconds, TIME_BOUND),
        "CPU ratio": (ours.cpu_s / theirs.cpu_s, CPU_BOUND),
    }
    for name, (value, bound) in bounds.items():
        print(f"{name:>10}: {value:.4g} (bound {bound:.4g}{', missed' if value > bound else ''})")
    return int(any(value > bound for value, bound in bounds.values()))


if __name__ == "__main__":
    sys.exit(main())
