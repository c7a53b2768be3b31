"""A job's own file on this machine, whose machines are taken away on purpose: does the run go on as if not?

The job runs twice, short and on the laptop: once left alone, and once on machines of which each is lost at a
step. A new machine is given the declared output of the one before and nothing else, as on a cluster.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import NotFoundError, RunFailedError, UsageError
from maas_client.run import RunRef, RunState
from maas_client.verdict import Preemption, Verdict, judge

if TYPE_CHECKING:
    from maas_client.backends.local.wire import Processes
    from maas_client.plan import Plan
    from maas_client.run import Event, RunStatus
    from maas_client.spec import JobSpec

OUTPUT = "run"
CHECKPOINT_EVERY, ROWS_SCORED, LONGEST_ANSWER, MOST_PROCESSES = 2, 4, 8, 2
"""What is made small for a rehearsal, where the job file has more."""
_LOOK_S, _STATUS_S = 0.005, 0.2


@dataclass(frozen=True)
class Wanted:
    """How many steps, after which of them the machine is lost, and whether it says so before (`grace_s`)."""

    steps: int = 10
    preempt_at: tuple[int, ...] = (3, 7)
    grace_s: float | None = None

    def check(self) -> None:
        """Raises UsageError for steps that cannot be."""
        if not self.preempt_at or list(self.preempt_at) != sorted(set(self.preempt_at)):
            raise UsageError("--preempt-at takes steps in rising order.", hint="Try --preempt-at 3,7.")
        if self.preempt_at[0] < 1 or self.preempt_at[-1] >= self.steps:
            hint = f"Take more --steps, or --preempt-at from 1 to {self.steps - 1}."
            what = f"--preempt-at {','.join(map(str, self.preempt_at))} does not lie in {self.steps} steps."
            raise UsageError(what, hint=hint)
        if self.grace_s is not None and self.grace_s <= 0:
            raise UsageError("--grace is a number of seconds, more than 0.", hint="Try --grace 30.")


def shortened(spec: JobSpec, wanted: Wanted) -> JobSpec:
    """The job as it is rehearsed: on this machine, a few steps, few rows scored, checkpoints often."""
    every = spec.training.checkpoint_every_steps or CHECKPOINT_EVERY
    training = {
        "max_steps": wanted.steps,
        "epochs": 1000.0,
        "checkpoint_every_steps": min(every, CHECKPOINT_EVERY),
        "evaluate_every_steps": None,
        "early_stopping_patience": None,
        "keep_best": False,
    }
    evaluation = {
        "max_rows": min(spec.evaluation.max_rows, ROWS_SCORED),
        "max_new_tokens": min(spec.evaluation.max_new_tokens or LONGEST_ANSWER, LONGEST_ANSWER),
    }
    machines = 1 if spec.backend == "local" else spec.compute.instances
    processes = min(spec.distributed.processes * machines, MOST_PROCESSES)
    return spec.model_copy(
        update={
            "backend": "local",
            "training": spec.training.model_copy(update=training),
            "evaluation": spec.evaluation.model_copy(update=evaluation),
            "distributed": spec.distributed.model_copy(update={"processes": processes}),
            "register_as": None,
            "deploy": None,
        }
    )


def rehearse(spec: JobSpec, wanted: Wanted, home: Path, *, tell: Callable[[str], None]) -> Verdict:
    """Run the job twice under `home`/rehearsals and compare; nothing stays there, and nothing runs on.

    Raises UsageError, PlanError and DataError for what cannot be rehearsed, and RunFailedError where a run
    fails by itself.
    """
    from maas_client.preflight import check_rows

    wanted.check()
    if spec.backend == "foundry":
        what = "Azure AI Foundry trains by itself; how it survives a lost machine cannot be rehearsed here."
        raise UsageError(what, hint="Rehearse how the bundled script trains it: --set backend=local.")
    short = shortened(spec, wanted)
    check_rows(short)
    place = home / "rehearsals"
    place.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{spec.name}-", dir=place) as folder:
            return _run_both(_plan(short, Path(folder)), wanted, Path(folder), tell)
    finally:
        with suppress(OSError):
            place.rmdir()  # where it is empty


def _plan(short: JobSpec, home: Path) -> Plan:
    """The plan of the short job, whose script tells of every step, and of its rows.

    All machines get the code as it is now.
    """
    from maas_client.backends.local.jobs import LocalJobs
    from maas_client.command import JsonFile, training_command
    from maas_client.plan import NOT_CODE

    jobs = LocalJobs(home)
    jobs.plan(short)  # raises what speaks against the job itself
    job = training_command(short)
    code = shutil.copytree(job.code, home / "code", ignore=shutil.ignore_patterns(*NOT_CODE))
    config = short.script_config()
    config["training"] |= {"log_every_steps": 1, "log_rows": True}
    return jobs.plan(short, replace(job, code=code, inputs={**job.inputs, "config": JsonFile(config)}))


def _run_both(plan: Plan, wanted: Wanted, folder: Path, tell: Callable[[str], None]) -> Verdict:
    with ExitStack() as machines:

        def machine(name: str, output: Path | None = None) -> Machine:
            made = Machine(folder / name, plan, wanted.grace_s)
            machines.callback(made.end)
            made.start(output)
            return made

        tell(f"Left alone for {wanted.steps} steps ...")
        alone = machine("alone")
        alone.succeed()
        lost: list[Preemption] = []
        current = machine("machine-1")
        for number, step in enumerate(wanted.preempt_at, 1):
            tell(f"Machine {number}, to be lost after step {step} ...")
            preemption = current.lose_after(step)
            current = machine(f"machine-{number + 1}", current.output)
            lost.append(replace(preemption, resumed=current.resumed_from()))
        tell(f"Machine {len(lost) + 1}, to the end ...")
        current.succeed()
        return judge(
            alone.events(),
            current.events(),
            lost,
            same_model=alone.model() == current.model(),
            grace_s=wanted.grace_s,
        )


class Machine:
    """A folder and the processes of one run in it, as if nothing else were there."""

    def __init__(self, home: Path, plan: Plan, grace_s: float | None) -> None:
        from maas_client.backends.local.jobs import GRACE_S, LocalJobs

        self._plan, self._grace_s = plan, grace_s
        self._jobs = LocalJobs(home, grace_s=grace_s or GRACE_S)
        self._ref = RunRef("local", plan.run_id)
        self._folder = home / "runs" / plan.run_id
        self._told_before = 0  # events of earlier machines
        self.output = self._folder / "outputs" / OUTPUT

    def start(self, output: Path | None) -> None:
        """Start the run, with the declared output of another machine if one is given."""
        from maas_client.backends.local.jobs import GRACE_S
        from maas_client.backends.local.preparation import prepare

        prepare(self._plan, self._folder, grace_s=self._grace_s or GRACE_S)
        if output is not None:
            self.output.rmdir()
            shutil.move(output, self.output)
            self._told_before = len(self.events())
        self._jobs.submit(self._plan)

    def events(self) -> list[Event]:
        """The events in the output so far, those of earlier machines first."""
        from maas_client.backends.local.pages import read_events

        found: list[Event] = []
        cursor: str | None = None
        following: str | None = "0"
        while following != cursor:
            cursor = following
            page, following = read_events(self.output / "events.jsonl", cursor, ended=False)
            found += page
        return found

    def model(self) -> Mapping[str, str]:
        """The hashes of the files of the finished model."""
        result = json.loads((self.output / "result.json").read_text(encoding="utf-8"))
        hashes: Mapping[str, str] = result["hashes"]["model"]
        return hashes

    def succeed(self) -> None:
        """Return when the run has ended. Raises RunFailedError unless it succeeded."""
        status = self._wait(lambda: False)
        if status is None or status.state is not RunState.SUCCEEDED:
            raise self._failure(status)

    def lose_after(self, step: int) -> Preemption:
        """Take the machine away once the step was told of; returns when none of its processes lives."""
        ended = self._wait(lambda: self._last_step() >= step)
        if ended is not None and ended.state is not RunState.SUCCEEDED:
            raise self._failure(ended)
        began = time.monotonic()
        if self._grace_s is None:
            self._kill()
        else:
            self._jobs.cancel(self._ref)
        ended = self._wait(lambda: False)
        if ended is not None and ended.state is RunState.SUCCEEDED:
            hint = "Take more --steps, or an earlier step."
            raise UsageError(f"The run had ended before it could be lost after step {step}.", hint=hint)
        seconds = time.monotonic() - began
        return Preemption(step, self._last_step(), self._newest_checkpoint(), None, seconds)

    def resumed_from(self) -> int | None:
        """The step that the run says it goes on from, None where it ends before it says so."""
        self._wait(lambda: bool(self._told("started")))
        started = self._told("started")
        return int(started[-1]["resumed_from_step"]) if started else None

    def end(self) -> None:
        """See to it that no process of the run is left, wherever its start was cut off."""
        from maas_client.backends.local.process import wait_gone

        with suppress(NotFoundError):
            self._jobs.cancel(self._ref)  # what has not been started by now never will be
            while not self._jobs.status(self._ref).state.is_final:
                self._kill()
                time.sleep(_LOOK_S)
            if (processes := self._processes()) is not None:
                wait_gone(processes.both, _STATUS_S)

    def _told(self, kind: str) -> list[Event]:
        return [event for event in self.events()[self._told_before :] if event["event"] == kind]

    def _last_step(self) -> int:
        return max((int(event["step"]) for event in self._told("step")), default=0)

    def _newest_checkpoint(self) -> int:
        """The step of the newest checkpoint in the output, 0 without one."""
        whole = (self.output / "checkpoints").glob("step-*/manifest.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in whole), default=0)

    def _wait(self, has_come: Callable[[], bool]) -> RunStatus | None:
        """Look until something has come (then None) or the run has ended (then its status)."""
        looked_at = 0.0
        while not has_come():
            if time.monotonic() - looked_at > _STATUS_S:
                looked_at = time.monotonic()
                status = self._jobs.status(self._ref)
                if status.state.is_final:
                    return None if has_come() else status
            time.sleep(_LOOK_S)
        return None

    def _kill(self) -> None:
        """kill -9 to all that the run started, at once; whoever watches over it writes down the end."""
        import psutil

        if (processes := self._processes()) is None:
            return
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(processes.supervisor.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def _processes(self) -> Processes | None:
        from maas_client.backends.local.wire import PROCESS, Processes

        return Processes.read(self._folder / PROCESS)

    def _failure(self, status: RunStatus | None) -> RunFailedError:
        words = status.message if status else ""
        tail = " | ".join(status.tail[-3:]) if status else ""
        return RunFailedError(f"The rehearsed run failed by itself: {words or tail}", hint=tail)
