"""The same against Microsoft's own emulator of blob storage: opened in each way, and by commands that end."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from maas_client.errors import ConflictError, NotFoundError
from maas_client.settings import Settings
from maas_client.simulator import Simulator
from maas_client.transport.blobs import PIECE_BYTES, Piece, open_container
from maas_client.transport.cloud import PUBLIC
from maas_client.transport.workspace import Target
from maas_client.workspace.datastores import Place
from maas_client.workspace.files import Files
from maas_client.workspace.session import Workspace, open_workspace
from tests.transport.blobserver import md5

pytestmark = pytest.mark.slow
KINDS = ("AccountKey", "Sas", "None")


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    """A simulator with a datastore of each kind, and the environment of this process set for it."""
    with Simulator() as running, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        workspace = open_workspace(Settings())
        for kind in KINDS:
            body = {
                "datastoreType": "AzureBlob",
                "containerName": "box",
                "credentials": {"credentialsType": kind},
            }
            version = {"api-version": "2024-10-01-preview"}
            workspace.arm.put(
                workspace.path("datastores", f"by_{kind}"), {"properties": body}, params=version
            )
        yield running


@pytest.fixture
def files(azure: Simulator) -> Files:
    return Files(open_workspace(Settings()))


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_in_each_way(kind: str, files: Files, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "sub ä%20").mkdir(parents=True)
    contents = {"a #?.txt": b"1", "sub ä%20/b": os.urandom(PIECE_BYTES + 1), "sub ä%20/c": b""}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    place = Place(f"by_{kind}", f"maas/{kind}")
    for _ in range(2):
        files.upload(source, place)
    found = {blob.path: (blob.size_bytes, blob.md5, blob.sha256) for blob in files.list(place)}
    expected = {
        f"{place.path}/{name}": (len(each), md5(each).hex(), hashlib.sha256(each).hexdigest())
        for name, each in contents.items()
    }
    assert found == expected
    files.download(place, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in contents} == contents
    assert files.read(Place(place.datastore, f"{place.path}/a #?.txt"), offset=1) == b""
    with pytest.raises(NotFoundError):
        files.read(Place(place.datastore, "none"))


def test_with_the_account_key_itself(azure: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As older versions of the service give it out."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("listSecrets"):
            return httpx.Response(200, json={"secretsType": "AccountKey", "key": azure.world.storage.key})
        names = azure.world.names
        return httpx.Response(
            200, json=azure.world.store.get(f"{names.workspace_id}/datastores/by_AccountKey")
        )

    opened = open_workspace(Settings())
    transport = httpx.MockTransport(answer)
    files = Files(Workspace(Target("s", "r", "w"), opened.credential, lambda: PUBLIC, transport=transport))
    files.write(Place("by_AccountKey", "key.txt"), b"by key")
    assert files.read(Place("by_AccountKey", "key.txt")) == b"by key"


def test_a_range_of_a_blob_that_changed_is_refused(azure: Simulator) -> None:
    """The emulator compares etags as the service does, with quotes and without."""
    storage = azure.world.storage
    container = open_container(storage.endpoint, "box", key=storage.key)
    container.write("changing", b"old")
    for blob in (container.look("changing"), container.list("changing")[0]):
        assert list(container.pieces([Piece(blob, 1, 2)])) == [(Piece(blob, 1, 2), b"ld")]
    container.write("changing", b"new")
    with pytest.raises(ConflictError, match="changed meanwhile"):
        list(container.pieces([Piece(blob, 0, 3)]))


FETCH = """
import sys
from pathlib import Path
from maas_client.settings import Settings
from maas_client.workspace.datastores import Place
from maas_client.workspace.files import Files
from maas_client.workspace.session import open_workspace
Files(open_workspace(Settings())).download(Place("by_Sas", "killed"), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_ended_goes_on(how: signal.Signals, files: Files, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 120
    (tmp_path / "big").write_bytes(content)
    files.upload(tmp_path / "big", Place("by_Sas", "killed/big"))
    part = tmp_path / "out" / "big.part"
    command = subprocess.Popen([sys.executable, "-c", FETCH, tmp_path / "out"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 2 * PIECE_BYTES) and time.monotonic() < until:
        time.sleep(0.005)
    command.send_signal(how)
    command.wait(10)
    kept = part.stat().st_size
    assert 0 < kept < len(content)
    told: list[int] = []
    files.download(Place("by_Sas", "killed"), tmp_path / "out", watch=lambda done, _: told.append(done))
    assert told[0] > kept
    assert told[-1] == len(content)
    assert (tmp_path / "out" / "big").read_bytes() == content
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["big"]
