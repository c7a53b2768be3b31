"""What the live service said of jobs, runs, logs and metrics, told again in other ids, orders and pages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.errors import NotFoundError, RejectedError, ServiceError, UnavailableError
from maas_client.run import Reason, RunState
from maas_client.workspace.jobs import to_status
from maas_client.workspace.looks import find_runs, look, look_at_many
from maas_client.workspace.metrics import read_metrics
from tests.transport.recorded import FOLDER, Exchange, conversations, scrambled
from tests.workspace.wired import NOW, Wired

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not here")

STATES = {
    "NotStarted": RunState.QUEUED,
    "Starting": RunState.QUEUED,
    "Preparing": RunState.QUEUED,
    "Queued": RunState.QUEUED,
    "Running": RunState.RUNNING,
    "CancelRequested": RunState.CANCELING,
    "Completed": RunState.SUCCEEDED,
    "Failed": RunState.FAILED,
    None: RunState.UNKNOWN,
}
NEEDED = {
    "name",
    "id",
    "properties",
    "status",
    "tags",
    "systemdata",
    "createdat",
    "value",
    "error",
    "message",
    "code",
}
NEEDED |= {"createdutc", "step", "starttimeutc", "endtimeutc", "innererror"}
NAMED_BY_PEOPLE = {"tags", "data", "logfiles"}
SEEDS = st.integers(0, 2**32)
WATCHED = r"/details$|/executionlogs\.txt"
MANY = settings(max_examples=8, deadline=None)
ONE_JOB = re.compile(r"/Microsoft\.MachineLearningServices/workspaces/[^/]+/jobs/[^/]+$")


def told(chance: Random, pattern: str, **wanted: Any) -> Iterator[Exchange]:
    """Recorded exchanges whose path matches, each conversation with ids of its own."""
    for exchanges in conversations().values():
        chosen = [
            one
            for one in exchanges
            if re.search(pattern, urlsplit(one.url).path)
            and all(getattr(one, key) == value for key, value in wanted.items())
        ]
        yield from scrambled(chosen, chance) if chosen else ()


def job_bodies(chance: Random) -> list[Exchange]:
    """Every answer that shows a job, whatever was asked."""
    return [one for one in told(chance, ONE_JOB.pattern) if one.status < 300 and isinstance(one.body, dict)]


def odd(value: Any, chance: Random) -> Any:
    """The same JSON as a later service might write it.

    Members that nobody needs are null, gone or joined by new ones; names begin with another letter case.
    """
    if isinstance(value, list):
        return [odd(inner, chance) for inner in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for name, inner in value.items():
        if name.lower() in NAMED_BY_PEOPLE:
            made[name] = inner
            continue
        if name.lower() not in NEEDED and chance.random() < 0.3:
            if chance.random() < 0.5:
                made[name] = None
            continue
        first = name[:1].swapcase() if chance.random() < 0.2 else name[:1]
        made[first + name[1:]] = odd(inner, chance)
    return made | {f"new{chance.randrange(99)}": chance.choice([None, {}, [], "x", 1, {"status": "Failed"}])}


def any_case(word: str, chance: Random) -> str:
    return chance.choice([word, word, word.lower(), word.upper()])


def word_of(one: Exchange) -> str | None:
    word = (one.body.get("properties") or {}).get("status")
    return word if isinstance(word, str) else None


def plain(one: Exchange, name: str, body: Any) -> dict[str, Any]:
    """A recorded job under another name, as the wire of these tests keeps it."""
    properties = body.get("properties") or {}
    return {**body, "name": name, "properties": {**properties, "tags": {"maas-run": name}}}


@MANY
@given(SEEDS)
def test_every_recorded_job_is_in_the_state_that_it_was_in(seed: int) -> None:
    chance, count = Random(seed), 0
    for one in job_bodies(chance):
        count += 1
        word = word_of(one)
        wired = Wired(trouble=lambda _, one=one: one.response())
        found = wired.client.get("any")
        assert found is not None
        assert to_status(found, seen_at=NOW).state is STATES[word]
        body = odd(one.body, chance)
        if word is not None:
            key = next(key for key in body if key.lower() == "properties")
            inner = next(key for key in body[key] if key.lower() == "status")
            body[key][inner] = any_case(word, chance)
        status = to_status(body, seen_at=NOW)
        assert status.state is STATES[word], one.url
        assert status.native_state.lower() == (word or "").lower()
        assert status.seen_at == NOW
    assert count >= 60


@MANY
@given(SEEDS)
def test_recorded_times_are_told_and_never_made_up(seed: int) -> None:
    statuses = [(one, to_status(one.body, seen_at=NOW)) for one in job_bodies(Random(seed))]
    for one, status in statuses:
        if status.state in {RunState.QUEUED, RunState.UNKNOWN}:
            assert status.started_at is None or status.state is RunState.UNKNOWN
        if not status.state.is_final:
            assert status.ended_at is None
        if status.started_at is not None and status.ended_at is not None:
            assert status.started_at <= status.ended_at, one.url
    assert sum(1 for _, status in statuses if status.started_at is not None) >= 3
    assert sum(1 for _, status in statuses if status.ended_at is not None) >= 2


@MANY
@given(SEEDS, st.integers(1, 40))
def test_recorded_jobs_are_found_in_lists_of_any_order_and_page(seed: int, page_size: int) -> None:
    chance = Random(seed)
    seen = [plain(one, f"job-{number}", one.body) for number, one in enumerate(job_bodies(chance))]
    chance.shuffle(seen)
    wired = Wired(jobs=seen, page_size=page_size, details={})
    expected = {one["name"]: STATES[one["properties"].get("status")] for one in seen}
    wanted = chance.sample(sorted(expected), chance.randrange(2, len(expected)))
    statuses = look_at_many(wired.client, wired.history, [*wanted, "nobody"], seen_at=NOW)
    assert {name: status.state for name, status in statuses.items()} == {
        name: expected[name] for name in wanted
    }
    assert set(find_runs(wired.client, wanted[:1])) == set(wanted[:1])
    assert sorted(body["name"] for body in wired.client.list()) == sorted(expected)


@MANY
@given(SEEDS)
def test_every_recorded_refusal_about_a_job_is_the_right_error(seed: int) -> None:
    chance, count = Random(seed), 0
    for one in told(chance, ONE_JOB.pattern):
        if one.status < 400:
            continue
        count += 1
        body = odd(one.body, chance)
        wired = Wired(trouble=lambda _, one=one, body=body: httpx.Response(one.status, json=body))
        if one.method == "GET":
            assert one.status == 404
            assert wired.client.get("any") is None
            continue
        kind = {400: RejectedError, 404: NotFoundError}[one.status]
        with pytest.raises(kind) as caught:
            wired.client.put("any", {"properties": {}})
        assert caught.value.status == one.status
        assert caught.value.message.startswith("Cannot start job any: ")
    assert count >= 6


@MANY
@given(SEEDS)
def test_a_recorded_cancel_is_asked_and_not_waited_for(seed: int) -> None:
    count = 0
    for one in told(Random(seed), r"MachineLearningServices/.*/jobs/[^/]+/cancel$", method="POST"):
        count += 1
        wired = Wired(trouble=lambda _, one=one: one.response())
        wired.client.cancel("card-1")
        assert len(wired.asked) == 1
        assert one.status == 202
    assert count >= 3


@MANY
@given(SEEDS, st.sampled_from([408, 429, 500, 502, 503, 504]), st.integers(0, 4))
def test_recorded_jobs_are_seen_through_trouble(seed: int, status: int, times: int) -> None:
    chance = Random(seed)
    for one in chance.sample(job_bodies(chance), 5):
        left = [status] * times

        def answer(_: httpx.Request, left: list[int] = left, one: Exchange = one) -> httpx.Response:
            if left:
                return httpx.Response(left.pop(), headers={"retry-after": "1"})
            return one.response()

        found = Wired(trouble=answer).client.get("any")
        assert found is not None
        assert to_status(found, seen_at=NOW).state is STATES[word_of(one)]


@pytest.mark.parametrize("status", [500, 504])
def test_a_recorded_outage_that_stays_is_unavailable(status: int) -> None:
    outages = [one for exchanges in conversations().values() for one in exchanges if one.status == status]
    assert outages
    for one in outages:
        wired = Wired(trouble=lambda _, one=one: one.response())
        with pytest.raises(UnavailableError) as caught:
            wired.client.get("card-1")
        assert caught.value.request_id
        assert len(wired.asked) == 5


# -- run history


def watch() -> list[Exchange]:
    """A recorded watch of a run to its end: its details and its log, turn by turn."""
    name = next(name for name in conversations() if "test_register_output_yaml_succeed" in name)
    turns = [one for one in conversations()[name] if re.search(WATCHED, urlsplit(one.url).path)]
    return [replace(one, body=shortened(one.body)) for one in turns]


def shortened(body: Any) -> Any:
    """Details without the long definition of the run, which nobody reads here."""
    return {**body, "runDefinition": {}} if isinstance(body, dict) else body


class Replay:
    """Answers as the service did then: each look at the details moves the recording on to its next turn."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.turns = [one for one in scrambled(watch(), chance) if one.url.endswith("/details")]
        self.logs: list[bytes] = [b""]
        for one in watch():
            if one.url.endswith("/details"):
                self.logs.append(self.logs[-1])
            else:
                self.logs[-1] = base64.b64decode(one.content)
        self.logs.pop(0)
        self.turn = -1

    @property
    def log(self) -> bytes:
        return self.logs[self.turn]

    def __call__(self, request: httpx.Request) -> httpx.Response | None:
        path = unquote(request.url.path)
        if path.endswith("/details"):
            self.turn = min(self.turn + 1, len(self.turns) - 1)
            return httpx.Response(200, json=odd(self.turns[self.turn].body, self.chance))
        if path.endswith(".txt"):
            if self.chance.random() < 0.2:
                return httpx.Response(self.chance.choice([403, 500, 503]))
            if self.chance.random() < 0.3:
                return httpx.Response(200, content=self.log)
            start, end = (int(part) for part in request.headers["range"][6:].split("-"))
            piece = self.log[start : end + 1]
            if not piece:
                return httpx.Response(416)
            return httpx.Response(
                206, content=piece, headers={"content-range": f"bytes {start}-{end}/{len(self.log)}"}
            )
        return None


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_a_recorded_watch_brings_every_line_once(seed: int) -> None:
    chance = Random(seed)
    replay = Replay(chance)
    wired = Wired(trouble=replay)
    lines: list[str] = []
    cursor: str | None = None
    for _ in range(500):
        ended = replay.turn >= len(replay.turns) - 1
        try:
            page = wired.history.log("run", cursor, ended=ended)
        except ServiceError:
            continue
        lines += page.lines
        cursor = page.next
        if cursor is None:
            break
        wired.now += chance.choice([1, 30, 61])
    assert lines == replay.logs[-1].decode().split("\n")[:-1]
    assert len(lines) == 6
    assert cursor is None


@MANY
@given(SEEDS)
def test_recorded_details_tell_the_times(seed: int) -> None:
    chance, spans = Random(seed), []
    for one in told(chance, r"/runs/[^/]+/details$"):
        wired = Wired(
            trouble=lambda request, one=one: one.response() if "details" in request.url.path else None
        )
        status = to_status(
            {"properties": {"status": one.body["status"]}}, seen_at=NOW, details=wired.history.details("run")
        )
        assert status.state is STATES[one.body["status"]]
        assert status.started_at is not None
        if status.ended_at is not None:
            spans.append(round(status.ended_at - status.started_at))
    assert spans == [282]


@MANY
@given(SEEDS)
def test_a_recorded_failure_says_why(seed: int) -> None:
    chance, count = Random(seed), 0
    for one in told(chance, r"/rundata$"):
        run = one.body["runMetadata"] if isinstance(one.body, dict) else {}
        if run.get("status") != "Failed":
            continue
        count += 1
        body = {"name": "a", "properties": {"status": "Failed"}}
        wired = Wired(jobs=[body], details=odd(run, chance))
        status = look(wired.client, wired.history, "a", seen_at=NOW)
        assert status is not None
        assert (status.state, status.reason) == (RunState.FAILED, Reason.DATA)
        assert status.message == "Connection my_username_password can't be found in this workspace"
    assert count == 1


@MANY
@given(SEEDS)
def test_recorded_metrics_are_events(seed: int) -> None:
    """The service's last values, given again as the whole history of each metric."""
    chance, count = Random(seed), 0
    for one in told(chance, r"/metric/v2\.0.*/lastvalues$"):
        count += 1
        known = {metric["name"]: metric for metric in one.body["value"]}
        rows = {name: odd(metric["value"], chance) for name, metric in known.items()}
        page = read_metrics(Wired(metrics=rows).workspace, "run", None, ended=True)
        values = {name: value for event in page.events for name, value in event.items() if name in rows}
        assert values == {name: metric["value"][0]["data"][name] for name, metric in known.items()}
        assert page.next is None
    assert count == 1
