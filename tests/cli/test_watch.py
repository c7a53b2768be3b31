"""`maas watch` as a user meets it: frames, lines, data and exit codes on runs of the local backend."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.ledger import RunRecord
from maas_client.project import Project
from tests.backends.local_stage import LocalStage
from tests.cli.shell import MAAS, maas, on_a_terminal


@pytest.fixture
def stage(tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStage]:
    """A local platform whose runs are tiny scripts, where `maas` looks for it."""
    stage = LocalStage(tmp_path)
    monkeypatch.setenv("MAAS_HOME", str(stage.home))
    monkeypatch.setenv("PYTHONUTF8", "1")
    yield stage
    stage.stop_all()


def submit(stage: LocalStage, behavior: str, *, name: str = "card", until: str = "") -> RunRecord:
    """Start a run and wait until it is in the state `until`."""
    project = Project(stage.home, platforms={"local": stage.platform})
    record = project.submit(stage.plan(behavior, name=name))
    deadline = time.monotonic() + 90
    while until and stage.jobs.status(record.ref).state != until:
        assert time.monotonic() < deadline, stage.jobs.status(record.ref)
        time.sleep(0.02)
    return record


def test_without_a_run_there_is_a_hint(stage: LocalStage) -> None:
    done = maas("watch", "--once")
    assert done.returncode == 0
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        "maas watch · 0 runs",
        " No runs yet. Start one: maas submit JOB.yaml",
    ]
    assert done.stderr == ""


def test_an_unknown_run_is_one_sentence(stage: LocalStage) -> None:
    done = maas("watch", "nobody", "--once")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: There is no run 'nobody'.")


@pytest.mark.parametrize(
    ("behavior", "state", "code"),
    [("succeed", "succeeded", 0), ("fail", "failed", 100), ("endless", "running", 101)],
)
def test_one_frame_of_a_run_has_its_exit_code(
    stage: LocalStage, behavior: str, state: str, code: int
) -> None:
    record = submit(stage, behavior, until=state)
    done = maas("watch", record.id, "--once")
    assert (done.returncode, done.stderr) == (code, "")
    assert f"─ {record.id} " in done.stdout
    assert state in done.stdout
    assert "q quit" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert maas("watch", "--once").returncode == 0


def test_a_canceled_run_has_its_exit_code(stage: LocalStage) -> None:
    record = submit(stage, "endless", until="running")
    stage.processes(record.ref)
    stage.jobs.cancel(record.ref)
    deadline = time.monotonic() + 90
    while stage.jobs.status(record.ref).state != "canceled":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert maas("watch", "last", "--once").returncode == 103


def test_a_state_that_cannot_be_learned_is_never_0(stage: LocalStage) -> None:
    record = submit(stage, "endless", until="running")
    stage.processes(record.ref)
    kept = (stage.folder(record.ref) / "process.json").read_text()
    (stage.folder(record.ref) / "process.json").write_text("{")
    try:
        for words in (["--once"], [record.id, "--once"]):
            done = maas("watch", *words)
            assert done.returncode == 1
            assert "? unknown" in done.stdout
    finally:
        (stage.folder(record.ref) / "process.json").write_text(kept)


def test_the_width_and_the_characters_are_those_of_the_output(stage: LocalStage) -> None:
    record = submit(stage, "succeed", until="succeeded")
    wide = maas("watch", record.id, "--once", COLUMNS="130")
    assert "TASK" in wide.stdout
    assert 120 < max(map(len, wide.stdout.splitlines())) <= 130
    plain = maas("watch", record.id, "--once", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert plain.returncode == 0
    assert plain.stdout.isascii()
    assert f"- {record.id} + succeeded -" in plain.stdout


def test_one_frame_as_data(stage: LocalStage) -> None:
    record = submit(stage, "succeed", until="succeeded")
    done = maas("watch", record.id, "--once", "-o", "json")
    data = json.loads(done.stdout)
    assert done.returncode == 0
    assert [run["id"] for run in data["runs"]] == [record.id]
    assert data["chosen"]["state"] == "succeeded"
    assert data["chosen"]["progress"]["step"] == 9
    assert data["chosen"]["log"][-1] == "line 9"
    assert data["endpoints"] == []
    failing = submit(stage, "fail", name="other", until="failed")
    assert json.loads(maas("watch", failing.id, "--once", "-o", "json").stdout)["chosen"]["tail"]


def test_elsewhere_than_on_a_terminal_there_is_a_line_a_change(stage: LocalStage) -> None:
    record = submit(stage, "fail")
    done = maas("watch", record.id)
    assert done.returncode == 100
    lines = done.stdout.splitlines()
    assert lines[-1].startswith(f"{record.id}: failed (")
    assert all(line.startswith(record.id) for line in lines)
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    logged = maas("watch", record.id, "--run-log").stdout.splitlines()
    assert "the data is bad" in logged


def test_data_of_a_watched_run_comes_at_its_end_and_alone_on_stdout(stage: LocalStage) -> None:
    record = submit(stage, "succeed")
    done = maas("watch", record.id, "-o", "json")
    assert json.loads(done.stdout)["chosen"]["state"] == "succeeded"
    assert f"{record.id}: succeeded" in done.stderr
    endless = maas("watch", "-o", "json")
    assert (endless.returncode, endless.stdout) == (2, "")


def test_ctrl_c_ends_the_watching_and_not_the_run(stage: LocalStage) -> None:
    record = submit(stage, "endless", until="running")
    watching = subprocess.Popen(
        [*MAAS, "watch", record.id], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    assert watching.stdout.readline() == f"{record.id}: running\n"
    watching.send_signal(signal.SIGINT)
    _, told = watching.communicate(timeout=90)
    assert watching.returncode == 130
    assert told == f"detached; the run goes on: maas watch {record.id}\n"
    assert stage.jobs.status(record.ref).state == "running"


def test_on_a_terminal_the_dashboard_ends_with_the_run_and_leaves_a_summary(stage: LocalStage) -> None:
    record = submit(stage, "succeed")
    text = on_a_terminal("watch", record.id)
    screen, _, left = text.partition("\x1b[?1049l")
    assert "\x1b[?1049h" in screen
    assert f"{record.id} ✓ succeeded" in left
    assert "loss 0.100" in left


def test_a_dumb_terminal_gets_lines(stage: LocalStage) -> None:
    record = submit(stage, "succeed")
    text = on_a_terminal("watch", record.id, TERM="dumb")
    assert "\x1b" not in text
    assert text.splitlines()[-1] == f"{record.id}: succeeded"


def test_help_loads_no_dashboard(stage: LocalStage) -> None:
    program = (
        "import sys; from maas_client.cli.app import run; run(['watch', '--help']);"
        "sys.exit(any(name.startswith('maas_client.dashboard') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0
