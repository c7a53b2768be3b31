"""`maas runs logs` on runs of the local backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.project import Project
from tests.backends.local_stage import LocalStage
from tests.cli.shell import maas

SAID = [f"line {number}" for number in range(10)]


@pytest.fixture
def stage(tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStage]:
    stage = LocalStage(tmp_path)
    monkeypatch.setenv("MAAS_HOME", str(stage.home))
    yield stage
    stage.stop_all()


def submit(stage: LocalStage, behavior: str) -> None:
    Project(stage.home, platforms={"local": stage.platform}).submit(stage.plan(behavior))


def test_following_prints_every_line_and_ends_with_the_run(stage: LocalStage) -> None:
    submit(stage, "succeed")
    done = maas("runs", "logs", "last", "--follow")
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, SAID, "")


def test_the_last_lines_alone(stage: LocalStage) -> None:
    submit(stage, "succeed")
    assert maas("runs", "logs", "--follow").returncode == 0
    for words in (["--tail", "3"], ["--tail", "3", "--follow"]):
        assert maas("runs", "logs", *words).stdout.splitlines() == SAID[-3:]


def test_lines_as_data(stage: LocalStage) -> None:
    submit(stage, "succeed")
    for words in (["--follow"], []):
        done = maas("runs", "logs", "-o", "json", *words)
        assert json.loads(done.stdout) == SAID


def test_following_a_run_that_fails_gives_its_exit_code(stage: LocalStage) -> None:
    submit(stage, "fail")
    done = maas("runs", "logs", "--follow")
    assert done.returncode == 100
    assert "the data is bad" in done.stdout
    assert done.stderr.startswith("error: Run ")


def test_a_dry_run_of_a_resumption_says_what_it_would_come_to(stage: LocalStage) -> None:
    submit(stage, "succeed")
    assert maas("runs", "logs", "--follow").returncode == 0
    tried = maas("runs", "resume", "--dry-run", "-o", "json")
    assert tried.returncode == maas("runs", "resume").returncode == 3
    assert json.loads(tried.stdout)["state"] == "succeeded"
    assert "has succeeded." in tried.stderr


@pytest.mark.parametrize("command", ["show", "cancel"])
def test_a_state_that_cannot_be_learned_is_not_code_0(stage: LocalStage, command: str) -> None:
    submit(stage, "succeed")
    assert maas("runs", "logs", "--follow").returncode == 0
    job = next((stage.home / "runs").glob("*/job.json"))
    job.write_text('{"to')
    seen = maas("runs", command, "-o", "json")
    assert (seen.returncode, json.loads(seen.stdout)["state"]) == (1, "unknown")
