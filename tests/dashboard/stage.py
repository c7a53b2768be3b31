"""A platform whose runs do what a test says, with a project. As a script: the dashboard on such a project."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from maas_client.backend import Platform
from maas_client.endpoint import EndpointAccess, EndpointRef, EndpointStatus
from maas_client.errors import ConflictError, NotFoundError, UnavailableError
from maas_client.ledger import RunRecord
from maas_client.model import ModelRef
from maas_client.plan import Plan
from maas_client.project import Project
from maas_client.run import Artifact, Event, LogPage, MetricPage, RunRef, RunState, RunStatus
from maas_client.spec import DeploySpec, JobSpec

NOW = 1_800_000_000.0
TARGET = "workspace w in g, subscription s"


@dataclass
class Part:
    """One run of the play. `failures` is how many of the next calls find the service away."""

    status: RunStatus
    lines: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    failures: int = 0
    calls: list[str] = field(default_factory=list)

    def call(self, name: str) -> None:
        self.calls.append(name)
        if self.failures:
            self.failures -= 1
            raise UnavailableError("The service does not answer.", hint="Try again.")

    def becomes(self, state: RunState) -> None:
        self.status = replace(self.status, state=state, native_state=state.value)

    def page(self, content: Sequence[object], after: str | None, size: int) -> tuple[int, int, str | None]:
        start = int(after or 0)
        end = min(len(content), start + size)
        ended = self.status.state.is_final and end == len(content)
        return start, end, None if ended else str(end)


class Stuck(Part):
    """A run whose service takes for ever."""

    def call(self, name: str) -> None:
        time.sleep(3600)


@dataclass
class Play:
    """A Backend. Pages hold `page_size` items; cursors count them."""

    name: str = "local"
    parts: dict[str, Part] = field(default_factory=dict)
    page_size: int = 100
    rounds: list[int] = field(default_factory=list)
    """How many runs each look at many was about."""

    def part(self, ref: RunRef) -> Part:
        if ref.id not in self.parts:
            raise NotFoundError(f"There is no run {ref}.", hint="maas runs list shows all.")
        return self.parts[ref.id]

    def plan(self, spec: JobSpec) -> Plan:
        raise ConflictError("Nothing is planned here.")

    def submit(self, plan: Plan) -> RunRef:
        raise ConflictError("Nothing is submitted here.")

    def status(self, ref: RunRef) -> RunStatus:
        self.part(ref).call("status")
        return self.part(ref).status

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        self.rounds.append(len(refs))
        for part in self.parts.values():
            if part.failures:
                part.call("statuses")
        return {ref: self.parts[ref.id].status for ref in refs if ref.id in self.parts}

    def logs(self, ref: RunRef, *, after: str | None) -> LogPage:
        part = self.part(ref)
        part.call("logs")
        start, end, following = part.page(part.lines, after, self.page_size)
        return LogPage(tuple(part.lines[start:end]), following)

    def metrics(self, ref: RunRef, *, after: str | None) -> MetricPage:
        part = self.part(ref)
        part.call("metrics")
        start, end, following = part.page(part.events, after, self.page_size)
        return MetricPage(tuple(part.events[start:end]), following)

    def cancel(self, ref: RunRef) -> None:
        self.part(ref).call("cancel")
        self.part(ref).becomes(RunState.CANCELED)

    def resume(self, ref: RunRef) -> None:
        self.part(ref).call("resume")
        self.part(ref).becomes(RunState.RUNNING)

    def artifact(self, ref: RunRef) -> Artifact:
        raise ConflictError(f"Run {ref.id} left nothing.")


@dataclass
class Doors:
    """A Serving with fixed endpoints."""

    statuses: tuple[EndpointStatus, ...] = ()

    def list(self) -> tuple[EndpointStatus, ...]:
        return self.statuses

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        raise ConflictError("Nothing is deployed here.")

    def status(self, ref: EndpointRef) -> EndpointStatus:
        return next(status for status in self.statuses if status.ref == ref)

    def access(self, ref: EndpointRef) -> EndpointAccess:
        raise ConflictError("There is no way in.")

    def delete(self, ref: EndpointRef) -> None:
        self.statuses = tuple(status for status in self.statuses if status.ref != ref)


@dataclass
class Stage:
    """A project in a folder, with its play. Runs added later are newer."""

    project: Project
    play: Play
    doors: Doors

    def add(self, name: str, state: RunState = RunState.RUNNING, **facts: object) -> RunRecord:
        """Put a run into the ledger and on the stage."""
        made, _ = self.project.ledger.adopt_or_add(
            name=name,
            backend=self.play.name,
            fingerprint=name,
            plan_of=lambda number: (f"{name}-{number}", {"command": "python train.py", "target": TARGET}),
            spec={"name": name, "task": "chat", "model": "tiny-phi3", "method": {"name": "lora"}},
        )
        status = RunStatus(state, state.value, seen_at=self.project.clock(), **facts)  # type: ignore[arg-type]
        self.play.parts[made.id] = Part(status)
        return made


def set_up(home: Path, *, now: float = NOW, backend: str = "local") -> Stage:
    """An empty stage whose clock stands still. Other backends than local are services."""
    play, doors = Play(backend), Doors()
    targets = None if backend == "local" else lambda: (TARGET,)
    platform = Platform(backend, play, None, doors, targets)
    return Stage(Project(home, clock=lambda: now, platforms={backend: platform}), play, doors)


def main(home: str, *words: str) -> None:
    """Watch made-up runs on this terminal.

    `target` follows the newest, `raise` breaks in the middle, `stuck` leaves every look without an answer.
    """
    from maas_client.dashboard.live import watch_on_screen, watch_run
    from tests.dashboard.boards import events

    stage = set_up(Path(home))
    stage.add("old", RunState.FAILED, message="The disk is full.")
    record = stage.add("new", RunState.RUNNING, started_at=NOW - 234)
    part = stage.play.parts[record.id]
    part.events, part.lines = list(events(220)), [f"line {number}" for number in range(300)]
    if "stuck" in words:
        stage.play.parts[record.id] = Stuck(part.status)
    if "raise" in words:
        part.status = None  # type: ignore[assignment]
    if "target" in words:
        print("state", watch_run(stage.project, record).state)
    else:
        watch_on_screen(stage.project, sys.stdout)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
