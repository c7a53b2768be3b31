"""A submission that is cut off anywhere, whose answers are lost, or that is done twice, is one job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.errors import ConflictError, MaasError, NotFoundError, QuotaError, UnavailableError
from maas_client.plan import Plan
from maas_client.run import RunRef, RunState
from maas_client.simulator.world import World
from maas_client.spec import DeploySpec
from tests.backends.foundry.openai_v1.stage import Stage

POST = "POST /openai/v1/fine_tuning/jobs"
SUBMIT = (
    "GET /openai/v1/fine_tuning/jobs",
    "GET /openai/v1/files",
    "POST /openai/v1/files",
    "GET /openai/v1/files",
    "POST /openai/v1/files",
    "GET /openai/v1/fine_tuning/jobs",
    POST,
    "GET /openai/v1/fine_tuning/jobs",
)


@pytest.fixture
def waiting(world: World) -> World:
    """A world in which jobs wait for ever."""
    world.timing.queue_s = 1e12
    return world


def until_done(act: Callable[[], Any], times: int = 5) -> Any:
    """The same command, given again while it says that it may be."""
    for _ in range(times):
        try:
            return act()
        except UnavailableError:
            continue
    return act()


class Killed(BaseException):
    """The process is gone at this point."""


class Killing(httpx.BaseTransport):
    """Ends the process before (or after) request number `at`."""

    def __init__(self, inner: httpx.BaseTransport, at: int, *, after: bool) -> None:
        self.inner, self.at, self.after, self.count = inner, at, after, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        number = self.count
        self.count += 1
        if number == self.at and not self.after:
            raise Killed
        answer = self.inner.handle_request(request)
        if number == self.at:
            raise Killed
        return answer


def terminal(world: World, home: Path, wrap: Callable[[Any], Any] | None = None) -> Stage:
    """A process of its own: nothing but the home is shared with another."""
    stage = Stage(world, home)
    if wrap is not None:
        stage.transport.inner = wrap(stage.transport.inner)
    return stage


def test_exactly_once_a_submission_makes_these_requests(waiting: World, stage: Stage) -> None:
    plan = stage.plan()
    stage.jobs.submit(plan)
    assert tuple(stage.transport.asked) == SUBMIT
    stage.transport.asked.clear()
    stage.jobs.submit(plan)
    assert stage.transport.asked == [SUBMIT[0]]


@pytest.mark.parametrize("kind", ["reset", "lost"])
@pytest.mark.parametrize("number", range(len(SUBMIT)))
def test_exactly_once_a_broken_connection_at_any_request(
    waiting: World, stage: Stage, number: int, kind: str
) -> None:
    plan = stage.plan()
    inner, count = stage.transport.inner, 0

    class Breaking(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal count
            mine, count = count, count + 1
            if mine == number and kind == "reset":
                raise httpx.ReadError("reset")
            answer = inner.handle_request(request)
            if mine == number:
                raise httpx.ReadError("lost")
            return answer

    stage.transport.inner = Breaking()
    ref = until_done(lambda: stage.jobs.submit(plan))
    assert ref == RunRef("foundry", plan.run_id)
    assert len(stage.tunings()) == 1
    assert stage.jobs.status(ref).state is RunState.QUEUED
    posts = stage.transport.asked.count(POST)
    assert posts == (2 if (number, kind) == (SUBMIT.index(POST), "reset") else 1)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(len(SUBMIT)))
@pytest.mark.parametrize("keeps_home", [True, False])
def test_exactly_once_a_process_gone_at_any_request_is_taken_up(
    waiting: World, tmp_path: Path, number: int, after: bool, keeps_home: bool
) -> None:
    home = tmp_path / "one" / "foundry"
    first = terminal(waiting, home, lambda inner: Killing(inner, number, after=after))
    plan = first.plan()
    with pytest.raises(Killed):
        first.jobs.submit(plan)
    second = terminal(waiting, home if keeps_home else tmp_path / "two" / "foundry")
    ref = second.jobs.submit(plan)
    assert len(second.tunings()) == 1
    assert second.jobs.status(ref).state is RunState.QUEUED
    files = [file["filename"] for file in files_of(waiting)]
    assert len(set(files)) == len(files) == 2


def files_of(world: World) -> list[Any]:
    return world.store.members(f"{world.names.foundry_id}/openai-files")


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_exactly_once_a_service_that_did_it_and_says_otherwise(
    waiting: World, stage: Stage, status: int
) -> None:
    plan, inner = stage.plan(), stage.transport.inner
    stage.transport.inner = Answering(inner, POST, status, does_it=True)
    ref = stage.jobs.submit(plan)
    assert len(stage.tunings()) == 1
    assert stage.jobs.status(ref).state is RunState.QUEUED
    assert stage.transport.asked.count(POST) == 1


class Answering(httpx.BaseTransport):
    """Answers the first such request with a status, whether or not it was done."""

    def __init__(
        self, inner: httpx.BaseTransport, match: str, status: int, *, does_it: bool, **headers: str
    ) -> None:
        self.inner, self.match, self.status, self.does_it = inner, match, status, does_it
        self.headers, self.struck = headers, False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.struck or f"{request.method} {request.url.path}" != self.match:
            return self.inner.handle_request(request)
        self.struck = True
        if self.does_it:
            self.inner.handle_request(request)
        body = {"error": {"code": str(self.status), "message": "Something happened."}}
        return httpx.Response(self.status, json=body, headers=self.headers)


def test_exactly_once_a_throttled_request_is_sent_again_when_the_service_says(
    waiting: World, stage: Stage
) -> None:
    plan = stage.plan()
    stage.transport.inner = Answering(stage.transport.inner, POST, 429, does_it=False, **{"retry-after": "7"})
    stage.jobs.submit(plan)
    assert len(stage.tunings()) == 1
    assert stage.transport.asked.count(POST) == 2
    assert 7.0 in stage.naps


def test_exactly_once_a_list_that_lags_behind_is_looked_at_again(waiting: World, stage: Stage) -> None:
    """The job was made, the answer is lost, and the first look does not show it yet."""
    plan, inner = stage.plan(), stage.transport.inner

    class Lagging(httpx.BaseTransport):
        made = looks = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = inner.handle_request(request)
            if request.method == "POST" and request.url.path.endswith("/fine_tuning/jobs"):
                self.made += 1
                raise httpx.ReadError("lost")
            if self.made and request.url.path.endswith("/fine_tuning/jobs") and self.looks < 2:
                self.looks += 1
                return httpx.Response(200, json={"object": "list", "data": [], "has_more": False})
            return answer

    stage.transport.inner = lagging = Lagging()
    stage.jobs.submit(plan)
    assert (lagging.made, len(stage.tunings())) == (1, 1)


def test_exactly_once_a_refusal_is_not_tried_again(waiting: World, stage: Stage) -> None:
    plan = stage.plan()
    waiting.faults.order({"kind": "quota"})
    with pytest.raises(QuotaError) as caught:
        stage.jobs.submit(plan)
    assert "cancel one" in caught.value.hint
    assert stage.transport.asked.count(POST) == 1
    assert stage.tunings() == []
    stage.jobs.submit(plan)
    assert len(stage.tunings()) == 1


class Meeting(httpx.BaseTransport):
    """Lets two terminals look before either of them sends: neither sees the other's job."""

    def __init__(self, inner: httpx.BaseTransport, barrier: threading.Barrier) -> None:
        self.inner, self.barrier, self.met = inner, barrier, False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self.met and request.method == "POST" and request.url.path.endswith("/fine_tuning/jobs"):
            self.met = True
            self.barrier.wait(20)
        return self.inner.handle_request(request)


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each gave (or raised), all done at the same time."""
    found: list[Any] = [None] * len(acts)

    def run(number: int) -> None:
        try:
            found[number] = acts[number]()
        except MaasError as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_exactly_once_two_terminals_of_one_project(waiting: World, tmp_path: Path) -> None:
    home = tmp_path / "home" / "foundry"
    stages = [terminal(waiting, home) for _ in range(3)]
    plan = stages[0].plan()
    found = at_once(*(lambda stage=stage: stage.jobs.submit(plan) for stage in stages))
    assert set(found) == {RunRef("foundry", plan.run_id)}
    assert len(stages[0].tunings()) == 1


@pytest.mark.parametrize("trial", range(5))
def test_exactly_once_two_terminals_that_cannot_see_each_other(
    waiting: World, tmp_path: Path, trial: int
) -> None:
    """Both look, see nothing and send: the later job is canceled, and both follow the other."""
    barrier = threading.Barrier(2)
    stages = [
        terminal(waiting, tmp_path / name / "foundry", lambda inner: Meeting(inner, barrier))
        for name in ("a", "b")
    ]
    plan = stages[0].plan()
    found = at_once(*(lambda stage=stage: stage.jobs.submit(plan) for stage in stages))
    ref = RunRef("foundry", plan.run_id)
    assert found == [ref, ref]
    assert len(stages[0].tunings()) == 2
    statuses = [stage.jobs.status(ref) for stage in stages]
    [live] = stages[0].live()
    assert live == min((job["created_at"], job["id"]) for job in stages[0].tunings())[1]
    for status in statuses:
        assert status.state is RunState.QUEUED
        assert "Another job was sent at the same time and is not used: ftjob-" in status.message


def test_exactly_once_a_second_job_whose_terminal_is_gone_is_canceled_by_whoever_looks(
    waiting: World, tmp_path: Path
) -> None:
    barrier = threading.Barrier(2)

    def gone_after_post(inner: httpx.BaseTransport) -> httpx.BaseTransport:
        meeting = Meeting(inner, barrier)

        class Gone(httpx.BaseTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                answer = meeting.handle_request(request)
                if meeting.met:
                    raise Killed
                return answer

        return Gone()

    first = terminal(waiting, tmp_path / "a" / "foundry", lambda inner: Meeting(inner, barrier))
    second = terminal(waiting, tmp_path / "b" / "foundry", gone_after_post)
    plan = first.plan()

    def killed() -> str:
        try:
            second.jobs.submit(plan)
        except Killed:
            return "killed"
        return "not killed"

    assert at_once(lambda: first.jobs.submit(plan), killed) == [RunRef("foundry", plan.run_id), "killed"]
    assert len(first.tunings()) == 2
    first.jobs.statuses([RunRef("foundry", plan.run_id)])
    assert len(first.live()) == 1


def test_exactly_once_canceling_a_run_cancels_its_second_job_too(waiting: World, tmp_path: Path) -> None:
    stage = terminal(waiting, tmp_path / "a" / "foundry")
    plan = stage.plan()
    ref = stage.jobs.submit(plan)
    doubled(stage, plan)
    stage.jobs.cancel(ref)
    assert stage.live() == []


def doubled(stage: Stage, plan: Plan) -> None:
    """Somebody sends the same job once more, without looking."""
    [job] = stage.tunings()
    request = {
        "model": job["model"],
        "training_file": job["training_file"],
        "metadata": dict(job["metadata"]),
    }
    stage.account.service.ask(
        "start",
        lambda api: api.fine_tuning.jobs.with_raw_response.create(
            **request, extra_body={"trainingType": "globalStandard"}
        ),
    )


def test_exactly_once_another_plan_under_the_same_name_is_not_taken_for_it(
    waiting: World, stage: Stage
) -> None:
    plan = stage.plan()
    stage.jobs.submit(plan)
    [job] = stage.tunings()
    job["metadata"] = {**job["metadata"], "maas-fingerprint": "ffffffffffff"}
    with pytest.raises(ConflictError, match="not this plan's"):
        stage.jobs.submit(plan)


def test_exactly_once_the_same_rows_are_sent_once(waiting: World, stage: Stage) -> None:
    plan = stage.plan()
    stage.jobs.submit(plan)
    stage.jobs.submit(replace(plan, number=2))
    assert len(stage.tunings()) == 2
    assert len(files_of(waiting)) == 2
    first, second = stage.tunings()
    assert first["training_file"] == second["training_file"]


def test_exactly_once_a_file_that_the_service_could_not_read_is_sent_anew(
    waiting: World, stage: Stage
) -> None:
    plan = stage.plan()
    stage.jobs.submit(plan)
    for file in files_of(waiting):
        file |= {"status": "error", "status_details": "A disk broke."}
    stage.jobs.submit(replace(plan, number=2))
    assert len(files_of(waiting)) == 4


@pytest.mark.parametrize("kind", ["reset", "lost"])
def test_exactly_once_resume(world: World, stage: Stage, kind: str) -> None:
    world.timing.finalizing_s = 1e9
    ref = stage.jobs.submit(stage.plan())
    stage.wait(ref, lambda status: status.state is RunState.RUNNING)
    [job] = stage.tunings()
    stage.account.service.ask("pause", lambda api: api.fine_tuning.jobs.with_raw_response.pause(job["id"]))
    stage.wait(ref, lambda status: status.native_state == "paused")
    stage.transport.order(kind, "/resume")
    if kind == "reset":
        with pytest.raises(UnavailableError):
            stage.jobs.resume(ref)
    stage.jobs.resume(ref)
    assert stage.wait(ref, lambda status: status.state is RunState.RUNNING)
    assert stage.transport.asked.count(f"POST /openai/v1/fine_tuning/jobs/{job['id']}/resume") == (
        2 if kind == "reset" else 1
    )


@pytest.mark.parametrize("kind", ["reset", "lost"])
def test_exactly_once_cancel(waiting: World, stage: Stage, kind: str) -> None:
    ref = stage.jobs.submit(stage.plan())
    stage.transport.order(kind, "/cancel")
    stage.jobs.cancel(ref)
    assert stage.jobs.status(ref).state is RunState.CANCELED


DEPLOY = "/deployments/card-end"


@pytest.mark.parametrize("kind", ["reset", "lost"])
@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_exactly_once_a_deployment_whose_answer_is_lost(
    world: World, stage: Stage, kind: str, verb: str
) -> None:
    model = registered(stage)
    stage.transport.order(kind, f"{verb} {world.names.foundry_id}{DEPLOY}")
    until_done(lambda: stage.platform.endpoints.deploy(model.ref, DeploySpec(name="card-end")))
    assert len(deployments(world)) == 1
    assert len(stage.platform.endpoints.list()) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_exactly_once_a_deployment_cut_off_anywhere(
    world: World, tmp_path: Path, number: int, after: bool
) -> None:
    home = tmp_path / "one" / "foundry"
    model = registered(terminal(world, home))
    cut = terminal(world, home, lambda inner: Killing(inner, number, after=after))
    with suppress(Killed):
        cut.platform.endpoints.deploy(model.ref, DeploySpec(name="card-end"))
    again = terminal(world, home)
    again.platform.endpoints.deploy(model.ref, DeploySpec(name="card-end"))
    assert len(deployments(world)) == 1
    [line] = [each for each in world.bill.to_dict()["lines"] if each["what"].startswith("deployment")][-1:]
    assert line["usd"] is not None
    [seen] = again.platform.endpoints.list()
    again.platform.endpoints.delete(seen.ref)
    assert deployments(world) == []


def test_exactly_once_two_terminals_deploy(world: World, tmp_path: Path) -> None:
    stages = [terminal(world, tmp_path / "one" / "foundry") for _ in range(2)]
    model = registered(stages[0])
    spec = DeploySpec(name="card-end")
    found = at_once(
        *(lambda stage=stage: stage.platform.endpoints.deploy(model.ref, spec) for stage in stages)
    )
    assert [each.ref.name for each in found] == ["card-end", "card-end"]
    assert found[0].expires_at is not None
    assert abs(found[0].expires_at - found[1].expires_at) <= 1
    assert len(deployments(world)) == 1


@pytest.mark.parametrize("number", range(3))
def test_exactly_once_a_delete_that_is_cut_off_is_done_again(
    world: World, tmp_path: Path, number: int
) -> None:
    home = tmp_path / "one" / "foundry"
    stage = terminal(world, home)
    status = stage.platform.endpoints.deploy(registered(stage).ref, DeploySpec(name="card-end"))
    cut = terminal(world, home, lambda inner: Killing(inner, number, after=True))
    with suppress(Killed):
        cut.platform.endpoints.delete(status.ref)
    with suppress(NotFoundError):  # it went on by itself
        terminal(world, home).platform.endpoints.delete(status.ref)
    assert deployments(world) == []
    assert terminal(world, home).platform.endpoints.list() == ()


def registered(stage: Stage) -> Any:
    """The model of a run that has succeeded."""
    from maas_client.model import Lineage

    ref, plan = stage.trained()
    lineage = Lineage(ref.id, plan.spec.model, plan.spec.task, plan.spec.method.name)
    assert stage.platform.models is not None
    return stage.platform.models.register("card", stage.jobs.artifact(ref), lineage)


def deployments(world: World) -> list[Any]:
    from maas_client.simulator.cognitive import deployments as all_of

    return all_of(world)
