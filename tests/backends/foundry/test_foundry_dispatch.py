"""Two routes behind one face: which is taken, who is asked, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from maas_client.backend import Platform
from maas_client.backends.foundry import open_here
from maas_client.backends.foundry.dispatch import FoundryEndpoints, FoundryJobs, FoundryModels
from maas_client.backends.foundry.memory import Memory
from maas_client.backends.foundry.routing import Routes
from maas_client.bundled import jobs_folder
from maas_client.cloudpath import CloudPath
from maas_client.command import CommandJob, JsonFile
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.errors import AccessDeniedError, NotFoundError, PlanError, SettingsError
from maas_client.model import Lineage, ModelRef, RegisteredModel
from maas_client.plan import Plan
from maas_client.run import Artifact, RunRef, RunState, RunStatus
from maas_client.spec import DeploySpec, JobSpec

WORKSPACE = {
    "AZURE_SUBSCRIPTION_ID": "sub",
    "AZURE_RESOURCE_GROUP": "rg",
    "AZUREML_WORKSPACE_NAME": "hub-project",
}
RESOURCE = {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com"}
NOW = 1_795_660_000.0
DAY = date(2026, 11, 26)


@dataclass
class FakeRoute:
    """One route that knows some things, and says what it was asked."""

    scheme: str
    runs: dict[str, RunState] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    kept: list[RegisteredModel] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    trouble: Exception | None = None
    name: str = "foundry"

    def platform(self) -> Platform:
        return Platform("foundry", self, self, self, targets=lambda: (self.scheme,))  # type: ignore[arg-type]

    def _say(self, what: str) -> None:
        self.asked.append(what)
        if self.trouble is not None:
            raise self.trouble

    def plan(self, spec: JobSpec, job: Any = None) -> Plan:
        self._say("plan")
        config = JsonFile({"route": self.scheme})
        job = CommandJob("", jobs_folder(), {"config": config}, ())
        return Plan(spec, "foundry", self.scheme, job, (), "", False, {})

    def check(self, plan: Plan) -> tuple[()]:
        self._say("check")
        return ()

    def submit(self, plan: Plan) -> RunRef:
        self._say("submit")
        self.runs[plan.run_id] = RunState.QUEUED
        return RunRef("foundry", plan.run_id)

    def status(self, ref: Any) -> Any:
        self._say(f"status {ref}")
        if isinstance(ref, EndpointRef):
            return self._endpoint(ref.name)
        if ref.id not in self.runs:
            raise NotFoundError(f"no run {ref.id}")
        return RunStatus(self.runs[ref.id], self.scheme, NOW)

    def statuses(self, refs: Sequence[RunRef]) -> Mapping[RunRef, RunStatus]:
        self._say(f"statuses of {len(refs)}")
        return {ref: RunStatus(self.runs[ref.id], self.scheme, NOW) for ref in refs if ref.id in self.runs}

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        self._say("register")
        place = artifact.model
        made = RegisteredModel(ModelRef(name, 1), place, NOW + len(self.scheme), lineage, {}, False, 0)
        self.kept.append(made)
        return made

    def list(self, name: str | None = None) -> tuple[Any, ...]:
        self._say("list")
        if name is not None or self.kept:
            return tuple(model for model in self.kept if name in (None, model.ref.name))
        return tuple(self._endpoint(served) for served in self.served)

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        self._say("get")
        for model in self.kept:
            if model.ref.name == name:
                return model
        raise NotFoundError(f"no model {name}")

    def cost(self, model: RegisteredModel, spec: DeploySpec) -> str:
        return f"cost of {self.scheme}"

    def deploy(self, model: ModelRef, spec: DeploySpec) -> EndpointStatus:
        self._say("deploy")
        self.served.append(spec.name)
        return self._endpoint(spec.name)

    def delete(self, ref: EndpointRef) -> None:
        self._say(f"delete {ref}")
        self._endpoint(ref.name)
        self.served.remove(ref.name)

    def _endpoint(self, name: str) -> EndpointStatus:
        if name not in self.served:
            raise NotFoundError(f"no endpoint {name}")
        ref = EndpointRef("foundry", name)
        return EndpointStatus(ref, EndpointState.READY, self.scheme, NOW, "m:1", Billing.BILLING)


class FakeRoutes(Routes):
    """Routes whose platforms are given."""

    def __init__(self, home: Path, **routes: FakeRoute) -> None:
        super().__init__(home, lambda: NOW)
        self.routes = routes

    def is_configured(self, word: str) -> bool:
        return word in self.routes

    def open(self, word: str) -> Platform:
        return self.routes[word].platform()


@dataclass
class Stage:
    classic: FakeRoute
    openai: FakeRoute
    jobs: FoundryJobs
    models: FoundryModels
    endpoints: FoundryEndpoints
    memory: Memory


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    classic, openai = FakeRoute("classic"), FakeRoute("openai")
    routes, memory = FakeRoutes(tmp_path, classic=classic, openai=openai), Memory(tmp_path)
    models = FoundryModels(routes, memory)
    endpoints = FoundryEndpoints(routes, memory, models)
    return Stage(classic, openai, FoundryJobs(routes, memory, lambda: NOW), models, endpoints, memory)


def spec(model: str = "Phi-4-mini-instruct", route: str = "auto", **parts: Any) -> JobSpec:
    wanted = {
        "name": "card",
        "task": "chat",
        "model": model,
        "backend": "foundry",
        "data": {"train": "rows.jsonl"},
        "foundry": {"route": route},
    }
    return JobSpec.model_validate({**wanted, **parts})


@pytest.mark.parametrize(
    ("model", "route", "taken"),
    [
        ("Phi-4-mini-instruct", "auto", "classic"),
        ("gpt-4o-mini", "auto", "openai"),
        ("gpt-oss-20b", "auto", "openai"),
        ("Ministral-3B", "auto", "openai"),
        ("Ministral-3B", "classic", "classic"),
        ("azureml://registries/azureml-xyz/models/Some-Model", "auto", "classic"),
    ],
)
def test_a_job_takes_the_route_that_the_catalog_knows(
    stage: Stage, model: str, route: str, taken: str
) -> None:
    assert stage.jobs.plan(spec(model, route)).target == taken


def test_a_configured_route_goes_before_the_catalog_s_order(tmp_path: Path) -> None:
    classic = FakeRoute("classic")
    routes = FakeRoutes(tmp_path, classic=classic)
    assert routes.choose(spec("Ministral-3B"), DAY) == "classic"


@pytest.mark.parametrize(
    ("model", "route", "words"),
    [
        ("Phi-3-mini-4k-instruct", "auto", "no longer taken on foundry-classic"),
        ("Phi-4-reasoning", "auto", "not offered on foundry-classic"),
        ("Phi-4-mini-instruct", "openai", "not known to be offered on foundry-openai-v1"),
        ("tiny-phi3", "auto", "not known to be offered on foundry-classic"),
        ("Phi-4-minni-instruct", "auto", "no model named"),
    ],
)
def test_a_refusal_comes_before_any_route_is_opened(stage: Stage, model: str, route: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        stage.jobs.plan(spec(model, route))
    assert stage.classic.asked == stage.openai.asked == []


def test_a_plan_goes_where_it_was_made_for_and_is_remembered(stage: Stage) -> None:
    for model, route in (("Phi-4-mini-instruct", stage.classic), ("gpt-4o-mini", stage.openai)):
        plan = stage.jobs.plan(spec(model))
        stage.jobs.check(plan)
        ref = stage.jobs.submit(plan)
        assert route.asked == ["plan", "check", "submit"]
        assert stage.jobs.status(ref).native_state == route.scheme
        assert stage.memory.recall("runs", ref.id) == route.scheme


def test_a_plan_of_another_backend_is_refused(stage: Stage) -> None:
    plan = stage.jobs.plan(spec())
    other = replace(plan, job=CommandJob("python train.py", jobs_folder(), {}, ()))
    for call in (stage.jobs.submit, stage.jobs.check):
        with pytest.raises(PlanError, match="not made for Azure AI Foundry"):
            call(other)


def test_a_lost_memory_is_rebuilt_by_looking(stage: Stage) -> None:
    stage.openai.runs["card-1"] = RunState.RUNNING
    ref = RunRef("foundry", "card-1")
    assert stage.jobs.status(ref).native_state == "openai"
    assert stage.memory.recall("runs", "card-1") == "openai"
    stage.jobs.status(ref)
    assert len(stage.classic.asked) == 1


def test_a_wrong_memory_is_mended(stage: Stage) -> None:
    stage.openai.runs["card-1"] = RunState.RUNNING
    stage.memory.keep("runs", "card-1", "classic")
    assert stage.jobs.status(RunRef("foundry", "card-1")).native_state == "openai"
    assert stage.memory.recall("runs", "card-1") == "openai"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"route": 5}', '{"route": "moon"}'])
def test_a_torn_memory_is_none(stage: Stage, tmp_path: Path, text: str) -> None:
    stage.openai.runs["card-1"] = RunState.RUNNING
    stage.memory.keep("runs", "card-1", "classic")
    (tmp_path / "runs" / "card-1.json").write_text(text)
    assert stage.jobs.status(RunRef("foundry", "card-1")).native_state == "openai"


def test_a_memory_that_cannot_be_written_stops_nothing(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    stage.classic.runs["card-1"] = RunState.RUNNING
    assert stage.jobs.status(RunRef("foundry", "card-1")).state is RunState.RUNNING


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".", "a/b", ""])
def test_names_lead_to_no_other_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"route": "classic"}))
    assert Memory(tmp_path / "m").recall("runs", name) is None


def test_what_no_route_knows_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFoundError, match="no run card-9"):
        stage.jobs.status(RunRef("foundry", "card-9"))
    assert len(stage.classic.asked) == len(stage.openai.asked) == 1


def test_a_route_that_refuses_does_not_hide_the_other(stage: Stage) -> None:
    stage.classic.trouble = AccessDeniedError("no role")
    stage.openai.runs["card-1"] = RunState.RUNNING
    assert stage.jobs.status(RunRef("foundry", "card-1")).native_state == "openai"
    with pytest.raises(AccessDeniedError):
        stage.jobs.status(RunRef("foundry", "card-9"))


def test_the_refusal_of_the_remembered_route_is_raised(stage: Stage) -> None:
    stage.memory.keep("runs", "card-1", "classic")
    stage.classic.trouble = AccessDeniedError("no role")
    with pytest.raises(AccessDeniedError):
        stage.jobs.status(RunRef("foundry", "card-1"))
    assert stage.openai.asked == []


def test_many_runs_are_asked_of_their_routes_at_once(stage: Stage) -> None:
    refs = [RunRef("foundry", f"card-{number}") for number in range(5)]
    for number, ref in enumerate(refs[:4]):
        route = stage.classic if number % 2 else stage.openai
        route.runs[ref.id] = RunState.RUNNING
        stage.memory.keep("runs", ref.id, route.scheme)
    found = stage.jobs.statuses(refs)
    assert set(found) == set(refs[:4])
    assert stage.classic.asked == stage.openai.asked == ["statuses of 3"]


def artifact(uri: str) -> Artifact:
    return Artifact(Path("gone"), {}, CloudPath(uri))


LINEAGE = Lineage("card-1", "base", "chat", "lora")


def test_models_and_endpoints_go_where_the_model_lies(stage: Stage) -> None:
    stage.models.register("one", artifact("azureml://locations/x"), LINEAGE)
    stage.models.register("two", artifact("openai://r/ft:x"), LINEAGE)
    assert [model.ref.name for model in stage.models.list()] == ["one", "two"]
    assert stage.models.get("two").place == CloudPath("openai://r/ft:x")
    for name, route in (("one", stage.classic), ("two", stage.openai)):
        model = stage.models.get(name)
        assert stage.endpoints.cost(model, DeploySpec(name=name * 2)) == f"cost of {route.scheme}"
        assert stage.endpoints.deploy(model.ref, DeploySpec(name=name * 2)).native_state == route.scheme
        assert route.served == [name * 2]
        assert stage.endpoints.status(EndpointRef("foundry", name * 2)).native_state == route.scheme


def test_of_one_name_on_both_routes_the_newest_is_meant(stage: Stage) -> None:
    stage.models.register("both", artifact("openai://r/ft:x"), LINEAGE)
    stage.models.register("both", artifact("azureml://locations/x"), LINEAGE)
    assert stage.models.get("both").place == CloudPath("azureml://locations/x")
    with pytest.raises(NotFoundError):
        stage.models.get("neither")


def test_endpoints_of_all_routes_are_listed(stage: Stage) -> None:
    stage.classic.served, stage.openai.served = ["a1"], ["b1"]
    assert [status.ref.name for status in stage.endpoints.list()] == ["a1", "b1"]


def test_delete_may_be_repeated_but_not_for_strangers(stage: Stage) -> None:
    stage.models.register("one", artifact("azureml://locations/x"), LINEAGE)
    stage.endpoints.deploy(ModelRef("one", 1), DeploySpec(name="one-end"))
    ref = EndpointRef("foundry", "one-end")
    stage.endpoints.delete(ref)
    stage.endpoints.delete(ref)
    with pytest.raises(NotFoundError):
        stage.endpoints.delete(EndpointRef("foundry", "never-was"))


# -- with real settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    for name in (*WORKSPACE, *RESOURCE, "FOUNDRY_PROJECT_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (WORKSPACE, ["workspace hub-project in rg, subscription sub"]),
        (RESOURCE, ["Foundry resource"]),
        ({**WORKSPACE, **RESOURCE}, ["workspace hub-project", "Foundry resource"]),
    ],
)
def test_targets_are_what_the_settings_name(
    environment: Callable[..., None], tmp_path: Path, values: dict[str, str], words: list[str]
) -> None:
    environment(**values)
    platform = open_here(tmp_path / "home", lambda: NOW)
    assert platform.targets is not None
    targets = platform.targets()
    assert len(targets) == len(words)
    assert all(word in target for word, target in zip(words, targets, strict=True))
    assert not (tmp_path / "home").exists()


def test_nothing_set_is_said_in_one_sentence(environment: Callable[..., None], tmp_path: Path) -> None:
    platform = open_here(tmp_path, lambda: NOW)
    assert platform.targets is not None
    with pytest.raises(SettingsError, match="No place in Azure AI Foundry is set") as caught:
        platform.targets()
    assert "FOUNDRY_PROJECT_ENDPOINT" in caught.value.hint
    with pytest.raises(SettingsError):
        platform.jobs.status(RunRef("foundry", "card-1"))


def test_a_config_json_names_the_workspace(environment: Callable[..., None], tmp_path: Path) -> None:
    names = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    (tmp_path / "config.json").write_text(json.dumps(names))
    platform = open_here(tmp_path / "home", lambda: NOW)
    assert platform.targets is not None
    assert platform.targets() == ("workspace w in g, subscription s",)
