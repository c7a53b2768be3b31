"""The registry on disk: cards, races, a full disk and foreign files."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.backends.local.models import LocalModels
from maas_client.errors import ConflictError, QuotaError, ServiceError, UsageError
from maas_client.model import Lineage
from maas_client.plan import folder_hash
from maas_client.run import Artifact

LINEAGE = Lineage("local://card-1", "tiny-phi3", "classification", "lora", {"train": "sha256:aa"})


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "adapter_model.safetensors").write_bytes(b"w" * 200_000)
    result = {"adapter": True, "before": {"accuracy": 0.1, "loss": 7.25}, "after": {"accuracy": 0.9}}
    return Artifact(folder, result)


@pytest.fixture
def models(tmp_path: Path) -> LocalModels:
    return LocalModels(tmp_path / "home", clock=lambda: 1_700_000_000.0)


def test_the_card_says_what_it_is(models: LocalModels, artifact: Artifact) -> None:
    model = models.register("card", artifact, LINEAGE)
    card = (model.place.parent / "README.md").read_text()
    for words in (
        "# card, version 1",
        "tiny-phi3",
        "lora (adapter",
        "2023-11-14 22:13 UTC",
        "`sha256:aa`",
    ):
        assert words in card
    assert "| accuracy | 0.1 | 0.9 |" in card
    assert "| loss | 7.25 | - |" in card
    assert "maas chat card" in card


def test_the_record_holds_the_hash_of_the_files(models: LocalModels, artifact: Artifact) -> None:
    model = models.register("card", artifact, LINEAGE)
    record = json.loads((model.place.parent / "model.json").read_text())
    assert record["files"] == folder_hash(model.place) == folder_hash(artifact.model)
    assert record["size_bytes"] == 200_000


def test_many_at_once_get_versions_of_their_own(models: LocalModels, artifact: Artifact) -> None:
    lineages = [replace(LINEAGE, run=f"local://card-{number // 2}") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda lineage: models.register("card", artifact, lineage), lineages))
    assert sorted({model.ref.version for model in found}) == [1, 2, 3, 4, 5, 6]
    assert len(models.list("card")) == 6


def test_a_full_disk_leaves_nothing(models: LocalModels, artifact: Artifact, tmp_path: Path) -> None:
    code = """
import pathlib, resource, signal, sys
from maas_client.errors import MaasError
from maas_client.run import Artifact
from tests.backends.test_local_models import LINEAGE, LocalModels
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
root = pathlib.Path(sys.argv[1])
try:
    LocalModels(root / "home").register("card", Artifact(root / "run", {"adapter": True}), LINEAGE)
except MaasError as error:
    print(type(error).__name__, error.message)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(QuotaError.__name__)
    assert models.list() == ()
    assert [path.name for path in (tmp_path / "home/models/card").iterdir() if path.is_dir()] == []
    assert models.register("card", artifact, LINEAGE).ref.version == 1


def test_a_run_without_a_model_is_refused(models: LocalModels, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="no model"):
        models.register("card", Artifact(tmp_path, {}), LINEAGE)
    assert models.list() == ()


@pytest.mark.parametrize("name", ["", "../card", "a/b", ".card"])
def test_names_that_are_none(models: LocalModels, artifact: Artifact, name: str) -> None:
    with pytest.raises(UsageError):
        models.register(name, artifact, LINEAGE)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"created_at": "x"}'])
def test_a_foreign_record_is_named(models: LocalModels, artifact: Artifact, content: str) -> None:
    path = models.register("card", artifact, LINEAGE).place.parent / "model.json"
    path.write_text(content)
    with pytest.raises(ServiceError, match=r"model\.json") as raised:
        models.get("card")
    assert raised.value.hint


def test_a_killed_copy_is_removed(models: LocalModels, artifact: Artifact, tmp_path: Path) -> None:
    orphan = tmp_path / "home/models/card/.tmp-killed/files"
    orphan.mkdir(parents=True)
    assert models.register("card", artifact, LINEAGE).ref.version == 1
    assert not orphan.exists()
