"""A disk that fills, for real: a small one is mounted where that is permitted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from maas_client.errors import QuotaError
from maas_client.project import Project
from maas_client.run import Reason, RunState
from maas_client.spec import DeploySpec
from tests.backends.local_stage import LocalStage
from tests.contract import ended, started

DISK_KIB = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[LocalStage]:
    """The local platform with its home on a disk of a megabyte."""
    home = tmp_path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small disk")
    stage = LocalStage(tmp_path)
    yield stage
    stage.stop_all()
    subprocess.run(["umount", str(home)], check=True)


def fill(stage: LocalStage) -> Path:
    """The file that takes all the room that is left."""
    filler = stage.home / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return filler


def test_a_submission_that_does_not_fit_leaves_nothing(small_disk: LocalStage) -> None:
    small_disk.data.write_bytes(b"x" * (2 * DISK_KIB << 10))
    plan = small_disk.plan("succeed")
    with pytest.raises(QuotaError, match="is full") as raised:
        small_disk.jobs.submit(plan)
    assert "Make room" in raised.value.hint
    assert [path.name for path in (small_disk.home / "runs").iterdir()] == [".staging.lock"]


def test_a_command_that_fills_the_disk_fails_for_that_reason(small_disk: LocalStage) -> None:
    ref = small_disk.jobs.submit(small_disk.plan(f"fill({2 * DISK_KIB << 10})"))
    status = ended(small_disk, ref)
    assert (status.state, status.reason) == (RunState.FAILED, Reason.DISK)
    assert status.exit_code == 1
    assert status.message
    (small_disk.folder(ref) / "outputs/run/big").unlink()
    small_disk.jobs.resume(ref)
    assert ended(small_disk, ref).reason is Reason.DISK


def test_a_start_on_a_full_disk_says_so_and_works_later(small_disk: LocalStage) -> None:
    plan = small_disk.plan("succeed")
    filler = fill(small_disk)
    with pytest.raises(QuotaError):
        small_disk.jobs.submit(plan)
    filler.unlink()
    assert ended(small_disk, small_disk.jobs.submit(plan)).state is RunState.SUCCEEDED


def test_a_run_on_a_full_disk_can_be_stopped(small_disk: LocalStage) -> None:
    ref = small_disk.jobs.submit(small_disk.plan("endless"))
    started(small_disk, ref)
    filler = fill(small_disk)
    with pytest.raises(QuotaError):
        small_disk.jobs.cancel(ref)
    status = ended(small_disk, ref)
    assert status.state is RunState.FAILED
    filler.unlink()
    small_disk.jobs.resume(ref)
    ended(small_disk, ref)


def test_on_a_full_disk_a_project_stops_runs_and_endpoints(small_disk: LocalStage) -> None:
    project = Project(small_disk.home, platforms={"local": small_disk.platform})
    done = project.submit(small_disk.plan("succeed"))
    assert ended(small_disk, done.ref).state is RunState.SUCCEEDED
    project.deploy(project.register(done, "card"), DeploySpec(name="card-end"))
    going = project.submit(small_disk.plan("endless"))
    started(small_disk, going.ref)
    filler = fill(small_disk)
    with pytest.raises(QuotaError):
        project.cancel(going)
    assert ended(small_disk, going.ref).state.is_final
    project.delete_endpoint("card-end")
    assert project.endpoints() == []
    filler.unlink()
