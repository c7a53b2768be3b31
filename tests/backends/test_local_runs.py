"""What a local run leaves on disk, what its command gets, and how its end is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.backends import open_platform
from maas_client.backends.local.wire import EXIT, PROCESS, STATES, Evidence
from maas_client.errors import ConflictError, NotFoundError, PlanError
from maas_client.run import Reason, RunRef, RunState
from tests.backends.local_stage import LocalStage
from tests.contract import all_lines, ended


def test_every_evidence_has_a_state() -> None:
    assert set(STATES) == set(Evidence)


def test_a_folder_holds_all_of_a_run(stage: LocalStage) -> None:
    plan = stage.plan("succeed")
    ref = stage.jobs.submit(plan)
    ended(stage, ref)
    folder = stage.folder(ref)
    job = json.loads((folder / "job.json").read_text())
    assert (job["run"], job["command"], job["outputs"]) == (ref.id, plan.job.command, ["run"])
    assert job["spec"]["name"] == "card"
    assert json.loads((folder / "inputs/config.json").read_text()) == plan.spec.script_config()
    assert (folder / "inputs/train.jsonl").read_bytes() == stage.data.read_bytes()
    assert (folder / "code/train.py").is_file()
    launch = json.loads((folder / "launch.json").read_text())
    assert launch["argv"][:2] == [sys.executable, "train.py"]
    assert str(folder / "inputs/train.jsonl") in launch["argv"]
    assert list(stage.home.glob("runs/.tmp-*")) == []


def test_the_run_keeps_the_data_and_code_as_they_were(stage: LocalStage) -> None:
    plan = stage.plan("endless")
    ref = stage.jobs.submit(plan)
    stage.data.write_text("edited")
    (plan.job.code / "train.py").write_text("edited")
    assert "edited" not in (stage.folder(ref) / "inputs/train.jsonl").read_text()
    assert (stage.folder(ref) / "code/train.py").read_text() != "edited"
    stage.jobs.cancel(ref)
    ended(stage, ref)


def test_data_that_changed_since_the_plan_is_refused(stage: LocalStage) -> None:
    plan = stage.plan("succeed")
    stage.data.write_text('{"text": "other", "label": "b"}\n')
    with pytest.raises(PlanError, match="changed since the plan"):
        stage.jobs.submit(plan)
    assert [path for path in (stage.home / "runs").iterdir() if path.name != ".staging.lock"] == []


def test_the_command_gets_no_secrets_and_fitting_threads(
    stage: LocalStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "secret")
    monkeypatch.setenv("HF_HOME", "/somewhere")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    ref = stage.jobs.submit(stage.plan("environment"))
    assert ended(stage, ref).state is RunState.SUCCEEDED
    seen = json.loads((stage.folder(ref) / "outputs/run/environment.json").read_text())
    assert "secret" not in seen.values()
    assert seen["HF_HOME"] == "/somewhere"
    assert seen["PYTHONUNBUFFERED"] == "1"
    assert int(seen["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))
    assert "HF_HUB_OFFLINE" not in seen


@pytest.mark.parametrize(
    ("call", "reason", "words"),
    [
        ("say_and_exit(2, 'Row 3 has no label.')", Reason.DATA, "Row 3 has no label."),
        ("say_and_exit(2, 'The config has no task.')", Reason.CODE, "The config has no task."),
        ("say_and_exit(1, 'OSError: [Errno 28] No space left on device')", Reason.DISK, "No space left"),
        ("say_and_exit(1, 'RuntimeError: out of memory')", Reason.MEMORY, "out of memory"),
        ("say_and_exit(1, 'MemoryError')", Reason.MEMORY, "close other programs"),
        ("say_and_exit(1, 'ValueError: no')", Reason.CODE, "ValueError: no"),
        ("say_and_exit(1)", Reason.CODE, "without a word"),
        ("say_and_exit(143)", Reason.PREEMPTED, "stopped by a signal"),
        ("told_failure('The model is not one.')", Reason.CODE, "The model is not one."),
        ("no_result()", Reason.CODE, "without a result"),
        ("os.kill(os.getpid(), 9)", Reason.KILLED, "was killed"),
    ],
)
def test_the_reason_of_a_failure(stage: LocalStage, call: str, reason: Reason, words: str) -> None:
    status = ended(stage, stage.jobs.submit(stage.plan(call)))
    assert status.state is RunState.FAILED
    assert status.reason is reason
    assert words in status.message
    assert "Traceback" not in status.message


def test_a_command_that_does_not_exist_fails_in_words(stage: LocalStage) -> None:
    plan = stage.plan("succeed")
    plan = replace(plan, job=replace(plan.job, command="no-such-command --x"))
    status = ended(stage, stage.jobs.submit(plan))
    assert (status.state, status.exit_code) == (RunState.FAILED, 127)
    assert "no-such-command cannot be started" in status.message


def test_a_second_attempt_goes_on_in_the_same_log(stage: LocalStage) -> None:
    ref = stage.jobs.submit(stage.plan("fail"))
    ended(stage, ref)
    stage.jobs.resume(ref)
    status = ended(stage, ref)
    lines = all_lines(stage, ref)
    assert lines.count("so far so good") == 2
    assert "--- attempt 2 ---" in lines
    assert status.tail == ("so far so good", "the data is bad")
    assert (stage.folder(ref) / "attempts/1" / EXIT).is_file()
    assert (stage.folder(ref) / "attempts/1" / PROCESS).is_file()


@pytest.mark.parametrize("name", ["process.json", "exit.json", "job.json"])
def test_a_torn_record_is_unknown_and_named(stage: LocalStage, name: str) -> None:
    plan = stage.plan("succeed")
    ref = stage.jobs.submit(plan)
    ended(stage, ref)
    path = stage.folder(ref) / name
    whole = path.read_bytes()
    for content in (whole[:20], b"", b"[1, 2]", b"\xff\xfe\x00"):
        path.write_bytes(content)
        status = stage.jobs.status(ref)
        assert status.state is RunState.UNKNOWN
        assert name in status.message
        with pytest.raises(ConflictError):
            stage.jobs.artifact(ref)
        for go_on in (lambda: stage.jobs.submit(plan), lambda: stage.jobs.resume(ref)):
            with pytest.raises(ConflictError, match=name) as raised:
                go_on()
            assert str(stage.folder(ref)) in raised.value.hint
    path.write_bytes(whole)
    assert stage.jobs.status(ref).state is RunState.SUCCEEDED


def test_a_folder_without_its_record_is_said_to_be_in_the_way(stage: LocalStage) -> None:
    plan = stage.plan("succeed")
    ref = stage.jobs.submit(plan)
    ended(stage, ref)
    (stage.folder(ref) / "job.json").unlink()
    with pytest.raises(ConflictError, match=r"in the way: it holds no job\.json") as raised:
        stage.jobs.submit(plan)
    assert "--again" in raised.value.hint


def test_a_record_of_another_shape_is_unknown(stage: LocalStage) -> None:
    ref = stage.jobs.submit(stage.plan("succeed"))
    ended(stage, ref)
    path = stage.folder(ref) / PROCESS
    whole = path.read_bytes()
    path.write_text('{"supervisor": {"pid": 1}, "started_at": 2}')
    assert stage.jobs.status(ref).state is RunState.UNKNOWN
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "ref", [RunRef("local", ".."), RunRef("azureml", "card-1"), RunRef("local", ".tmp-x")]
)
def test_refs_that_are_no_runs_here(stage: LocalStage, ref: RunRef) -> None:
    with pytest.raises(NotFoundError):
        stage.jobs.status(ref)


@pytest.mark.parametrize("name", ["kaito", "elsewhere"])
def test_backends_that_are_not_here_say_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlanError, match=name) as raised:
        open_platform(name, home=tmp_path)
    assert "local" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_opening_touches_nothing(tmp_path: Path) -> None:
    platform = open_platform("local", home=tmp_path / "home")
    assert platform.models is not None
    assert platform.endpoints is not None
    assert (platform.models.list(), platform.endpoints.list()) == ((), ())
    assert not (tmp_path / "home").exists()


def test_a_supervisor_loads_nothing_heavy() -> None:
    code = "import sys, maas_client.backends.local.supervisor; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pydantic", "torch", "httpx", "yaml", "rich", "typer"} & set(loaded)
