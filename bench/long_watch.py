"""A watch of one run for a day of simulated time, with trouble every simulated minute.

    python bench/long_watch.py             # 24 hours, some minutes
    python bench/long_watch.py --hours 3

The run is one of the simulator's, which runs in a process of its own. It is followed through the azureml
backend, with a clock and a sleep that move the simulator's clock on. Exits 1 unless the watch ends with the
run's true state, every line and event came exactly once and in order, and memory at the end is what it was
after the first hour (see the bounds).
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.simulated import Simulated, simulated
from maas_client.backend import Backend
from maas_client.following import follow
from maas_client.run import RunRef, RunState

HOUR_S, MINUTE_S = 3600.0, 60.0
LOG_EVERY_S, QUEUE_S, POLL_S = 120.0, 900.0, 20.0
HEAP_BOUND_KIB, RSS_BOUND_MIB = 256.0, 8.0
NAME = "long-0"
_LINE = re.compile(r"\S+ line (\d+)")
_PLACES = ("GET .*/jobs/", "GET .*/details", "GET /scripted/", "GET ", "")
_LOG = "GET /scripted/"

Order = Callable[[random.Random], Mapping[str, Any]]
TROUBLE: dict[str, Order] = {
    "429": lambda chance: {"kind": "status", "status": 429, "retry_after": chance.randrange(1, 90)},
    "500": lambda _: {"kind": "status", "status": 500},
    "502": lambda _: {"kind": "status", "status": 502},
    "503 for a while": lambda chance: {"kind": "status", "status": 503, "times": chance.randrange(5, 40)},
    "reset": lambda chance: {"kind": "reset", "times": chance.randrange(1, 4)},
    "lost reply": lambda _: {"kind": "lost_reply"},
    "cut-off body": lambda chance: {"kind": "truncate", "bytes": chance.randrange(1, 300)},
    "cut-off log": lambda chance: {"kind": "truncate", "bytes": chance.randrange(1, 300), "match": _LOG},
    "slow body": lambda _: {"kind": "slow", "seconds": 0.1, "pieces": 4},
    "expired token": lambda _: {"kind": "expired_token", "match": "GET .*/jobs/"},
    "expired signature": lambda chance: {
        "kind": "status",
        "status": 403,
        "match": _LOG,
        "times": chance.randrange(1, 3),
    },
    "strange word": lambda chance: {
        "kind": "job_status",
        "word": chance.choice(["NotResponding", "Thawing", "Queued"]),
        "seconds": 50.0,
        "match": NAME,
    },
}
"""What goes wrong, and the order for it. Where no place is named, one is drawn."""


@dataclass
class Day:
    """The time that passes: only sleeping moves it, here and there, and each minute brings trouble."""

    azure: Simulated
    chance: random.Random
    passed_s: float = 0.0
    brought: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.time)

    def clock(self) -> float:
        """Unix seconds."""
        return self.began + self.passed_s

    def monotonic(self) -> float:
        """Seconds since the begin."""
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        before, self.passed_s = self.passed_s, self.passed_s + seconds
        self.azure.tell("clock", {"move_on_s": seconds})
        for _ in range(int(self.passed_s // MINUTE_S) - int(before // MINUTE_S)):
            self._trouble()

    def _trouble(self) -> None:
        name = self.chance.choice(list(TROUBLE))
        order = {"match": self.chance.choice(_PLACES), **TROUBLE[name](self.chance)}
        if sum(self.brought.values()) % 100 == 99:
            self.azure.forget("faults")  # what never struck
        self.azure.tell("faults", order)
        self.brought[name] += 1


@dataclass
class Heard:
    """What the watch brought, counted as it came; `wrong` is the first thing that was not the next one."""

    lines: int = 0
    events: int = 0
    looks: int = 0
    wrong: str = ""

    def line(self, text: str) -> None:
        """A log line."""
        found = _LINE.fullmatch(text)
        if found is None or int(found.group(1)) != self.lines:
            self.wrong = self.wrong or f"line {self.lines} is {text!r}"
        self.lines += 1

    def event(self, event: Mapping[str, Any]) -> None:
        """An event."""
        if event.get("step") != self.events:
            self.wrong = self.wrong or f"event {self.events} is {event!r}"
        self.events += 1


@dataclass(frozen=True)
class Memory:
    """What this process holds, after garbage was collected."""

    heap_kib: float
    rss_mib: float

    @classmethod
    def now(cls) -> Memory:
        """Measured now."""
        gc.collect()
        heap, _ = tracemalloc.get_traced_memory()
        return cls(heap / 1024, psutil.Process().memory_info().rss / 2**20)


def main() -> int:
    """Watch, print, and say whether every bound holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with simulated(tls=False, speed=1.0) as azure:
        return watch(azure, asked.hours, random.Random(asked.seed))


def watch(azure: Simulated, hours: float, chance: random.Random) -> int:
    """Follow a run of so many hours to its end; 1 where a bound is missed."""
    seconds = hours * HOUR_S - QUEUE_S
    script = {"queue_s": QUEUE_S, "seconds": seconds, "log_every_s": LOG_EVERY_S, "events": True}
    azure.tell("jobs", {"prefix": "long", "fail": True, "tags": {"maas-run": NAME}, **script})
    day, heard, memory = Day(azure, chance), Heard(), dict[float, Memory]()
    tracemalloc.start()
    began, state = time.perf_counter(), RunState.UNKNOWN
    ref = RunRef("azureml", NAME)
    for sight in follow(open_jobs(day), ref, poll_s=POLL_S, sleep=day.sleep, clock=day.monotonic):
        heard.looks += 1
        state = sight.status.state
        for text in sight.lines:
            heard.line(text)
        for event in sight.events:
            heard.event(event)
        if not memory and day.passed_s >= HOUR_S:
            memory[HOUR_S] = Memory.now()
    memory[day.passed_s] = Memory.now()
    print(f"{day.passed_s / HOUR_S:.1f} h in {time.perf_counter() - began:.0f} s; {heard.looks} looks")
    print("trouble:", ", ".join(f"{count} x {name}" for name, count in sorted(day.brought.items())))
    print("struck:", azure.ask("faults")["struck"])
    return judge(state, heard, memory, int(seconds // LOG_EVERY_S))


def open_jobs(day: Day) -> Backend:
    """The azureml backend whose waiting is done by the day's clock."""
    from maas_client.backends.azureml.jobs import AzuremlJobs
    from maas_client.settings import settings
    from maas_client.transport.cloud import open_cloud
    from maas_client.transport.credential import open_credential
    from maas_client.transport.workspace import find_target
    from maas_client.workspace.session import Workspace

    found = settings()
    workspace = Workspace(
        find_target(found),
        open_credential(found),
        lambda: open_cloud(found),
        clock=day.clock,
        sleep=day.sleep,
    )
    home = Path(tempfile.gettempdir()) / "maas-bench-home"
    return AzuremlJobs(home, target=lambda: workspace.target, workspace=lambda: workspace, clock=day.clock)


def judge(state: RunState, heard: Heard, memory: Mapping[float, Memory], expected: int) -> int:
    """Print what was found beside what should be; 1 where they differ."""
    for passed_s, one in memory.items():
        held = f"{one.heap_kib:9.0f} KiB of heap, {one.rss_mib:6.1f} MiB resident"
        print(f"after {passed_s / HOUR_S:5.1f} h: {held}")
    first, *_, last = memory.values()
    heap_kib, rss_mib = last.heap_kib - first.heap_kib, last.rss_mib - first.rss_mib
    checks = {
        f"state {state} (failed)": state is RunState.FAILED,
        f"{heard.lines} lines ({expected}) {heard.wrong}".strip(): heard.lines == expected
        and not heard.wrong,
        f"{heard.events} events ({expected})": heard.events == expected,
        f"heap grew by {heap_kib:.0f} KiB (bound {HEAP_BOUND_KIB:.0f})": heap_kib <= HEAP_BOUND_KIB,
        f"resident memory grew by {rss_mib:.1f} MiB (bound {RSS_BOUND_MIB:.0f})": rss_mib <= RSS_BOUND_MIB,
    }
    for words, holds in checks.items():
        print(f"{'ok    ' if holds else 'MISSED'} {words}")
    return int(not all(checks.values()))


if __name__ == "__main__":
    sys.exit(main())
