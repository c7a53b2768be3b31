"""Downloads: a copy is there whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maas_client.artifacts import fetch_artifact
from maas_client.backend import Watch
from maas_client.backends.local.folders import copy_files, told
from maas_client.errors import ConflictError, ServiceError, UnavailableError
from maas_client.run import Artifact, RunRef
from tests.fakes import FakeJobs, World

REF = RunRef("local", "card-1")


class Jobs(FakeJobs):
    """Runs whose files lie in a folder here. Given `breaks`, a download ends after so many files."""

    def __init__(self, folder: Path, breaks: int = 0) -> None:
        super().__init__(World(folder))
        self.folder, self.breaks, self.fetched = folder, breaks, [""]

    def artifact(self, ref: RunRef) -> Artifact:
        return Artifact(self.folder, {})

    def download(self, ref: RunRef, folder: Path, *, watch: Watch | None = None) -> None:
        if not self.breaks:
            with told("download", folder):
                copy_files(self.folder, folder, ignore=("checkpoints", "*.tmp"))
            return
        for name in ("result.json", "events.jsonl"):
            if (folder / name).exists():
                continue
            if len(self.fetched) > self.breaks:
                raise UnavailableError("away")
            self.fetched.append(name)
            (folder / name).write_text(name)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "run"
    for name in ("model/weights", "checkpoints/step-1/weights", "result.json", "result.json.tmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return Artifact(folder, {})


def copy_artifact(artifact: Artifact, folder: Path) -> Path:
    return fetch_artifact(Jobs(artifact.folder), REF, folder)


def test_a_download_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, breaks=1)
    with pytest.raises(UnavailableError):
        fetch_artifact(jobs, REF, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    jobs.breaks = 2
    assert files(fetch_artifact(jobs, REF, tmp_path / "copy")) == ["events.jsonl", "result.json"]
    assert jobs.fetched[1:] == ["result.json", "events.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_copy_holds_what_was_made_without_checkpoints(artifact: Artifact, tmp_path: Path) -> None:
    copy = copy_artifact(artifact, tmp_path / "a" / "b" / "copy")
    assert files(copy) == ["model/weights", "result.json"]
    assert list(copy.parent.iterdir()) == [copy]
    assert copy.stat().st_mode & 0o077 == artifact.folder.stat().st_mode & 0o077


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_a_taken_place_is_left_alone(artifact: Artifact, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "copy"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError, match="is there already"):
        copy_artifact(artifact, place)
    assert sorted(tmp_path.iterdir()) == [place, tmp_path / "run"]
    assert not (tmp_path / "nowhere").exists()


def test_a_copy_that_fails_leaves_nothing(artifact: Artifact, tmp_path: Path) -> None:
    (artifact.folder / "model" / "gone").symlink_to(tmp_path / "nowhere")
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(ServiceError, match="No such file"):
        copy_artifact(artifact, place / "copy")
    assert list(place.iterdir()) == []


def test_a_full_disk_is_said_as_such(artifact: Artifact) -> None:
    (artifact.folder / "model" / "weights").write_bytes(b"x" * 4_000_000)
    if shutil.which("unshare") is None:
        pytest.skip("needs a user namespace to mount a small disk")
    disk = artifact.folder.parent / "disk"
    disk.mkdir()
    script = f"""
import pathlib
from tests.test_artifacts import Artifact, copy_artifact
from maas_client.errors import QuotaError
try:
    target = pathlib.Path({str(disk)!r}) / "copy"
    copy_artifact(Artifact(pathlib.Path({str(artifact.folder)!r}), {{}}), target)
except QuotaError as error:
    print(error.message, list(pathlib.Path({str(disk)!r}).iterdir()))
"""
    mount = 'mount -t tmpfs -o size=1m none "$0" || exit 77; exec "$@"'
    words = ["unshare", "-Urm", "sh", "-c", mount, str(disk), sys.executable, "-c", script]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if ended.returncode == 77 or ended.stderr.startswith("unshare"):
        pytest.skip("needs a user namespace to mount a small disk")
    assert ended.stdout == f"The disk that holds {disk / '.copy.unfinished'} is full. []\n", ended.stderr
