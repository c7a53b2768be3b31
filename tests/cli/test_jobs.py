"""maas plan, and submit and run without starting anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.shell import job_in, maas

pytestmark = pytest.mark.usefixtures("empty_home")


def test_plan_shows_everything_and_does_nothing(empty_home: Path) -> None:
    job = job_in(empty_home)
    before = sorted(empty_home.rglob("*"))
    ended = maas("plan", str(job))
    assert ended.returncode == 0
    assert "run       card-support-" in ended.stdout
    assert "command   python train.py --config ${{inputs.config}}" in ended.stdout
    assert "cost      free" in ended.stdout
    assert sorted(empty_home.rglob("*")) == before


def test_plan_as_data(empty_home: Path) -> None:
    job = job_in(empty_home)
    as_json = json.loads(maas("plan", str(job), "-o", "json").stdout)
    as_yaml = yaml.safe_load(maas("plan", str(job), "-o", "yaml").stdout)
    assert as_json == as_yaml
    assert as_json["inputs"]["train"] == str(empty_home / "rows.jsonl")
    assert set(as_json["hashes"]) == {"code", "config", "train", "model"}


def test_the_same_job_is_the_same_plan_wherever_it_is_asked(empty_home: Path, tmp_path: Path) -> None:
    job = job_in(empty_home)
    first = json.loads(maas("plan", "job.yaml", "-o", "json").stdout)["run"]
    assert (
        json.loads(maas("plan", str(job), "-o", "json", "--set", "training.epochs=3").stdout)["run"] == first
    )
    assert (
        json.loads(maas("plan", str(job), "-o", "json", "--set", "training.epochs=1").stdout)["run"] != first
    )


@pytest.mark.parametrize("command", ["submit", "run"])
def test_a_dry_run_starts_nothing(empty_home: Path, tmp_path: Path, command: str) -> None:
    job = job_in(empty_home)
    ended = maas(command, str(job), "--dry-run", "-o", "json")
    assert json.loads(ended.stdout) == json.loads(maas("plan", str(job), "-o", "json").stdout)
    assert not (tmp_path / "state").exists()
    assert maas("runs", "list", "-o", "json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "backend=kaito"], "error: Backend 'kaito' is not part of this installation."),
        (["--set", "model=./nothing"], "error: There is no model folder "),
        (["--set", "data.train=nothing"], "error: job.yaml has a problem."),
        (["--set", "training.epochs=-1"], "error: job.yaml has a problem."),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    empty_home: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    job_in(empty_home)
    for command in ("plan", "submit", "run"):
        ended = maas(command, "job.yaml", *words)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(message)
        assert "  try: " in ended.stderr
    assert not (tmp_path / "state").exists()
