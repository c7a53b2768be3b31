"""Bad luck, for real: kill -9 of the command, its supervisor, the client between any two steps; a restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maas_client.backends.local import preparation
from maas_client.backends.local.process import identify, is_alive, wait_gone
from maas_client.backends.local.wire import CANCEL, EXIT, PROCESS, Processes, ProcessId
from maas_client.run import Reason, RunRef, RunState
from tests.backends.local_stage import LocalStage
from tests.contract import PATIENCE_S, all_lines, ended, started, wait_for

CLIENT = """
import pathlib, sys, time
from tests.backends.local_stage import LocalStage
stage = LocalStage(pathlib.Path(sys.argv[1]))
plan = stage.plan("endless", name=sys.argv[2])
print("ready", flush=True)
while not pathlib.Path(sys.argv[3]).exists():
    time.sleep(0.001)
print(stage.jobs.submit(plan))
"""


def kill(process: ProcessId | None) -> None:
    assert process is not None
    assert is_alive(process)
    os.kill(process.pid, signal.SIGKILL)


def running(stage: LocalStage, behavior: str = "endless") -> tuple[RunRef, Processes]:
    ref = stage.jobs.submit(stage.plan(behavior))
    started(stage, ref)
    return ref, stage.processes(ref)


Clients = Callable[[int], list[subprocess.Popen[str]]]


@pytest.fixture
def clients(stage: LocalStage) -> Iterator[Clients]:
    """Processes that have planned and submit as soon as the file `go` is there."""
    words = [sys.executable, "-c", CLIENT, str(stage.root), "card", str(stage.root / "go")]
    begun: list[subprocess.Popen[str]] = []

    def begin(count: int) -> list[subprocess.Popen[str]]:
        new = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        begun.extend(new)
        for client in new:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
        return new

    yield begin
    for client in begun:
        client.kill()
        client.communicate()


def test_kill_9_of_the_command(stage: LocalStage) -> None:
    ref, processes = running(stage)
    kill(processes.child)
    status = ended(stage, ref)
    assert (status.state, status.reason, status.exit_code) == (RunState.FAILED, Reason.KILLED, 137)
    assert any(line.startswith("step") for line in status.tail)
    assert wait_gone((processes.supervisor,), PATIENCE_S)


def test_kill_9_of_the_supervisor_stops_the_command(stage: LocalStage) -> None:
    ref, processes = running(stage)
    kill(processes.supervisor)
    assert wait_gone((processes.child,), PATIENCE_S)
    status = ended(stage, ref)
    assert (status.state, status.reason) == (RunState.FAILED, Reason.KILLED)
    assert "checkpoint kept" in all_lines(stage, ref)
    stage.jobs.resume(ref)
    assert ended(stage, ref).state is RunState.SUCCEEDED


def test_kill_9_of_both(stage: LocalStage) -> None:
    ref, processes = running(stage)
    kill(processes.supervisor)
    kill(processes.child)
    status = ended(stage, ref)
    assert (status.state, status.reason) == (RunState.FAILED, Reason.KILLED)
    assert "gone" in status.message
    assert status.tail
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.started_at < status.ended_at <= status.seen_at


def test_a_command_that_ignores_the_request_is_killed_after_the_grace(stage: LocalStage) -> None:
    ref, processes = running(stage, "stubborn")
    stage.jobs.cancel(ref)
    assert stage.jobs.status(ref).state is RunState.CANCELING
    assert ended(stage, ref).state is RunState.CANCELED
    assert wait_gone((processes.child, processes.supervisor), PATIENCE_S)


def test_a_stubborn_command_without_supervisor_is_killed_by_a_later_cancel(stage: LocalStage) -> None:
    ref, processes = running(stage, "stubborn")
    kill(processes.supervisor)
    wait_gone((processes.supervisor,), PATIENCE_S)
    assert stage.jobs.status(ref).state is RunState.RUNNING
    stage.jobs.cancel(ref)
    assert stage.jobs.status(ref).state is RunState.CANCELING
    stage.now_offset_s = 60
    stage.jobs.cancel(ref)
    assert ended(stage, ref).state is RunState.CANCELED
    assert not is_alive(processes.child)


def test_no_process_outlives_a_run(stage: LocalStage) -> None:
    ref, processes = running(stage, "family")
    pids = [int(pid) for pid in (stage.folder(ref) / "outputs/run/pids").read_text().split()]
    left = [identify(pid) for pid in pids]
    assert all(is_alive(process) for process in left)
    kill(processes.child)
    ended(stage, ref)
    assert not any(is_alive(process) for process in left)


def test_a_signal_from_elsewhere_is_no_cancel(stage: LocalStage) -> None:
    ref, processes = running(stage)
    os.kill(processes.supervisor.pid, signal.SIGTERM)
    status = ended(stage, ref)
    assert (status.state, status.reason) == (RunState.FAILED, Reason.PREEMPTED)


def test_a_restart_of_the_machine(stage: LocalStage) -> None:
    ref, processes = running(stage)
    kill(processes.supervisor)
    wait_gone((processes.child, processes.supervisor), PATIENCE_S)
    _rewrite(stage.folder(ref) / PROCESS, boot="another life")
    status = stage.jobs.status(ref)
    assert (status.state, status.reason) == (RunState.FAILED, Reason.KILLED)
    assert "restarted" in status.message


def test_a_process_number_used_again_is_not_the_run(stage: LocalStage) -> None:
    ref, processes = running(stage)
    kill(processes.supervisor)
    wait_gone((processes.child, processes.supervisor), PATIENCE_S)
    _rewrite(stage.folder(ref) / PROCESS, pid=os.getpid())
    assert stage.jobs.status(ref).state is RunState.FAILED
    stage.jobs.cancel(ref)
    assert identify(os.getpid()) is not None


def test_a_killed_run_whose_result_is_there_succeeded(stage: LocalStage) -> None:
    ref = stage.jobs.submit(stage.plan("succeed"))
    ended(stage, ref)
    (stage.folder(ref) / EXIT).unlink()
    wait_gone((stage.processes(ref).supervisor,), PATIENCE_S)
    assert stage.jobs.status(ref).state is RunState.SUCCEEDED


def test_a_run_cut_off_before_its_start_waits_and_is_started_by_the_same_plan(stage: LocalStage) -> None:
    plan = stage.plan("succeed")
    ref = RunRef("local", plan.run_id)
    preparation.prepare(plan, stage.folder(ref), grace_s=1)
    status = stage.jobs.status(ref)
    assert (status.state, status.native_state) == (RunState.QUEUED, "prepared, not started")
    assert "submit it again" in status.message
    assert stage.jobs.submit(plan) == ref
    assert ended(stage, ref).state is RunState.SUCCEEDED


def test_a_run_canceled_before_its_start_never_starts(stage: LocalStage) -> None:
    plan = stage.plan("succeed")
    ref = RunRef("local", plan.run_id)
    preparation.prepare(plan, stage.folder(ref), grace_s=1)
    stage.jobs.cancel(ref)
    assert stage.jobs.status(ref).state is RunState.CANCELED
    stage.jobs.submit(plan)
    assert stage.jobs.status(ref).state is RunState.CANCELED
    assert not (stage.folder(ref) / PROCESS).exists()
    stage.jobs.resume(ref)
    assert ended(stage, ref).state is RunState.SUCCEEDED
    assert (stage.folder(ref) / "attempts/1" / CANCEL).is_file()


def test_half_prepared_runs_of_killed_clients_are_removed(stage: LocalStage) -> None:
    orphan = stage.home / "runs/.tmp-killed"
    (orphan / "inputs").mkdir(parents=True)
    ended(stage, stage.jobs.submit(stage.plan("succeed")))
    assert not orphan.exists()


def test_two_submits_at_once_start_one_run(stage: LocalStage, clients: Clients) -> None:
    two = clients(2)
    (stage.root / "go").touch()
    said = [client.communicate(timeout=PATIENCE_S)[0].strip() for client in two]
    assert said[0] == said[1] != ""
    ref = RunRef.parse(said[0])
    started(stage, ref)
    commands = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True).stdout
    assert commands.count(f"{stage.folder(ref)}/outputs/run") == 1
    stage.jobs.cancel(ref)
    ended(stage, ref)
    assert [line for line in all_lines(stage, ref) if line.startswith("step")][:2] == ["step 0", "step 1"]


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
def test_a_client_killed_anywhere_leaves_a_run_that_the_same_plan_takes_up(
    stage: LocalStage, clients: Clients, delay_s: float
) -> None:
    (client,) = clients(1)
    (stage.root / "go").touch()
    time.sleep(delay_s)
    client.kill()
    client.wait()
    ref = stage.jobs.submit(stage.plan("endless"))
    started(stage, ref)
    assert stage.jobs.status(ref).state is RunState.RUNNING
    stage.jobs.cancel(ref)
    assert ended(stage, ref).state is RunState.CANCELED
    assert len([line for line in all_lines(stage, ref) if line == "step 0"]) == 1
    assert list(stage.home.glob("runs/.tmp-*")) == []


def test_two_resumes_at_once_start_one_attempt(stage: LocalStage) -> None:
    ref, _ = running(stage)
    stage.jobs.cancel(ref)
    ended(stage, ref)

    def resume() -> str:
        try:
            stage.jobs.resume(ref)
        except Exception as error:  # noqa: BLE001  the kind of error is what is looked at
            return type(error).__name__
        return "resumed"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(future.result() for future in [pool.submit(resume), pool.submit(resume)])
    assert outcomes == ["ConflictError", "resumed"]
    wait_for(lambda: stage.jobs.status(ref), lambda status: status.state is RunState.SUCCEEDED)


def _rewrite(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text())
    for name in ("supervisor", "child"):
        value[name].update(changes)
    path.write_text(json.dumps(value))
