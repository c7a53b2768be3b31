"""Snapshots of code: one for one content, whoever sends it, wherever it is cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.errors import UnavailableError
from maas_client.simulator.world import World
from maas_client.workspace.code import register_code
from maas_client.workspace.datastores import Place
from tests.simulator.boundaries import Boundaries, KilledError, open_with_boundaries
from tests.simulator.inprocess import make_world


class Store:
    """Files of a datastore that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, str]]] = []

    def upload(self, source: Path, place: Place) -> None:
        files = {path.relative_to(source).as_posix(): path.read_text() for path in _files(source)}
        self.sent.append((str(place), files))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path / "world")
    yield made
    made.runner.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "jobs"
    (code / "__pycache__").mkdir(parents=True)
    (code / "examples").mkdir()
    (code / "score.py").write_text("def run(): ...")
    (code / "__pycache__" / "score.pyc").write_text("old")
    (code / "examples" / "rows.jsonl").write_text("{}")
    return code


def register(world: World, store: Store, folder: Path, **more: Any) -> tuple[str, Boundaries]:
    workspace, wire = open_with_boundaries(world)
    return register_code(workspace, store, folder, **more), wire  # type: ignore[arg-type]


def codes(world: World) -> list[str]:
    return world.store.names(f"{world.names.workspace_id}/codes")


def test_a_snapshot_holds_the_code_and_nothing_else(world: World, folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "tiny"
    base.mkdir()
    (base / "config.json").write_text("{}")
    store = Store()
    path, _ = register(world, store, folder, beside={"base-model": base})
    ((place, files),) = store.sent
    assert files == {"score.py": "def run(): ...", "base-model/config.json": "{}"}
    made = world.store.get(path)
    assert made is not None
    digest = made["properties"]["properties"]["hash_sha256"]
    assert place == f"azureml://datastores/workspaceblobstore/paths/maas/code/{digest}"
    assert made["properties"]["codeUri"].startswith("http://localhost:2/maassimulator/")
    assert made["properties"]["codeUri"].endswith(f"/maas/code/{digest}")
    assert digest.startswith(made["id"].split("/")[-3].removeprefix("maas-"))


def test_the_same_content_is_sent_once_and_another_is_another(world: World, folder: Path) -> None:
    store = Store()
    first, _ = register(world, store, folder)
    (folder / "__pycache__" / "score.pyc").write_text("new")
    again, wire = register(world, store, folder)
    assert again == first
    assert [text.split()[0] for text in wire.sent] == ["GET"]
    (folder / "score.py").write_text("def run(): return 1")
    assert register(world, store, folder)[0] != first
    assert len(store.sent) == len(codes(world)) == 2


def test_cut_off_anywhere_it_is_there_exactly_once(world: World, folder: Path) -> None:
    for number in range(20):
        (folder / "score.py").write_text(f"# {number}")
        _, wire = register(world, Store(), folder)
        boundary, kind = divmod(number, 2)
        if boundary >= len(wire.sent):
            break
        (folder / "score.py").write_text(f"# cut {number}")
        workspace, cut = open_with_boundaries(world)
        cut.at = _kill_at(boundary) if kind else cut.at
        cut.lost = set() if kind else {boundary}
        try:
            path = register_code(workspace, Store(), folder)  # type: ignore[arg-type]
        except (KilledError, UnavailableError):
            path, _ = register(world, Store(), folder)
        assert world.store.get(path) is not None
        assert register(world, Store(), folder)[0] == path
    assert number >= 6
    assert len(codes(world)) == 2 * number + 1


def _kill_at(boundary: int) -> Callable[[int, str], None]:
    def at(number: int, text: str) -> None:
        if number == boundary:
            raise KilledError

    return at
