"""Projects: where their home is, and what submitting means when things were there, failed or were cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.backend import Platform
from maas_client.check import Check
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import ConflictError, DataError, NotFoundError, PlanError, TargetError
from maas_client.plan import Plan
from maas_client.project import Project, open_project
from maas_client.run import RunState
from maas_client.spec import DeploySpec
from maas_client.specfile import load_spec
from tests.conftest import JOB
from tests.fakes import NAME, CutOffError, World

WriteJob = Callable[..., Path]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def reopen(tmp_path: Path, world: World) -> Callable[[], Project]:
    """A project on the same home, as each new process opens it."""
    return lambda: Project(tmp_path / "home", platforms={NAME: world.open()})


@pytest.fixture
def project(reopen: Callable[[], Project]) -> Project:
    return reopen()


@pytest.fixture
def plan(project: Project, write_job: WriteJob) -> Plan:
    return project.plan(load_spec(write_job(JOB + "register: {name: kept}\ndeploy: {name: served}\n")))


# -- submitting


def test_the_same_plan_is_the_same_run(project: Project, plan: Plan, world: World) -> None:
    first = project.submit(plan)
    assert (first.id, first.state) == (plan.run_id, RunState.RUNNING)
    assert project.submit(plan).id == first.id
    assert world.submissions == [plan.run_id]
    assert [one.verb for one in project.ledger.actions()] == ["submit"]


def test_a_run_that_is_done_is_left_as_it_is(project: Project, plan: Plan, world: World) -> None:
    world.looks_until_end = 0
    assert project.submit(plan).state is RunState.SUCCEEDED
    assert project.submit(plan).state is RunState.SUCCEEDED
    assert world.submissions == [plan.run_id]
    assert world.resumptions == []


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELED])
def test_a_run_that_ended_without_success_goes_on(
    project: Project, plan: Plan, world: World, state: RunState
) -> None:
    project.submit(plan)
    world.states[plan.run_id] = state
    assert project.submit(plan).state is RunState.RUNNING
    assert world.resumptions == [plan.run_id]
    assert world.submissions == [plan.run_id]
    assert [one.verb for one in project.ledger.actions(plan.run_id)] == ["submit", "resume"]


def test_again_is_a_new_run(project: Project, plan: Plan, world: World) -> None:
    project.submit(plan)
    second = project.submit(plan, again=True)
    assert (second.number, second.id) == (2, replace(plan, number=2).run_id)
    assert project.submit(plan).id == second.id
    assert world.submissions == [plan.run_id, second.id]


@pytest.mark.parametrize("cut_at", [0, 1])
def test_a_check_that_was_cut_off_leaves_nothing(
    reopen: Callable[[], Project], plan: Plan, world: World, cut_at: int
) -> None:
    world.cut_at = cut_at
    with pytest.raises(CutOffError):
        reopen().submit(plan)
    assert reopen().runs() == []
    world.cut_at = None
    assert reopen().submit(plan).state is RunState.RUNNING


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("cut_at", [2, 3])
def test_a_submission_that_was_cut_off_is_made_by_the_next_try(
    reopen: Callable[[], Project], plan: Plan, world: World, again: bool, cut_at: int
) -> None:
    world.cut_at = cut_at
    with pytest.raises(CutOffError):
        reopen().submit(plan, again=again)
    recorded = reopen().runs()
    assert [run.id for run in recorded] == [plan.run_id]
    assert reopen().ledger.actions(plan.run_id)[0].result is None
    world.cut_at = None
    assert reopen().submit(plan, again=again).id == plan.run_id
    assert world.submissions == [plan.run_id]
    assert len(reopen().runs()) == 1
    assert reopen().submit(plan, again=True).number == 2


def test_a_run_resumed_by_someone_else_meanwhile_is_taken_up(
    project: Project, plan: Plan, world: World
) -> None:
    world.looks_until_end = 9
    project.submit(plan)
    world.states[plan.run_id] = RunState.FAILED
    jobs = world.open().jobs

    class OvertakenJobs(type(jobs)):  # type: ignore[misc]
        def resume(self, _: object) -> None:
            world.states[plan.run_id] = RunState.RUNNING
            raise ConflictError("It runs.")

    overtaken = Project(project.home, platforms={NAME: replace(world.open(), jobs=OvertakenJobs(world))})
    assert overtaken.submit(plan).state is RunState.RUNNING


def test_looking_keeps_what_was_seen(project: Project, plan: Plan) -> None:
    record = project.submit(plan)
    for _ in range(3):
        status = project.look(record)
    assert status.state is RunState.SUCCEEDED
    assert project.find("last").state is RunState.SUCCEEDED
    assert project.find("card-support").id == record.id


def test_canceling_is_written_down(project: Project, plan: Plan) -> None:
    record = project.submit(plan)
    project.cancel(record)
    project.cancel(record)
    assert project.look(record).state is RunState.CANCELED
    assert [one.verb for one in project.ledger.actions(record.id)] == ["submit", "cancel", "cancel"]


def test_a_refused_action_is_written_down_with_its_error(project: Project, plan: Plan) -> None:
    record = project.submit(plan)
    with pytest.raises(ConflictError):
        project.resume(record)
    assert project.ledger.actions(record.id)[-1].error == f"Run {record.id} is running."


# -- scoring, models, endpoints


def finished(project: Project, plan: Plan, world: World) -> str:
    world.looks_until_end = 0
    return project.submit(plan).id


def test_scoring_is_a_run_of_its_own_and_needs_no_training_rows(
    project: Project, plan: Plan, world: World, tmp_path: Path
) -> None:
    trained = project.find(finished(project, plan, world))
    plan.spec.data.train.unlink()
    rows = tmp_path / "other.jsonl"
    rows.write_text('{"text": "a", "label": "b"}\n')
    scoring = project.submit(project.plan_evaluation(trained, rows))
    assert scoring.name == "card-support-eval"
    assert scoring.plan["command"].startswith("python evaluate.py ")
    assert project.submit(project.plan_evaluation(trained, rows)).id == scoring.id
    assert project.find("card-support").id == trained.id
    rows.write_text('{"text": "c", "label": "d"}\n')
    assert project.submit(project.plan_evaluation(trained, rows)).id != scoring.id
    with pytest.raises(DataError, match="There is no file"):
        project.plan_evaluation(trained, tmp_path / "nothing.jsonl")


def test_a_version_says_where_it_came_from(project: Project, plan: Plan, world: World) -> None:
    record = project.find(finished(project, plan, world))
    model = project.register(record)
    assert str(model.ref) == "kept:1"
    assert model.lineage.run == record.id
    assert model.lineage.hashes == dict(plan.hashes)
    assert model.lineage.config["training"]["epochs"] == 1
    assert project.register(record).ref == model.ref
    assert str(project.register(record, "other").ref) == "other:1"
    assert project.model("kept").ref == project.model("kept:1").ref == project.model("kept:latest").ref
    with pytest.raises(NotFoundError):
        project.model("kept:2")


def test_a_run_that_has_not_succeeded_cannot_be_registered(project: Project, plan: Plan) -> None:
    with pytest.raises(ConflictError):
        project.register(project.submit(plan))
    assert project.models() == ()


def test_endpoints_are_deployed_once_and_deleted(project: Project, plan: Plan, world: World) -> None:
    model = project.register(project.find(finished(project, plan, world)))
    spec = DeploySpec(name="served", ttl="1h")
    first = project.deploy(model, spec)
    assert project.deploy(model, spec).ref == first.ref
    assert len(project.endpoints()) == 1
    assert project.endpoint("local://served").ref == first.ref
    project.delete_endpoint("served")
    project.delete_endpoint("served")
    assert project.endpoints() == []
    deployed = project.ledger.actions("served")[0]
    assert deployed.result == {"endpoint": "local://served", "expires_at": 3601.0}


def test_what_is_over_is_what_reap_deletes(project: Project, world: World) -> None:
    ends: list[tuple[EndpointState, float | None]] = [
        (EndpointState.READY, None),
        (EndpointState.READY, 100.0),
        (EndpointState.STARTING, 9.0),
        (EndpointState.UNKNOWN, None),
        (EndpointState.STOPPED, None),
        (EndpointState.FAILED, 100.0),
        (EndpointState.EXPIRED, 100.0),
    ]
    for number, (state, end) in enumerate(ends):
        ref = EndpointRef(NAME, f"e{number}")
        status = EndpointStatus(ref, state, state.value, 1.0, "m:1", Billing.FREE, expires_at=end)
        world.endpoints[ref.name] = status
    assert [status.ref.name for status in project.expired(10.0)] == ["e2", "e4", "e5", "e6"]


def test_a_place_without_models_or_endpoints_says_so(tmp_path: Path, world: World) -> None:
    bare = Platform(NAME, world.open().jobs, None, None)
    project = Project(tmp_path, platforms={NAME: bare})
    assert project.models() == ()
    assert project.endpoints() == []
    with pytest.raises(PlanError, match="keeps no models"):
        project.registry(NAME)
    with pytest.raises(PlanError, match="serves no models"):
        project.serving(NAME)


@pytest.mark.parametrize("backend", ["kaito"])
def test_a_backend_that_is_not_installed_says_so(project: Project, backend: str) -> None:
    with pytest.raises(PlanError, match="is not part of this installation"):
        project.platform(backend)


# -- services


HERE = "workspace ws in rg, subscription 1111"
AWAY = "workspace old in rg-2, subscription 2222"


@pytest.fixture
def service(tmp_path: Path) -> World:
    return World(tmp_path / "azure", name="azureml", target=HERE, named=(HERE,), is_free=False)


@pytest.fixture
def both(tmp_path: Path, world: World, service: World) -> Callable[[], Project]:
    """A project with this machine and a service, as each new process opens it."""
    return lambda: Project(tmp_path / "home", platforms={NAME: world.open(), "azureml": service.open()})


@pytest.fixture
def sent(both: Callable[[], Project], write_job: WriteJob, service: World) -> str:
    """The id of a run that was sent to the service."""
    service.looks_until_end = 0
    job = write_job(JOB + "backend: azureml\nregister: {name: kept}\n")
    project = both()
    return project.submit(project.plan(load_spec(job))).id


def test_what_a_service_says_cannot_work_is_not_sent(
    both: Callable[[], Project], write_job: WriteJob, service: World
) -> None:
    service.checks = (
        Check("Quota", False, "needs 24 cores; 0 of 0 are left", "Ask for quota."),
        Check("Region", None, "not told"),
        Check("Sign-in", True, "object o of tenant t"),
    )
    project = both()
    plan = project.plan(load_spec(write_job(JOB + "backend: azureml\n")))
    with pytest.raises(PlanError, match="failed a check") as caught:
        project.submit(plan)
    assert caught.value.problems == ("Quota: needs 24 cores; 0 of 0 are left. Ask for quota.",)
    assert (project.runs(), service.submissions) == ([], [])
    service.checks = service.checks[1:]
    assert project.preflight(plan) == service.checks
    assert project.submit(plan).id == plan.run_id
    service.checks = (Check("Quota", False, "none left"),)
    assert project.preflight(plan) == ()
    assert project.submit(plan).id == plan.run_id
    with pytest.raises(PlanError):
        project.submit(plan, again=True)
    assert project.preflight(plan, again=True, ask_service=False) == ()


def test_nothing_is_changed_in_another_target(both: Callable[[], Project], service: World, sent: str) -> None:
    service.named = (AWAY,)
    project = both()
    record = project.find(sent)
    calls: list[Callable[[], object]] = [
        lambda: project.cancel(record),
        lambda: project.resume(record),
        lambda: project.look(record),
        lambda: project.register(record),
        lambda: project.artifact(record),
    ]
    for call in calls:
        with pytest.raises(TargetError) as caught:
            call()
        said = f"Run {sent} is in {HERE}, and the settings name {AWAY}; nothing was sent."
        assert caught.value.message == said
        assert "AZUREML_WORKSPACE_NAME=ws" in caught.value.hint
    assert [one.verb for one in project.ledger.actions()] == ["submit"]
    service.named = ()
    with pytest.raises(TargetError, match="the settings name none"):
        both().cancel(record)
    service.named = (AWAY, HERE)
    both().cancel(record)


def test_every_change_is_written_down_with_where_it_is(
    both: Callable[[], Project], service: World, sent: str
) -> None:
    project = both()
    record = project.find(sent)
    model = project.register(record)
    project.deploy(model, DeploySpec(name="served"), backend="azureml")
    project.deploy(model, DeploySpec(name="served"), backend="azureml")
    project.traffic("served", {"v1": 100})
    project.cancel(record)
    project.delete_endpoint("served")
    actions = project.ledger.actions()
    verbs = ["submit", "register", "deploy", "deploy", "set traffic", "cancel", "delete endpoint"]
    assert [one.verb for one in actions] == verbs
    assert {(one.intent["backend"], one.intent["target"]) for one in actions} == {("azureml", HERE)}
    of_run = [one.verb for one in project.ledger.actions(sent)]
    assert of_run == ["submit", "register", "deploy", "deploy", "cancel"]


# -- where a project lives


def test_the_nearest_home_upward_wins(empty_home: Path) -> None:
    (empty_home / ".git").mkdir()
    (empty_home / "a" / ".maas").mkdir(parents=True)
    (empty_home / "a" / "b").mkdir()
    assert open_project(empty_home / "a" / "b").home == empty_home / "a" / ".maas"
    assert open_project(empty_home).home == empty_home / ".maas"


def test_a_checkout_gets_its_own_home(empty_home: Path) -> None:
    (empty_home / "pyproject.toml").touch()
    (empty_home / "deep").mkdir()
    assert open_project(empty_home / "deep").home == empty_home / ".maas"
    assert not (empty_home / ".maas").exists()


def test_outside_a_project_it_is_the_state_folder(empty_home: Path, tmp_path: Path) -> None:
    assert open_project().home == tmp_path / "state" / "maas"


def test_the_environment_wins(empty_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (empty_home / ".maas").mkdir()
    monkeypatch.setenv("MAAS_HOME", str(tmp_path / "mine"))
    assert open_project().home == tmp_path / "mine"
    monkeypatch.setenv("MAAS_HOME", "~/mine")
    assert open_project().home == tmp_path / "home" / "mine"
    monkeypatch.setenv("MAAS_HOME", "")
    assert open_project().home == empty_home / ".maas"
