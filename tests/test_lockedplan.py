"""A plan in a file is sent as it was looked at, or refused with what is not as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.errors import DataError, MaasError, PlanError, SpecError
from maas_client.lockedplan import is_locked, lock, read_locked, unlock, write_locked
from maas_client.plan import Plan
from maas_client.project import Project
from maas_client.specfile import load_spec
from tests.conftest import JOB, ROWS
from tests.fakes import NAME, World

WriteJob = Callable[..., Path]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def project(tmp_path: Path, world: World) -> Project:
    return Project(tmp_path / "home", platforms={NAME: world.open()})


@pytest.fixture
def job(write_job: WriteJob) -> Path:
    return write_job(JOB + "register: {name: kept}\n")


@pytest.fixture
def file(tmp_path: Path, project: Project, job: Path) -> Path:
    """A plan with an override, in a file."""
    overrides = ("training.epochs=2",)
    plan = project.plan(load_spec(job, overrides))
    path = tmp_path / "job.plan.json"
    write_locked(lock(plan, job, overrides, now=1_800_000_000.0), path)
    return path


def opened(file: Path, project: Project) -> Plan:
    return unlock(read_locked(file), project.plan)


def drift(file: Path, project: Project) -> str:
    with pytest.raises(PlanError) as caught:
        opened(file, project)
    assert caught.value.hint.startswith("Look at what would be sent now: maas plan ")
    assert "\n" not in caught.value.message
    return caught.value.message


def test_what_was_planned_is_what_is_sent(file: Path, project: Project, job: Path) -> None:
    plan = opened(file, project)
    assert plan == project.plan(load_spec(job, ["training.epochs=2"]))
    assert plan.spec.training.epochs == 2
    read = json.loads(file.read_text())
    assert (read["run"], read["fingerprint"]) == (plan.run_id, plan.fingerprint)
    assert read["made_at"] == "2027-01-15T08:00:00+00:00"
    assert read["body"]["command"] == plan.job.command


def test_a_plan_is_told_from_a_job_file(file: Path, job: Path, tmp_path: Path) -> None:
    assert is_locked(file)
    assert not is_locked(job)
    assert not is_locked(tmp_path / "nothing")
    assert not is_locked(tmp_path)


def test_other_data_is_named(file: Path, project: Project, job: Path) -> None:
    (job.parent / "rows.jsonl").write_text(ROWS + ROWS)
    assert f"{file} does not hold any more: the training data changed. Nothing was sent." == drift(
        file, project
    )


def test_another_job_file_is_named_by_its_keys(file: Path, project: Project, job: Path) -> None:
    job.write_text(job.read_text().replace("max_length: 64", "max_length: 32") + "deploy: {name: served}\n")
    said = drift(file, project)
    assert f"the job file {job} changed (deploy, training.max_length)" in said


def test_a_job_file_that_is_broken_is_named(file: Path, project: Project, job: Path) -> None:
    job.write_text("name: [")
    assert f"the job file {job} cannot be used now" in drift(file, project)


def test_a_job_file_that_is_gone_leaves_the_plan(file: Path, project: Project, job: Path) -> None:
    job.unlink()
    assert opened(file, project).spec.training.epochs == 2


def test_another_target_is_named(file: Path, project: Project, world: World) -> None:
    world.target = "elsewhere"
    assert "the target is elsewhere now, and was memory" in drift(file, project)


def test_other_code_is_named(file: Path, project: Project) -> None:
    def plan_of(spec: object) -> Plan:
        made = project.plan(spec)  # type: ignore[arg-type]
        return replace(made, hashes={**made.hashes, "code": "sha256:other"})

    with pytest.raises(PlanError, match="the code changed"):
        unlock(read_locked(file), plan_of)


def test_another_body_is_named(file: Path, project: Project) -> None:
    def plan_of(spec: object) -> Plan:
        made = project.plan(spec)  # type: ignore[arg-type]
        return replace(made, steps=())

    with pytest.raises(PlanError, match="what would be sent changed"):
        unlock(read_locked(file), plan_of)


def test_everything_that_drifted_is_in_one_sentence(
    file: Path, project: Project, job: Path, world: World
) -> None:
    world.target = "elsewhere"
    (job.parent / "rows.jsonl").write_text(ROWS + ROWS)
    said = drift(file, project)
    assert said.count(";") == 1
    assert "target" in said
    assert "training data" in said


def test_data_that_is_gone_says_so(file: Path, project: Project, job: Path) -> None:
    (job.parent / "rows.jsonl").unlink()
    with pytest.raises((MaasError, OSError)):
        opened(file, project)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"kind": "maas plan"}',
        '{"kind": "other", "version": 1}',
        '{"kind": "maas plan", "version": "1"}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(SpecError, match="is no plan that can be used"):
        read_locked(path)


def test_a_plan_of_a_newer_program(file: Path) -> None:
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(SpecError, match="newer maas_client"):
        read_locked(file)


def test_a_plan_with_a_spec_that_is_none(file: Path, project: Project) -> None:
    read = json.loads(file.read_text())
    read["spec"]["task"] = "flying"
    file.write_text(json.dumps(read))
    with pytest.raises(SpecError, match="is no plan that can be used"):
        opened(file, project)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_locked(tmp_path / "nothing.json")


def test_an_error_of_planning_says_whose_job_it_is(file: Path) -> None:
    def plan_of(_: object) -> Plan:
        raise DataError("There is no data file x.", hint="Look.")

    with pytest.raises(DataError, match="no data file") as caught:
        unlock(read_locked(file), plan_of)
    assert caught.value.hint == f"Look. It is the job of {file}."
