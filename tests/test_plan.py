"""Plans: equal inputs are the same run, and anything that changes the result is another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.command import CommandJob, training_command
from maas_client.plan import Plan, folder_hash, job_hashes
from maas_client.spec import JobSpec
from maas_client.specfile import load_spec
from tests.conftest import JOB, ROWS

WriteJob = Callable[..., Path]


def plan_of(spec: JobSpec, code: Path | None = None, target: str = "here") -> Plan:
    job = training_command(spec)
    job = replace(job, code=code) if code else job
    return Plan(
        spec=spec,
        backend=spec.backend,
        target=target,
        job=job,
        steps=(),
        cost="",
        is_free=True,
        hashes=job_hashes(job),
    )


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "tuning").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)")
    (folder / "tuning" / "rows.py").write_text("")
    return folder


def test_the_same_inputs_anywhere_are_the_same_run(write_job: WriteJob, code: Path) -> None:
    here, there = load_spec(write_job()), load_spec(write_job(folder="elsewhere"))
    assert plan_of(here, code).fingerprint == plan_of(there, code).fingerprint
    assert plan_of(here, code).run_id.startswith("card-support-")
    assert plan_of(here, code).run_id.endswith("-1")


@pytest.mark.parametrize(
    "line",
    [
        "register: {name: kept}",
        "register: {name: kept}\ndeploy: {name: served, ttl: 1h}",
        "# words",
        "method: {name: lora}",
    ],
)
def test_what_changes_nothing_in_the_result(write_job: WriteJob, code: Path, line: str) -> None:
    plain = plan_of(load_spec(write_job()), code)
    assert plan_of(load_spec(write_job(JOB + line + "\n")), code).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "task=chat",
        "model=microsoft/Phi-4",
        "training.epochs=2",
        "training.seed=8",
        "method.rank=4",
        "data.validation.split=0.2",
        "evaluation.max_rows=9",
        "data.validation.file=rows.jsonl",
        "distributed={strategy: ddp, processes: 2}",
    ],
)
def test_what_makes_another_run(write_job: WriteJob, code: Path, override: str) -> None:
    path = write_job()
    assert (
        plan_of(load_spec(path), code).fingerprint != plan_of(load_spec(path, [override]), code).fingerprint
    )


def test_other_rows_make_another_run(write_job: WriteJob, code: Path) -> None:
    before = plan_of(load_spec(write_job()), code).fingerprint
    assert plan_of(load_spec(write_job(rows=ROWS + ROWS)), code).fingerprint != before


def test_other_code_makes_another_run(write_job: WriteJob, code: Path) -> None:
    spec = load_spec(write_job())
    before = plan_of(spec, code).fingerprint
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "x.pyc").write_bytes(b"1")
    (code / "examples").mkdir()
    (code / "examples" / "job.yaml").write_text("name: x")
    assert plan_of(spec, code).fingerprint == before
    (code / "train.py").write_text("print(2)")
    assert plan_of(spec, code).fingerprint != before


def test_another_place_makes_another_run(write_job: WriteJob, code: Path) -> None:
    spec = load_spec(write_job())
    assert plan_of(spec, code).fingerprint != plan_of(spec, code, target="there").fingerprint


def test_other_weights_make_another_run(write_job: WriteJob, code: Path, tmp_path: Path) -> None:
    (tmp_path / "job" / "base").mkdir(parents=True)
    (tmp_path / "job" / "base" / "weights").write_bytes(b"1")
    spec = load_spec(write_job(), ["model=./base"])
    before = plan_of(spec, code).fingerprint
    (tmp_path / "job" / "base" / "weights").write_bytes(b"2")
    assert plan_of(spec, code).fingerprint != before


def test_a_folder_is_hashed_by_names_and_contents(tmp_path: Path) -> None:
    seen = set()
    for number, files in enumerate(
        [{"a": "xy"}, {"a": "x", "b": "y"}, {"b": "xy"}, {"a": "x"}, {"a/b": "x"}, {}]
    ):
        for name, text in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        seen.add(folder_hash(tmp_path / str(number)))
    assert len(seen) == 6


def test_a_plan_is_json(write_job: WriteJob, code: Path) -> None:
    plan = plan_of(load_spec(write_job()), code)
    data = json.loads(json.dumps(plan.to_dict()))
    assert data["run"] == plan.run_id
    assert data["inputs"]["config"]["training"]["epochs"] == 1
    assert data["outputs"] == ["run"]
    assert set(data["hashes"]) == {"code", "config", "train", "model"}
    assert replace(plan, number=3).run_id == plan.run_id[:-1] + "3"
    assert isinstance(plan.job, CommandJob)
