"""What the job file may say and what the bundled script reads are the same words with the same defaults."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maas_client.spec import JobSpec
from maas_client.trainingspec import MethodSpec, Task, TrainingSpec
from tuning.config import Config, parse_config
from tuning.sharding import OFFLOADS

SECTIONS = ("method", "training", "evaluation", "distributed")
# The script's own: what to log, which nobody needs to set in a job file.
SCRIPT_ONLY = {("training", "log_every_steps"), ("training", "log_rows")}


def job(**parts: Any) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "any-job", "task": "chat", "model": "tiny-phi3", "data": {"train": "rows.jsonl"}, **parts}
    )


def choices(field: str) -> Any:
    return st.sampled_from(get_args(TrainingSpec.model_fields[field].annotation))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_same_keys_and_defaults(section: str) -> None:
    script = parse_config(job().script_config())
    theirs = dataclasses.asdict(getattr(script, section))
    ours = job().script_config()[section]
    assert {(section, key) for key in theirs.keys() - ours.keys()} <= SCRIPT_ONLY
    defaults = dataclasses.asdict(getattr(Config(task="chat"), section))
    assert ours == {key: defaults[key] for key in ours}


@pytest.mark.parametrize("strategy", OFFLOADS)
@pytest.mark.parametrize("offload", ["none", "optimizer", "all"])
def test_offload_is_taken_where_the_script_takes_it(strategy: str, offload: str) -> None:
    words = {"strategy": strategy, "offload": offload}
    if offload == "none" or offload in OFFLOADS[strategy]:
        assert job(distributed=words).script_config()["distributed"] == {**words, "processes": 1}
        return
    with pytest.raises(ValidationError, match=f"found {offload} with strategy {strategy}; accepted: none"):
        job(distributed=words)


@pytest.mark.parametrize("task", list(Task))
def test_every_task_of_the_job_file_is_one_of_the_script(task: Task) -> None:
    assert parse_config(job(task=task.value).script_config()).task == task.value


methods = st.builds(
    MethodSpec,
    name=st.sampled_from(get_args(MethodSpec.model_fields["name"].annotation)),
    rank=st.integers(1, 1024),
    alpha=st.floats(0.01, 1000),
    dropout=st.floats(0, 0.99),
    target_modules=st.just("all-linear") | st.lists(st.sampled_from(["qkv_proj", "o_proj"]), min_size=1),
)
trainings = st.builds(
    TrainingSpec,
    epochs=st.floats(0.01, 1000),
    max_steps=st.none() | st.integers(1, 10**6),
    learning_rate=st.floats(1e-9, 1),
    schedule=choices("schedule"),
    warmup_ratio=st.floats(0, 0.99),
    weight_decay=st.floats(0, 1),
    max_grad_norm=st.floats(0.01, 100),
    batch_size=st.integers(1, 512),
    gradient_accumulation=st.integers(1, 64),
    max_length=st.integers(8, 10**6),
    packing=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    precision=choices("precision"),
    gradient_checkpointing=choices("gradient_checkpointing"),
    evaluate_every_steps=st.none() | st.integers(1, 1000),
    checkpoint_every_steps=st.none() | st.integers(1, 1000),
    keep_checkpoints=st.integers(1, 10),
)


@given(method=methods, training=trainings)
def test_the_script_reads_every_valid_job(method: MethodSpec, training: TrainingSpec) -> None:
    spec = job().model_copy(update={"method": method, "training": training})
    read = parse_config(spec.script_config())
    assert dataclasses.asdict(read.method) == method.model_dump(mode="json")
    theirs = dataclasses.asdict(read.training)
    for key in ("log_every_steps", "log_rows"):
        theirs.pop(key)
    assert theirs == training.model_dump(mode="json")
