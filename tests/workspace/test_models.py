"""The registry of a workspace: lineage that comes back, one version for a run, whoever else registers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.credentials import AccessToken

from maas_client.cloudpath import CloudPath
from maas_client.errors import ConflictError, NotFoundError, RejectedError, UnavailableError, UsageError
from maas_client.model import Lineage, ModelRef
from maas_client.run import Artifact
from maas_client.simulator.world import World
from maas_client.transport.blobs import Blob
from maas_client.transport.cloud import PUBLIC
from maas_client.transport.credential import AzureCredential
from maas_client.transport.workspace import Target
from maas_client.workspace.datastores import Place
from maas_client.workspace.lineage import (
    KEY_CHARACTERS,
    MOST_PROPERTIES,
    MOST_TAGS,
    PROPERTY_CHARACTERS,
    TAG_CHARACTERS,
    properties_of,
    read_record,
    tags_of,
)
from maas_client.workspace.models import WorkspaceModels
from maas_client.workspace.session import Workspace
from tests.simulator.armcontracts import ML, operation_of, request_problems
from tests.simulator.boundaries import Boundaries, KilledError, open_with_boundaries
from tests.simulator.inprocess import make_world

URI = "azureml://datastores/workspaceblobstore/paths/maas/{}/run/model/"
RESULT = {"adapter": True, "before": {"accuracy": 0.25}, "after": {"accuracy": 0.75, "loss": 1.5}}


class Shelf:
    """Files of a datastore that only lists."""

    def list(self, place: Place) -> list[Blob]:
        return [Blob(f"{place.path}{name}", 100, None, "e", 0.0) for name in ("adapter", "config")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.runner.stop()


Open = Callable[[], tuple[WorkspaceModels, Boundaries]]


@pytest.fixture
def opened(world: World) -> Open:
    """The registry as another process opens it, and its wire."""

    def open_models() -> tuple[WorkspaceModels, Boundaries]:
        workspace, wire = open_with_boundaries(world)
        return WorkspaceModels(lambda: workspace, files=Shelf), wire

    return open_models


@pytest.fixture
def models(opened: Open) -> WorkspaceModels:
    return opened()[0]


def artifact(run: str, **result: Any) -> Artifact:
    return Artifact(Path("gone"), {**RESULT, **result}, CloudPath(URI.format(run)))


def lineage(run: str) -> Lineage:
    hashes = {"code": "sha256:" + "a" * 64, "train": "sha256:" + "b" * 64}
    return Lineage(run, "tiny-phi3", "chat", "lora", hashes, {"training": {"epochs": 3}})


def register(models: WorkspaceModels, run: str, name: str = "card") -> Any:
    return models.register(name, artifact(run), lineage(run))


def versions(world: World, name: str = "card") -> list[dict[str, Any]]:
    return world.store.members(f"{world.names.workspace_id}/models/{name}/versions")


def test_what_is_registered_comes_back(models: WorkspaceModels, world: World) -> None:
    model = register(models, "card-1")
    assert model.ref == ModelRef("card", 1)
    assert model.lineage == lineage("card-1")
    assert model.metrics == {"before": {"accuracy": 0.25}, "after": {"accuracy": 0.75, "loss": 1.5}}
    assert (model.adapter, model.size_bytes) == (True, 200)
    assert model.created_at == pytest.approx(world.clock.now(), abs=5)
    guid = world.workspace_guid(world.names.workspace_id)
    place = f"azureml://locations/eastus2/workspaces/{guid}/models/card/versions/1"
    assert model.place == CloudPath(place)
    assert models.get("card") == models.get("card", 1) == model
    assert models.list() == models.list("card") == (model,)
    assert models.arm_id(model.ref) == f"{world.names.workspace_id}/models/card/versions/1"


def test_it_stands_in_the_studio_as_people_look_for_it(models: WorkspaceModels, world: World) -> None:
    register(models, "card-1")
    properties = versions(world)[0]["properties"]
    assert properties["modelType"] == "custom_model"
    assert properties["modelUri"] == URI.format("card-1")
    assert properties["description"] == "tiny-phi3 tuned by lora for chat"
    assert properties["tags"] == {
        "maas-run": "card-1",
        "maas-base-model": "tiny-phi3",
        "maas-task": "chat",
        "maas-method": "lora",
        "maas-weights": "adapter",
        "maas-before-accuracy": "0.25",
        "maas-after-accuracy": "0.75",
        "maas-after-loss": "1.5",
        "maas-hash-code": "sha256:" + "a" * 64,
        "maas-hash-train": "sha256:" + "b" * 64,
    }


def test_versions_count_on_and_the_newest_is_meant(models: WorkspaceModels) -> None:
    for number in (1, 2, 3):
        assert register(models, f"card-{number}").ref.version == number
    register(models, "other-1", "other")
    assert models.get("card").ref.version == 3
    assert [model.ref.version for model in models.list("card")] == [3, 2, 1]
    assert {str(model.ref) for model in models.list()} == {"card:1", "card:2", "card:3", "other:1"}


def test_the_same_run_again_sends_nothing_new(opened: Open, world: World) -> None:
    first = register(opened()[0], "card-1")
    models, wire = opened()
    assert register(models, "card-1") == first
    assert not [text for text in wire.sent if not text.startswith("GET")]
    assert register(models, "card-1", "other").ref == ModelRef("other", 1)
    assert len(versions(world)) == 1


def test_archived_versions_are_neither_listed_nor_counted_again(
    models: WorkspaceModels, world: World
) -> None:
    register(models, "card-1")
    register(models, "card-2")
    versions(world)[1]["properties"]["isArchived"] = True
    assert [model.ref.version for model in models.list("card")] == [1]
    assert register(models, "card-3").ref.version == 3
    assert register(models, "card-2").ref.version == 2


def test_models_of_others_are_left_out_but_can_be_named(models: WorkspaceModels, world: World) -> None:
    path = f"{world.names.workspace_id}/models/theirs/versions"
    for version in ("7", "beta"):
        body = {"modelType": "mlflow_model", "tags": {"by": "hand"}, "properties": {}}
        system = {"createdAt": "2026-01-02T03:04:05.1234567Z"}
        world.store.put(
            f"{path}/{version}",
            {"id": f"{path}/{version}", "name": version, "properties": body, "systemData": system},
        )
    assert models.list() == models.list("theirs") == ()
    with pytest.raises(NotFoundError):
        models.get("theirs")
    found = models.get("theirs", 7)
    assert (found.lineage.run, found.size_bytes, found.metrics) == ("", 0, {})
    assert found.created_at == pytest.approx(1767323045.123456)
    assert register(models, "card-1", "theirs").ref.version == 8


def test_what_is_not_there_is_not_found(models: WorkspaceModels) -> None:
    assert models.list() == models.list("nothing") == models.list("no.such") == ()
    with pytest.raises(NotFoundError, match="no model nothing in workspace simulated-ws"):
        models.get("nothing")
    register(models, "card-1")
    with pytest.raises(NotFoundError, match="card:7") as caught:
        models.get("card", 7)
    assert caught.value.hint == "There is card:1."


def test_what_cannot_be_registered_is_refused_before_anything_is_sent(opened: Open) -> None:
    models, wire = opened()
    with pytest.raises(UsageError, match=r"'my\.card'"):
        register(models, "card-1", "my.card")
    here = Artifact(Path("run"), RESULT)
    with pytest.raises(ConflictError, match="is not in workspace"):
        models.register("card", here, lineage("card-1"))
    assert wire.sent == []


def test_a_size_that_cannot_be_learned_is_said_to_be_unknown(models: WorkspaceModels, world: World) -> None:
    output = Artifact(Path("gone"), RESULT, CloudPath("azureml://jobs/card-1/outputs/run/paths/model"))
    assert models.register("card", output, lineage("card-1")).size_bytes == 0
    assert versions(world)[0]["properties"]["tags"]["maas-size"] == "unknown"


def requests_of_a_registration(opened: Open) -> int:
    models, wire = opened()
    register(models, "counted", "counted")
    return len(wire.sent)


def test_two_terminals_that_register_one_run_make_one_version_exactly_once(
    opened: Open, world: World
) -> None:
    count = requests_of_a_registration(opened)
    for boundary in range(count):
        name = f"card-at-{boundary}"
        models, wire = opened()
        wire.at = lambda number, _, at=boundary, name=name: (
            number == at and register(opened()[0], "run", name)
        )
        assert register(models, "run", name).ref.version == 1
        assert len(versions(world, name)) == 1, boundary


def test_two_runs_that_register_at_once_make_two_versions(opened: Open, world: World) -> None:
    count = requests_of_a_registration(opened)
    for boundary in range(count):
        name = f"card-at-{boundary}"
        models, wire = opened()
        wire.at = lambda number, _, at=boundary, name=name: (
            number == at and register(opened()[0], "other", name)
        )
        mine = register(models, "run", name)
        assert {each["properties"]["tags"]["maas-run"] for each in versions(world, name)} == {"run", "other"}
        assert len(versions(world, name)) == 2, boundary
        assert models.get(name, mine.ref.version).lineage.run == "run"


@pytest.mark.parametrize("rival", ["run", "other"])
def test_a_kill_or_a_lost_answer_at_any_request_leaves_one_version_exactly_once(
    opened: Open, world: World, rival: str
) -> None:
    """Rivals come between the kill and the second try."""
    count = requests_of_a_registration(opened)
    for boundary in range(count):
        for kind in ("killed", "lost and killed", "lost"):
            name = f"card-{kind.replace(' ', '-')}-{boundary}"
            models, wire = opened()
            wire.at = _kill_at(boundary + (kind != "killed")) if "killed" in kind else wire.at
            wire.lost = {boundary} if "lost" in kind else set()
            try:
                register(models, "run", name)
            except (KilledError, UnavailableError):
                register(opened()[0], rival, name)
                register(opened()[0], "run", name)
            runs = [each["properties"]["tags"]["maas-run"] for each in versions(world, name)]
            assert runs.count("run") == 1, (boundary, kind)
            assert len(runs) == len(set(runs))


def _kill_at(boundary: int) -> Callable[[int, str], None]:
    def at(number: int, text: str) -> None:
        if number == boundary:
            raise KilledError

    return at


def test_a_double_that_slipped_through_is_taken_back(opened: Open, world: World) -> None:
    """Somebody registered the run while a list was shown that does not have that version yet."""
    models, wire = opened()
    register(opened()[0], "run")
    start = f"{world.names.workspace_id}/models/card/versions"
    hidden = world.store.delete(f"{start}/1")
    assert hidden is not None
    register(opened()[0], "other")  # takes number 1 while the first is not seen
    moved = {**hidden, "id": f"{start}/0", "name": "0"}

    def appear(number: int, text: str) -> None:
        if text.startswith("PUT"):
            world.store.put(moved["id"], moved)

    wire.at = appear
    assert register(models, "run").ref.version == 0
    assert [each["name"] for each in versions(world)] == ["1", "0"]


def test_a_refusal_of_the_service_is_told(opened: Open, world: World) -> None:
    models, _ = opened()
    world.faults.order({"kind": "status", "status": 400, "match": "PUT .*/models/"})
    with pytest.raises(RejectedError):
        register(models, "card-1")
    world.faults.order({"kind": "status", "status": 409, "match": "PUT .*/models/"})
    with pytest.raises(ConflictError):
        register(models, "card-1")
    assert register(models, "card-1").ref.version == 1


def test_the_record_fits_what_azure_ml_keeps() -> None:
    config = {"rows": ["x" * 100] * 200}
    long = replace(
        lineage("r" * 300), hashes={f"h{n}": "sha256:" + "f" * 64 for n in range(60)}, config=config
    )
    tags = tags_of(long, {"after": {"m" * 200: 1.0, "ok": True, "words": "no"}}, adapter=False)
    assert len(tags) < MOST_TAGS
    assert max(map(len, tags)) <= KEY_CHARACTERS
    assert max(map(len, tags.values())) <= TAG_CHARACTERS
    assert not [name for name in tags if name.endswith(("-ok", "-words"))]
    properties = properties_of(long, {}, adapter=False, size_bytes=5)
    assert len(properties) < MOST_PROPERTIES
    assert max(map(len, properties.values())) <= PROPERTY_CHARACTERS
    assert read_record(properties, {}) == {"lineage": long, "metrics": {}, "adapter": False, "size_bytes": 5}
    with pytest.raises(UsageError, match="characters"):
        properties_of(replace(long, config={"rows": "x" * 60_000}), {}, adapter=False, size_bytes=5)


def test_a_damaged_record_gives_what_the_tags_say() -> None:
    tags = tags_of(lineage("card-1"), {}, adapter=True)
    for properties in ({}, {"maas-record-00": "{"}, {"maas-record-00": json.dumps({"lineage": {"x": 1}})}):
        record = read_record(properties, tags)
        assert record["lineage"] == Lineage("card-1", "tiny-phi3", "chat", "lora")
        assert (record["adapter"], record["size_bytes"]) == (True, 0)


def test_the_api_version_is_a_published_one(opened: Open) -> None:
    models, wire = opened()
    seen: list[httpx.URL] = []
    send = wire.handle_request

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        return send(request)

    wire.handle_request = look  # type: ignore[method-assign]
    register(models, "card-1")
    assert {url.params["api-version"] for url in seen if "/models/" in url.path} == {"2024-10-01"}


@pytest.mark.skipif(not ML.is_dir(), reason="the published contracts are not here")
def test_the_request_holds_against_its_contract(opened: Open) -> None:
    models, wire = opened()
    failures: list[str] = []
    send = wire.handle_request

    def look(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            name, operation = operation_of("PUT", request.url.path)
            failures.extend(request_problems(name, operation, json.loads(request.content), "PUT"))
            assert re.fullmatch(_pattern(operation, "name"), request.url.path.split("/")[-3])
        return send(request)

    wire.handle_request = look  # type: ignore[method-assign]
    register(models, "card-1", "card_support-2")
    assert failures == []
    assert [text for text in wire.sent if text.startswith("PUT")]


def _pattern(operation: dict[str, Any], parameter: str) -> str:
    return str(next(each["pattern"] for each in operation["parameters"] if each.get("name") == parameter))


RECORDED = Path(__file__).parents[3] / "shared/azure/azure-sdk-for-python/recordings/model/e2etests"


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings of the live service are not here")
def test_bodies_of_the_live_service_are_read() -> None:
    name = "test_model.pyTestModeltest_create_autoincrement.json"
    entries = json.loads((RECORDED / name).read_text(encoding="utf-8"))["Entries"]
    bodies = [each["ResponseBody"] for each in entries if "/versions/" in each["RequestUri"]]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(("/1", "/2")):
            return httpx.Response(200, json=bodies[int(request.url.path[-1]) - 1])
        facts = {"location": "eastus", "properties": {"workspaceId": "guid"}}
        return httpx.Response(200, json=facts)

    workspace = Workspace(
        Target("sub", "rg", "ws"),
        AzureCredential(open_source=FixedToken),
        lambda: PUBLIC,
        transport=httpx.MockTransport(answer),
    )
    models = WorkspaceModels(lambda: workspace)
    second = models.get("test_198453716381", 2)
    assert str(second.place).startswith("azureml://locations/eastus/workspaces/guid/models/test_1984")
    assert second.created_at - models.get("test_198453716381", 1).created_at == pytest.approx(2.0, abs=0.1)


class FixedToken:
    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken("t", 4102444800)
