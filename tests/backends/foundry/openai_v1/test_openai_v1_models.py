"""The registry of tuned models that stay in their resource: versions counted in this project."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maas_client.backends.foundry.openai_v1.models import OpenAIModels
from maas_client.backends.foundry.openai_v1.results import tuned_name
from maas_client.cloudpath import CloudPath
from maas_client.errors import ConflictError, NotFoundError, UsageError
from maas_client.model import Lineage
from maas_client.run import Artifact

PLACE = CloudPath("openai://card/gpt-4.1-mini-2025-04-14.ft-1-card-9")


def artifact(folder: Path, place: CloudPath | None = PLACE) -> Artifact:
    result = {"after": {"loss": 0.5}, "fine_tuned_model": "x"}
    return Artifact(folder, result, place)


def lineage(run: str) -> Lineage:
    return Lineage(run, "gpt-4.1-mini", "chat", "lora", {"train": "sha256:0"}, {"route": "openai"})


def test_a_version_outlives_the_process(tmp_path: Path) -> None:
    made = OpenAIModels(tmp_path, clock=lambda: 5.0).register("card", artifact(tmp_path), lineage("card-1"))
    again = OpenAIModels(tmp_path, clock=lambda: 9.0)
    assert again.get("card") == made
    assert again.register("card", artifact(tmp_path), lineage("card-1")) == made
    assert (made.metrics, made.created_at, made.place) == ({"after": {"loss": 0.5}}, 5.0, PLACE)
    assert tuned_name(made.place) == ("card", "gpt-4.1-mini-2025-04-14.ft-1-card-9")


def test_several_commands_count_together(tmp_path: Path) -> None:
    def register(number: int) -> int:
        models = OpenAIModels(tmp_path, clock=lambda: 5.0)
        return models.register("card", artifact(tmp_path), lineage(f"card-{number % 4}")).ref.version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(register, range(16)))
    assert set(versions) == {1, 2, 3, 4}
    assert [model.ref.version for model in OpenAIModels(tmp_path, clock=lambda: 5.0).list("card")] == [
        4,
        3,
        2,
        1,
    ]


def test_what_is_no_tuned_model_is_not_registered(tmp_path: Path) -> None:
    models = OpenAIModels(tmp_path, clock=lambda: 5.0)
    for place in (None, CloudPath("azureml://datastores/x/paths/y"), CloudPath("openai://card")):
        with pytest.raises(ConflictError):
            models.register("card", artifact(tmp_path, place), lineage("card-1"))
    for name in ("", "../card", "a/b", ".hidden"):
        with pytest.raises(UsageError):
            models.register(name, artifact(tmp_path), lineage("card-1"))


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    models = OpenAIModels(tmp_path, clock=lambda: 5.0)
    models.register("card", artifact(tmp_path), lineage("card-1"))
    shelf = tmp_path / "models" / "card"
    (shelf / "2.json").write_text("{torn")
    (shelf / "3.json").write_text("{}")
    (shelf / "notes.json").write_text("{}")
    assert [model.ref.version for model in models.list()] == [1]
    with pytest.raises(NotFoundError, match="card:2"):
        models.get("card", 2)
    assert models.list("../card") == ()
