"""Registered models on several backends: found by name, and listed with what could not be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.cloudpath import CloudPath
from maas_client.errors import AccessDeniedError, NotFoundError, UsageError
from maas_client.model import Lineage, ModelRef, RegisteredModel
from maas_client.project import Project
from tests.fakes import NAME, World


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def service(tmp_path: Path) -> World:
    return World(tmp_path / "azure", name="azureml", named=("T",))


@pytest.fixture
def project(tmp_path: Path, local: World, service: World) -> Callable[[], Project]:
    return lambda: Project(tmp_path / "home", platforms={NAME: local.open(), "azureml": service.open()})


def put(world: World, name: str, version: int, at: float) -> None:
    lineage = Lineage("run-1", "m", "chat", "lora")
    world.versions.append(
        RegisteredModel(ModelRef(name, version), Path(world.name, name), at, lineage, {}, True, 1)
    )


def test_a_model_is_found_where_it_is_kept(
    project: Callable[[], Project], local: World, service: World
) -> None:
    put(local, "mine", 1, 1.0)
    put(service, "theirs", 1, 2.0)
    put(service, "theirs", 2, 3.0)
    assert project().shelves.find("mine")[0] == NAME
    backend, model = project().shelves.find("theirs")
    assert (backend, str(model.ref)) == ("azureml", "theirs:2")
    assert str(project().model("azureml://theirs:1").ref) == "theirs:1"
    assert [str(one.ref) for one in project().models()] == ["theirs:2", "theirs:1", "mine:1"]


def test_a_name_on_two_backends_must_be_said_whole(
    project: Callable[[], Project], local: World, service: World
) -> None:
    put(local, "card", 1, 1.0)
    put(service, "card", 1, 2.0)
    assert project().shelves.find("card")[0] == NAME
    with project().ledger.action("register", "card", backend="azureml"):
        pass
    with pytest.raises(UsageError, match="card is kept on local and azureml") as caught:
        project().model("card:1")
    assert caught.value.hint == "Write local://card:1 or azureml://card:1."
    assert project().shelves.find("azureml://card:1")[0] == "azureml"


@pytest.mark.parametrize("name", ["nothing", "nothing:3", "local://nothing", "azureml://nothing"])
def test_a_model_that_nobody_keeps(project: Callable[[], Project], name: str) -> None:
    with pytest.raises(NotFoundError, match="There is no model"):
        project().model(name)


def test_a_registry_that_cannot_be_asked_is_said(
    project: Callable[[], Project], local: World, service: World
) -> None:
    put(local, "mine", 1, 1.0)
    service.trouble = AccessDeniedError("No role.")
    here, there = project().shelves.lists()
    assert (len(here.models), there.models, there.error) == (1, (), service.trouble)
    with pytest.raises(AccessDeniedError):
        project().models()
    with pytest.raises(AccessDeniedError):
        project().model("theirs")
    assert str(project().model("mine").ref) == "mine:1"


def test_a_model_that_two_backends_list_is_one_model(
    project: Callable[[], Project], local: World, service: World
) -> None:
    for world in (local, service):
        put(world, "card", 1, 1.0)
        world.versions[0] = replace(world.versions[0], place=CloudPath("azureml://.../card/versions/1"))
    assert [len(one.models) for one in project().shelves.lists()] == [1, 0]
    project().ledger.adopt_or_add(
        name="card", backend="azureml", fingerprint="f", plan_of=lambda _: ("run-1", {}), spec={}
    )
    assert [len(one.models) for one in project().shelves.lists()] == [0, 1]
    with project().ledger.action("register", "card", backend="azureml"):
        pass
    assert project().shelves.find("card")[0] == "azureml"
