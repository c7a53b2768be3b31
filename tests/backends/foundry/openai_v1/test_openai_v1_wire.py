"""The service's JSON, however odd: words, nulls, numbers that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.backends.foundry.openai_v1.metrics import (
    Given,
    events_of,
    last_values,
    metrics_of,
    read_rows,
)
from maas_client.backends.foundry.openai_v1.wire import (
    STATES,
    Job,
    read_event,
    read_file,
    read_job,
    suffix_of,
    to_status,
)
from maas_client.run import Reason, RunState
from tests.simulator.openapi import FOLDER, OPENAI, contract

AUTHORING = (
    FOLDER / "azure-rest-api-specs/specification/cognitiveservices/data-plane/AzureOpenAI/authoring"
    "/preview/2024-10-01-preview"
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "id", "status", "created_at", "finished_at", "error", "metadata", "trained_tokens", "result_files",
    "model", "fine_tuned_model", "user_provided_suffix", "training_file", "bytes", "filename", "data",
    "message", "level",
)  # fmt: skip


@pytest.mark.skipif(not OPENAI.is_file(), reason="the published contracts are not here")
def test_every_published_status_word_is_mapped() -> None:
    job = contract(OPENAI)["components"]["schemas"]["OpenAI.FineTuningJob"]
    words = set(job["properties"]["status"]["enum"])
    old = json.loads((AUTHORING / "azureopenai.json").read_text(encoding="utf-8"))
    words |= set(old["definitions"]["FineTuningState"]["enum"])
    assert words <= set(STATES)


@pytest.mark.skipif(not AUTHORING.is_dir(), reason="the published contracts are not here")
def test_the_published_examples_are_read() -> None:
    examples = AUTHORING / "examples"
    body = json.loads((examples / "get_finetuning_job.json").read_text())["responses"]["200"]["body"]
    job = read_job(body)
    assert (job.state, job.trained_tokens) == (RunState.SUCCEEDED, 2342)
    assert job.fine_tuned_model == "curie.ft-72a2792ef7d24ba7b82c7fe4a37e379f"
    body = json.loads((examples / "get_finetuning_job_events.json").read_text())["responses"]["200"]["body"]
    assert [read_event(row).message for row in body["data"]][-1] == "Job succeeded."


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING))
def test_nothing_that_a_service_says_breaks_the_reading(body: dict[str, Any]) -> None:
    status = to_status(read_job(body), seen_at=1.0)
    assert status.state in RunState
    assert isinstance(status.message, str)
    read_file(body)
    list(events_of(metrics_of(read_event(body)), 1.0, Given()))


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("pending", RunState.QUEUED),
        ("Running", RunState.RUNNING),
        ("pausing", RunState.RUNNING),
        ("paused", RunState.CANCELED),
        ("resuming", RunState.QUEUED),
        ("cancelling", RunState.CANCELING),
        ("thawing", RunState.UNKNOWN),
        ("", RunState.UNKNOWN),
    ],
)
def test_words_and_their_states(word: str, state: RunState) -> None:
    status = to_status(Job("ftjob-1", word, 5.0), seen_at=9.0)
    assert (status.state, status.native_state) == (state, word)


def test_a_job_that_ends_before_it_begins_has_no_end() -> None:
    body = {"id": "j", "status": "succeeded", "created_at": 100, "finished_at": 90, "trained_tokens": -4}
    job = read_job(body)
    assert job.trained_tokens is None
    assert to_status(job, seen_at=1).ended_at is None
    assert to_status(read_job({**body, "finished_at": 110}), seen_at=1).ended_at == 110


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "invalid_n_examples", "message": "Too few.", "param": "training_file"}, Reason.DATA),
        ({"code": "jsonlValidationFailed", "message": "Line 2"}, Reason.DATA),
        ({"code": "quotaExceeded", "message": "No quota."}, Reason.QUOTA),
        ({"code": "x", "message": "There is no capacity for this job."}, Reason.CAPACITY),
        ({"code": "internalFailure", "message": "Something broke."}, None),
        (None, None),
        ("broken", None),
    ],
)
def test_why_a_job_failed(error: Any, reason: Reason | None) -> None:
    status = to_status(read_job({"id": "j", "status": "failed", "error": error}), seen_at=1)
    assert status.reason is reason
    assert status.message == (error["message"] if isinstance(error, dict) else "")


def test_a_suffix_keeps_what_tells_runs_apart() -> None:
    assert suffix_of("card-1234abcd-1") == "card-1234abcd-1"
    long = suffix_of("a-very-long-name-of-a-job-indeed-1234abcd-17")
    assert len(long) <= 40
    assert long.endswith("-1234abcd-17")
    assert not long.startswith("-")


def test_metrics_come_from_data_or_from_words() -> None:
    said = [
        {"id": "1", "created_at": 5, "data": {"step": 1, "total_steps": 9, "train_loss": 2.5}},
        {"id": "2", "created_at": 6, "message": "Step 2/9: training loss=1.25, validation loss=3e-1"},
        {"id": "3", "created_at": 7, "message": "Job enqueued."},
        {"id": "4", "created_at": 8, "data": {"step": 2, "train_loss": 1.25}},
        {"id": "5", "created_at": 9, "data": {"step": 3, "train_loss": -1, "valid_loss": "NaN"}},
    ]
    given_so_far, events = Given(), []
    for each in map(read_event, said):
        events += events_of(metrics_of(each), each.at, given_so_far)
    assert events == [
        {"event": "started", "time": 5.0, "steps_total": 9},
        {"event": "step", "time": 5.0, "step": 1, "loss": 2.5},
        {"event": "step", "time": 6.0, "step": 2, "loss": 1.25},
        {"event": "validation", "time": 6.0, "step": 2, "loss": 0.3},
    ]


def test_results_are_read_by_step_with_gaps() -> None:
    text = (
        "\ufeffstep,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\r\n"
        "2,0.5,0.9,,\r\n1,1.0,0.8,-1.0,-1.0\r\n3,0.25,,0.4,0.95\r\nodd,1,,,\r\n"
    )
    rows = read_rows(text.encode())
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert last_values(rows) == {"train_loss": 0.25, "loss": 0.4, "token_accuracy": 0.95}
    assert read_rows(b"") == read_rows(b"no,steps\n1,2\n") == []
