"""What a new endpoint is asked: the run's first sample, else the first held-out row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from maas_client.data.convert import convert_file
from maas_client.question import first_sample, held_out_question
from maas_client.run import Artifact
from maas_client.specfile import load_spec
from tests.conftest import JOB

WriteJob = Callable[..., Path]
CHAT = JOB.replace("classification", "chat")


@pytest.mark.parametrize(
    ("text", "sample"), [(None, None), ("", None), ("\n", None), ('{"a": 1}\n{"a": 2}', {"a": 1})]
)
def test_the_first_sample(tmp_path: Path, text: str | None, sample: object) -> None:
    if text is not None:
        (tmp_path / "samples.jsonl").write_text(text)
    assert first_sample(Artifact(tmp_path, {})) == sample


def chat(*turns: str) -> str:
    roles = ["system", "user", "assistant", "user", "assistant"]
    return json.dumps(
        {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]}
    )


def test_a_held_out_row_of_the_training_file_as_training_holds_it_out(
    write_job: WriteJob, tmp_path: Path
) -> None:
    rows = "".join(chat("s", f"q{n}", f"a{n}") + "\n" for n in range(40))
    spec = load_spec(write_job(CHAT, rows=rows))
    asked = held_out_question(spec)
    assert asked is not None
    held_out = tmp_path / "held.jsonl"
    convert_file(
        spec.data.train,
        "chat",
        "messages",
        tmp_path / "rest.jsonl",
        held_out=held_out,
        share=spec.data.validation.split,
        seed=spec.training.seed,
    )
    first = json.loads(held_out.read_text().splitlines()[0])["messages"]
    assert asked["messages"] == first[:-1]
    assert (asked["prompt"], asked["expected"]) == (first[-2]["content"], first[-1]["content"])


def test_the_first_row_of_a_validation_file(write_job: WriteJob) -> None:
    job = write_job(CHAT.replace("{split: 0.1}", "{file: held.jsonl}"), rows=chat("s", "q", "a") + "\n")
    (job.parent / "held.jsonl").write_text(chat("s", "one", "two", "three", "four") + "\n")
    asked = held_out_question(load_spec(job))
    assert asked is not None
    assert (asked["prompt"], asked["expected"], len(asked["messages"])) == ("three", "four", 4)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("text-generation", '{"text": "once upon a time"}\n{"text": "there was"}\n'),
        ("chat", "not json\n"),
        ("chat", ""),
    ],
)
def test_nothing_to_ask(write_job: WriteJob, task: str, rows: str) -> None:
    spec = load_spec(write_job(JOB.replace("classification", task), rows=rows))
    assert held_out_question(spec) is None
    spec.data.train.unlink()
    assert held_out_question(spec) is None
