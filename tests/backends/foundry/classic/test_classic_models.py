"""What the service registered becomes ours: tagged with its lineage once, whoever asks and however often."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.foundry.classic.models import ClassicModels
from maas_client.cloudpath import CloudPath
from maas_client.errors import NotFoundError
from maas_client.model import Lineage, ModelRef
from maas_client.run import Artifact
from tests.backends.foundry.classic.room import Room
from tests.simulator.boundaries import Boundaries, KilledError, open_with_boundaries

LINEAGE = Lineage(
    "card-1", "Phi-4-mini-instruct", "chat", "lora", {"train": "sha256:" + "a" * 64}, {"route": "classic"}
)


def opened(room: Room) -> tuple[ClassicModels, Boundaries]:
    workspace, wire = open_with_boundaries(room.world)
    shelf: Any = room.shelf
    return ClassicModels(lambda: workspace, files=lambda: shelf), wire


def artifact(room: Room, version: int = 1, name: str = "card") -> Artifact:
    guid = room.world.workspace_guid(room.target.path)
    place = CloudPath(f"azureml://locations/eastus2/workspaces/{guid}/models/{name}/versions/{version}")
    return Artifact(Path("gone"), {"after": {"loss": 1.5}}, place)


def test_the_service_s_version_is_taken_over(room: Room) -> None:
    room.tuned(version=3)
    models, wire = opened(room)
    assert models.list() == ()
    model = models.register("card", artifact(room, 3), LINEAGE)
    assert model.ref == ModelRef("card", 3)
    assert (model.lineage, model.metrics) == (LINEAGE, {"before": {}, "after": {"loss": 1.5}})
    assert str(model.place) == str(artifact(room, 3).model)
    assert models.get("card") == models.get("card", 3) == model
    assert models.list() == models.list("card") == (model,)
    assert len([text for text in wire.sent if text.startswith("PUT")]) == 1


def test_what_the_service_wrote_on_it_stays(room: Room) -> None:
    room.tuned()
    opened(room)[0].register("card", artifact(room), LINEAGE)
    found = room.world.store.get(f"{room.target.path}/models/card/versions/1")
    assert found is not None
    properties = found["properties"]
    assert properties["tags"]["task"] == "ChatCompletion"
    assert properties["tags"]["maas-run"] == "card-1"
    assert properties["properties"]["azureml.finetuning.jobName"] == "card-1"
    assert properties["modelType"] == "mlflow_model"
    assert properties["modelUri"].endswith("/paths/azureml/card-1/model/")


def test_the_same_run_again_changes_nothing(room: Room) -> None:
    room.tuned()
    first = opened(room)[0].register("card", artifact(room), LINEAGE)
    models, wire = opened(room)
    assert models.register("card", artifact(room), LINEAGE) == first
    assert not [text for text in wire.sent if text.startswith("PUT")]


def test_another_name_is_a_further_version_of_the_same_files(room: Room) -> None:
    room.tuned("card-abc-1", job="card-1")
    models, _ = opened(room)
    made = models.register("support", artifact(room, name="card-abc-1"), LINEAGE)
    assert made.ref == ModelRef("support", 1)
    found = room.world.store.get(f"{room.target.path}/models/support/versions/1")
    assert found is not None
    assert found["properties"]["modelUri"].endswith("/paths/azureml/card-1/model/")
    assert found["properties"]["modelType"] == "mlflow_model"
    assert models.register("support", artifact(room, name="card-abc-1"), LINEAGE) == made


def test_another_run_of_the_same_files_is_the_next_version(room: Room) -> None:
    room.tuned()
    models, _ = opened(room)
    models.register("card", artifact(room), LINEAGE)
    second = models.register("card", artifact(room), replace(LINEAGE, run="card-2"))
    assert second.ref == ModelRef("card", 2)
    assert [model.ref.version for model in models.list("card")] == [2, 1]


def test_a_version_that_is_gone_is_not_found(room: Room) -> None:
    with pytest.raises(NotFoundError):
        opened(room)[0].register("card", artifact(room), LINEAGE)


@pytest.mark.parametrize("kind", ["killed", "lost", "other terminal"])
def test_exactly_once_registered_whatever_happens_at_any_request(room: Room, kind: str) -> None:
    room.tuned("counted")
    models, wire = opened(room)
    models.register("counted", artifact(room, name="counted"), LINEAGE)
    for boundary in range(len(wire.sent)):
        name = f"at-{boundary}"
        room.tuned(name)
        models, wire = opened(room)

        def strike(number: int, _: str, at: int = boundary, name: str = name) -> None:
            if number == at and kind == "killed":
                raise KilledError
            if number == at and kind == "other terminal":
                opened(room)[0].register(name, artifact(room, name=name), LINEAGE)

        wire.at = strike
        wire.lost = {boundary} if kind == "lost" else set()
        if kind == "killed":
            with pytest.raises(KilledError):
                models.register(name, artifact(room, name=name), LINEAGE)
        else:
            assert models.register(name, artifact(room, name=name), LINEAGE).ref.version == 1
        made = opened(room)[0].register(name, artifact(room, name=name), LINEAGE)
        assert made.ref == ModelRef(name, 1)
        assert len(opened(room)[0].list(name)) == 1
