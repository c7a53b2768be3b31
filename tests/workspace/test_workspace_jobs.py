"""Jobs over the wire, every status word, why a job waits or failed, and many runs in few requests."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from maas_client.errors import ConflictError, NotFoundError, RejectedError, UnavailableError
from maas_client.run import Reason, RunState, RunStatus
from maas_client.workspace.jobs import STATES, attempt_of, newest_attempts, state_of, to_status
from maas_client.workspace.looks import find_runs, look, look_at_many, newest_attempt
from tests.workspace.wired import NOW, Wired, job_body, refusal

CONTRACTS = Path(__file__).parents[3] / "shared" / "azure"
LOG = "user_logs/std_log.txt"
EXITED = (
    "Execution failed. User process 'bash' exited with status code 1. "
    "Please check log file 'user_logs/std_log.txt' for error details."
)


def error(message: str, *codes: str) -> dict[str, Any]:
    """An error as run history writes it; `codes` from the outside in."""
    inner: Any = None
    for code in reversed(codes[1:]):
        inner = {"code": code, "innerError": inner}
    root = {
        "code": codes[0] if codes else "UserError",
        "message": message,
        "innerError": inner,
        "details": [],
    }
    return {"error": {"error": root, "correlation": {"operation": "0" * 32}, "environment": "eastus2"}}


# -- words


@pytest.mark.skipif(not CONTRACTS.is_dir(), reason="the contracts are not here")
def test_every_word_of_every_published_contract_is_mapped() -> None:
    words: set[str] = set()
    for path in CONTRACTS.rglob("*.json"):
        text = path.read_text(encoding="utf-8-sig")
        if "CancelRequested" not in text:
            continue
        for found in json_lists(json.loads(text)):
            if "CancelRequested" in found and "NotResponding" in found:
                words |= set(found)
    assert len(words) >= 14
    assert words <= set(STATES)


def json_lists(value: Any) -> list[list[str]]:
    """Every list of words in a contract; lists of {key, value} count as their values."""
    if isinstance(value, dict):
        return [found for inner in value.values() for found in json_lists(inner)]
    if isinstance(value, list):
        words = [one.get("value") if isinstance(one, dict) else one for one in value]
        deeper = [found for inner in value for found in json_lists(inner)]
        return [[word for word in words if isinstance(word, str)], *deeper]
    return []


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("NotStarted", RunState.QUEUED),
        ("Preparing", RunState.QUEUED),
        ("running", RunState.RUNNING),
        ("Finalizing", RunState.RUNNING),
        ("CANCELREQUESTED", RunState.CANCELING),
        ("Completed", RunState.SUCCEEDED),
        ("Failed", RunState.FAILED),
        ("Canceled", RunState.CANCELED),
        ("Cancelled", RunState.CANCELED),
        ("NotResponding", RunState.UNKNOWN),
        ("Paused", RunState.UNKNOWN),
        ("Thawing", RunState.UNKNOWN),
        ("", RunState.UNKNOWN),
    ],
)
def test_words_mean_states(word: str, state: RunState) -> None:
    status = to_status({"properties": {"status": word}}, seen_at=NOW)
    assert (state_of(word), status.state, status.native_state) == (state, state, word)


def test_an_unknown_word_is_told() -> None:
    assert to_status({"properties": {"status": "Thawing"}}, seen_at=NOW).message == "Azure ML says Thawing."
    assert to_status({}, seen_at=NOW).message == "Azure ML names no state."


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"properties": None},
        {"properties": {"status": None, "tags": None, "properties": None, "services": None}},
        {"properties": "text"},
        {"properties": {"status": 7}},
        {"name": None, "properties": []},
    ],
)
def test_a_body_of_any_shape_is_a_look(body: dict[str, Any]) -> None:
    status = to_status(body, seen_at=NOW, details={"error": None, "warnings": None, "startTimeUtc": None})
    assert status == RunStatus(RunState.UNKNOWN, status.native_state, NOW, message=status.message)


# -- times


def test_times_come_from_run_details() -> None:
    details = {"startTimeUtc": "2026-11-02T10:00:00.1234567+00:00", "endTimeUtc": "2026-11-02T11:00:00Z"}
    status = to_status(job_body("card-1", "Completed"), seen_at=NOW, details=details)
    assert status.started_at == pytest.approx(1793613600.123456)
    assert status.ended_at == 1793617200
    assert status.exit_code == 0


def test_times_come_from_a_jobs_own_properties() -> None:
    body = {"properties": {"status": "Running", "properties": {"StartTimeUtc": "2024-11-25 07:35:39"}}}
    assert to_status(body, seen_at=NOW).started_at == 1732520139
    stages = json.dumps(
        {"Execution": {"StartTime": "2023-01-05T10:39:40Z", "EndTime": "2023-01-05T10:40:40+00:00"}}
    )
    body = {"properties": {"status": "Completed", "properties": {"azureml.pipelines.stages": stages}}}
    status = to_status(body, seen_at=NOW)
    assert status.ended_at is not None
    assert status.started_at is not None
    assert status.ended_at - status.started_at == 60


@pytest.mark.parametrize("word", ["0001-01-01T00:00:00+00:00", "", "soon", None, 5])
def test_times_that_are_none_are_none(word: Any) -> None:
    details = {"startTimeUtc": word, "endTimeUtc": word}
    status = to_status(job_body("card-1", "Failed"), seen_at=NOW, details=details)
    assert (status.started_at, status.ended_at) == (None, None)


def test_a_run_that_waits_again_has_not_started() -> None:
    details = {"startTimeUtc": "2026-11-02T10:00:00Z", "currentAttemptId": 3}
    status = to_status(job_body("card-1", "Queued"), seen_at=NOW, details=details)
    assert (status.started_at, status.reason) == (None, Reason.PREEMPTED)
    assert "attempt 3" in status.message


# -- reasons


@pytest.mark.parametrize(
    ("reason", "message", "codes"),
    [
        (Reason.QUOTA, "There is not enough quota available for the standardNCSv3Family VM family.", ()),
        (Reason.QUOTA, "Operation could not be completed.", ("QuotaExceeded",)),
        (Reason.CAPACITY, "AllocationFailed: no room for Standard_ND96asr_v4 in eastus.", ("SystemError",)),
        (Reason.CAPACITY, "It failed.", ("UserError", "SkuNotAvailable")),
        (Reason.PREEMPTED, "The job was preempted too often.", ()),
        (Reason.PREEMPTED, "The low priority node was evicted.", ("SystemError",)),
        (Reason.IMAGE, "Image build failed. Check azureml-logs/20_image_build_log.txt.", ("UserError",)),
        (Reason.IMAGE, "Failed to pull Docker image acr/x:1.", ("UserError", "ErrImagePull")),
        (Reason.IDENTITY, "The identity has no permission on the storage account.", ()),
        (Reason.IDENTITY, "Failed.", ("UserError", "UserAssignedIdentityNotFound")),
        (Reason.DATA, "The data at azureml://datastores/x/paths/y was not found.", ()),
        (Reason.DATA, "Failed.", ("UserError", "ScriptExecution.StreamAccess.NotFound")),
        (
            Reason.DATA,
            "Connection my_username_password can't be found in this workspace",
            ("UserError", "NotFoundError"),
        ),
        (Reason.MEMORY, "The container ran out of memory.", ()),
        (Reason.DISK, "No space left on device", ("UserError",)),
        (Reason.KILLED, "The job ran longer than limits.timeout allows and was stopped.", ()),
        (Reason.KILLED, "The node became unhealthy.", ("SystemError",)),
        (Reason.CODE, "Something in the script.", ("UserError",)),
        (None, "Something broke.", ("SystemError",)),
        (None, "InternalServerError", ("ServiceError",)),
    ],
)
def test_reasons_of_the_service(reason: Reason | None, message: str, codes: tuple[str, ...]) -> None:
    status = to_status(job_body("card-1", "Failed"), seen_at=NOW, details=error(message, *codes))
    assert status.reason is reason
    assert status.message == message
    assert status.exit_code is None


@pytest.mark.parametrize(
    ("reason", "code", "tail", "message"),
    [
        (Reason.CODE, 1, ("Traceback", "ValueError: no", ""), "ValueError: no"),
        (Reason.DATA, 2, ("the data is bad in line 3",), "the data is bad in line 3"),
        (Reason.CODE, 2, ("usage: train.py",), "usage: train.py"),
        (
            Reason.MEMORY,
            1,
            ("torch.OutOfMemoryError: CUDA out of memory.",),
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (
            Reason.DISK,
            1,
            ("OSError: [Errno 28] No space left on device",),
            "OSError: [Errno 28] No space left on device",
        ),
        (Reason.KILLED, 137, ("step 3",), "step 3"),
        (Reason.CODE, 1, (), EXITED),
    ],
)
def test_reasons_of_a_command_are_in_its_last_lines(
    reason: Reason, code: int, tail: tuple[str, ...], message: str
) -> None:
    details = error(EXITED.replace("code 1", f"code {code}"), "UserError")
    status = to_status(job_body("card-1", "Failed"), seen_at=NOW, details=details, tail=tail)
    assert (status.reason, status.exit_code, status.tail) == (reason, code, tail)
    assert status.message == message.replace("code 1", f"code {code}") or status.message == message


@pytest.mark.parametrize(
    "words",
    [
        "exited with status code 7",
        "exit code: 7",
        "exited with code 7",
        "returned non-zero exit status 7",
        "exit status 7",
    ],
)
def test_exit_codes_in_any_words(words: str) -> None:
    details = error(f"Process 'python' {words}.", "UserError")
    assert to_status(job_body("card-1", "Failed"), seen_at=NOW, details=details).exit_code == 7


@pytest.mark.parametrize(
    "details",
    [
        {"error": {"error": {"message": "no code"}}},
        {"error": {"code": "UserError", "message": "flat"}},
        {"error": "just text"},
        {"error": {"error": None}},
        {"error": {"error": {"code": None, "message": None, "innerError": {"code": None}}}},
        {"error": json.dumps({"error": {"code": "UserError", "message": "as text"}})},
    ],
)
def test_an_error_of_any_shape_is_told(details: dict[str, Any]) -> None:
    status = to_status(job_body("card-1", "Failed"), seen_at=NOW, details=details)
    assert status.state is RunState.FAILED
    assert status.message


def test_a_secret_in_an_error_is_not_shown() -> None:
    details = error("Cannot read https://x.blob.core.windows.net/a?sv=1&sig=c2VjcmV0c2VjcmV0", "UserError")
    assert "c2VjcmV0" not in to_status(job_body("card-1", "Failed"), seen_at=NOW, details=details).message


def test_why_a_job_waits_is_in_the_warnings() -> None:
    details = {
        "warnings": [{"source": "Quota", "message": "Requested 24 vCPUs exceed the quota of the family."}]
    }
    status = to_status(job_body("card-1", "Queued"), seen_at=NOW, details=details)
    assert (status.state, status.reason) == (RunState.QUEUED, Reason.QUOTA)
    assert "24 vCPUs" in status.message


# -- the wire


def test_get_put_and_cancel_name_the_job_and_the_version() -> None:
    wired = Wired(jobs=[job_body("card-1")])
    sent: list[httpx.Request] = []

    def remember(request: httpx.Request) -> httpx.Response | None:
        sent.append(request)
        if request.method == "PUT":
            return httpx.Response(201, json=json.loads(request.content))
        return httpx.Response(202, headers={"location": "/wait"}) if request.method == "POST" else None

    wired.trouble = remember
    assert wired.client.get("card-1") == job_body("card-1")
    assert wired.client.get("no such job") is None
    assert wired.client.put("card-2", {"properties": {"jobType": "FineTuning"}})["properties"]
    wired.client.cancel("card-1")
    assert [(one.method, one.url.path.rpartition("/ws/")[2]) for one in sent] == [
        ("GET", "jobs/card-1"),
        ("GET", "jobs/no such job"),
        ("PUT", "jobs/card-2"),
        ("POST", "jobs/card-1/cancel"),
    ]
    assert b"no%20such%20job" in sent[1].url.raw_path
    assert {one.url.params["api-version"] for one in sent} == {"2024-10-01-preview"}


@pytest.mark.parametrize("code", ["SubscriptionNotFound", "ResourceGroupNotFound", "ResourceNotFound"])
def test_a_workspace_that_is_not_there_is_not_a_missing_job(code: str) -> None:
    wired = Wired(trouble=lambda _: refusal(404, code, "The Resource 'X/workspaces/ws' was not found."))
    with pytest.raises(NotFoundError):
        wired.client.get("card-1")


@pytest.mark.parametrize(("status", "kind"), [(409, ConflictError), (400, RejectedError)])
def test_cancel_leaves_a_finished_job_alone(status: int, kind: type[Exception]) -> None:
    wired = Wired(jobs=[job_body("card-1", "Completed")])
    wired.trouble = lambda request: (
        refusal(status, "UserError", "It has ended.") if request.method == "POST" else None
    )
    wired.client.cancel("card-1")
    wired.jobs = [job_body("card-1", "Running")]
    with pytest.raises(kind):
        wired.client.cancel("card-1")
    wired.jobs = []
    with pytest.raises(kind):
        wired.client.cancel("card-1")


def test_cancel_is_asked_again_when_the_service_is_away() -> None:
    answers = [httpx.Response(503), httpx.Response(200)]
    Wired(trouble=lambda _: answers.pop(0)).client.cancel("card-1")
    assert answers == []
    with pytest.raises(NotFoundError):
        Wired(trouble=lambda _: refusal(404, "UserError", "Job not found.")).client.cancel("card-1")


def test_a_list_is_paged_and_may_hold_anything() -> None:
    wired = Wired(jobs=[job_body(f"card-{number}", run=f"card-{number}") for number in range(7)], page_size=3)
    assert [body["name"] for body in wired.client.list()] == [f"card-{number}" for number in range(7)]
    assert wired.count("/jobs$") == 3
    assert next(iter(wired.client.list()))["name"] == "card-0"
    assert wired.count("/jobs$") == 4
    wired.trouble = lambda _: httpx.Response(200, json={"value": [None, "x", {}, {"name": "a"}]})
    assert list(wired.client.list()) == [{}, {"name": "a"}]


# -- attempts and many runs


@pytest.mark.parametrize(
    ("name", "run", "expected"),
    [
        ("card-1", "", ("card-1", 1)),
        ("card-1", "card-1", ("card-1", 1)),
        ("card-1-r2", "card-1", ("card-1", 2)),
        ("card-1-r12", "card-1", ("card-1", 12)),
        ("card-1-r2", "", ("card-1-r2", 1)),
        ("other", "card-1", ("other", 1)),
        ("card-1-r0", "card-1", ("card-1-r0", 1)),
    ],
)
def test_a_job_is_an_attempt_of_a_run(name: str, run: str, expected: tuple[str, int]) -> None:
    assert attempt_of(job_body(name, run=run)) == expected


def test_the_newest_attempt_counts_in_any_order() -> None:
    bodies = [
        job_body("a", "Failed", run="a"),
        job_body("a-r2", "Failed", run="a"),
        job_body("a-r10", "Running", run="a"),
        job_body("b", "Completed", run="b"),
        {"name": None},
    ]
    Random(1).shuffle(bodies)
    assert {run: body["name"] for run, body in newest_attempts(bodies).items()} == {"a": "a-r10", "b": "b"}


def test_later_attempts_are_looked_for_only_after_a_failure() -> None:
    wired = Wired(jobs=[job_body("a", "Failed"), job_body("a-r2", "Canceled"), job_body("a-r3", "Completed")])
    body = newest_attempt(wired.client, "a")
    assert body is not None
    assert (body["name"], wired.count("/jobs/")) == ("a-r3", 3)
    assert newest_attempt(wired.client, "b") is None
    wired = Wired(jobs=[job_body("a", "Running")])
    assert newest_attempt(wired.client, "a") is not None
    assert wired.count("/jobs/") == 1


def test_a_look_brings_the_last_words_of_a_failed_run() -> None:
    wired = Wired(jobs=[job_body("a", "Failed")], files={LOG: b"one\nthe data is bad\n"})
    wired.details = {"status": "Failed", **error(EXITED, "UserError"), "startTimeUtc": "2026-11-02T10:00:00Z"}
    status = look(wired.client, wired.history, "a", seen_at=NOW)
    assert status is not None
    assert (status.message, status.tail, status.exit_code) == (
        "the data is bad",
        ("one", "the data is bad"),
        1,
    )
    assert status.started_at == 1793613600
    assert look(wired.client, wired.history, "b", seen_at=NOW) is None


def test_a_look_goes_well_while_run_history_is_away() -> None:
    wired = Wired(jobs=[job_body("a", "Failed")])
    wired.trouble = lambda request: httpx.Response(503) if "history" in request.url.path else None
    status = look(wired.client, wired.history, "a", seen_at=NOW)
    assert status is not None
    assert (status.state, status.message) == (RunState.FAILED, "")


def many(count: int, *, newest_first: bool = True, state: str = "Running") -> list[dict[str, Any]]:
    bodies = [job_body(f"card-{number}", state, run=f"card-{number}", made=number) for number in range(count)]
    return bodies[::-1] if newest_first else bodies


def test_a_thousand_runs_are_looked_at_in_a_request_for_fifty() -> None:
    wired = Wired(jobs=many(1000))
    found = look_at_many(wired.client, wired.history, [f"card-{n}" for n in range(1000)], seen_at=NOW)
    assert len(found) == 1000
    assert {status.state for status in found.values()} == {RunState.RUNNING}
    assert len(wired.asked) <= 21


def test_new_runs_in_a_full_workspace_need_no_long_list() -> None:
    wired = Wired(jobs=many(3000))
    assert set(find_runs(wired.client, ["card-2990", "card-2980", "card-2970"])) == {
        "card-2990",
        "card-2980",
        "card-2970",
    }
    assert wired.count("/jobs$") == 1
    wired.asked.clear()
    assert set(find_runs(wired.client, ["card-1", "card-2", "card-3"])) == {"card-1", "card-2", "card-3"}
    assert len(wired.asked) <= 6
    wired.asked.clear()
    assert set(find_runs(wired.client, ["card-7"])) == {"card-7"}
    assert len(wired.asked) == 1


def test_runs_that_are_not_there_are_left_out() -> None:
    wired = Wired(jobs=many(120))
    wanted = [f"card-{n}" for n in range(115)] + ["gone-1", "gone-2"]
    assert set(find_runs(wired.client, wanted)) == set(wanted) - {"gone-1", "gone-2"}
    assert find_runs(wired.client, []) == {}


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_newest_attempt_is_found_in_a_list_of_any_order(newest_first: bool) -> None:
    jobs = many(150, state="Failed", newest_first=newest_first)
    again = [
        job_body("card-3-r2", "Failed", run="card-3", made=200),
        job_body("card-3-r3", "Running", run="card-3", made=210),
        job_body("card-140-r2", "Completed", run="card-140", made=220),
    ]
    jobs = [*reversed(again), *jobs] if newest_first else [*jobs, *again]
    wired = Wired(jobs=jobs, details={"status": "Failed"})
    found = look_at_many(wired.client, wired.history, [f"card-{n}" for n in range(150)], seen_at=NOW)
    assert found["card-3"].state is RunState.RUNNING
    assert found["card-140"].state is RunState.SUCCEEDED
    assert found["card-4"].state is RunState.FAILED
    assert wired.count("/details") <= 20


def test_many_looks_fail_when_nothing_can_be_asked() -> None:
    wired = Wired(trouble=lambda _: httpx.Response(503))
    with pytest.raises(UnavailableError):
        look_at_many(wired.client, wired.history, ["a", "b", "c"], seen_at=NOW)
