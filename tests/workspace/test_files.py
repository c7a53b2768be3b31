"""Files go into a datastore and come back whole, once, also after a cut, and never to another folder."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import signal
import ssl
import string
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    QuotaError,
    RejectedError,
    ServiceError,
    UnavailableError,
    UsageError,
)
from maas_client.simulator.certificate import make_certificate
from maas_client.simulator.datastores import make_datastores
from maas_client.simulator.world import World
from maas_client.transport.blobs import PIECE_BYTES
from maas_client.workspace.datastores import DEFAULT, Place
from maas_client.workspace.files import Blob, Files
from tests.simulator.inprocess import make_world, open_inprocess
from tests.transport.blobserver import MODIFIED_AT, BlobServer, blob_server, md5, refusal
from tests.transport.loopback import Call, Reply

RUN = Place(DEFAULT, "maas/run-1")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path / "world")
    yield made
    made.runner.stop()


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with blob_server() as running:
        yield running


@pytest.fixture
def files(world: World, server: BlobServer) -> Files:
    return open_files(world, server)


def open_files(world: World, server: BlobServer, kind: str = "AccountKey") -> Files:
    """Files of the simulated workspace, whose storage is the server."""
    world.storage.endpoint = server.account_url
    make_datastores(world, world.names.workspace_id, kind)
    return Files(open_inprocess(world))


def tree(folder: Path, **contents: bytes) -> Path:
    """A folder with files; `__` in a name is a slash."""
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def found_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


class Progress:
    """What a transfer told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self._lock = Lock()

    def __call__(self, done: int, total: int) -> None:
        assert self._lock.acquire(blocking=False), "two at once"
        self.told.append((done, total))
        self._lock.release()

    def check(self, total: int) -> None:
        """It goes up, and ends where it should."""
        assert self.told == sorted(set(self.told))
        assert self.told[-1] == (total, total)


# -- there and back


def test_a_folder_goes_there_and_comes_back(files: Files, server: BlobServer, tmp_path: Path) -> None:
    source = tree(
        tmp_path / "in", a=b"1", sub__b=os.urandom(2 * PIECE_BYTES + 1), sub__deep__c=b"", sub__d=b"4"
    )
    up, down = Progress(), Progress()
    files.upload(source, RUN, watch=up)
    assert sorted(server.blobs) == [f"maas/run-1/{name}" for name in ("a", "sub/b", "sub/d", "sub/deep/c")]
    files.download(RUN, tmp_path / "out", watch=down)
    assert found_in(tmp_path / "out") == found_in(source)
    up.check(2 * PIECE_BYTES + 3)
    down.check(2 * PIECE_BYTES + 3)


@pytest.mark.parametrize(
    ("path", "blob"), [("x/rows.jsonl", "x/rows.jsonl"), ("x/", "x/in.jsonl"), ("", "in.jsonl")]
)
def test_where_a_file_goes(path: str, blob: str, files: Files, server: BlobServer, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"rows")
    files.upload(tmp_path / "in.jsonl", Place(DEFAULT, path))
    assert list(server.blobs) == [blob]
    files.download(Place(DEFAULT, blob), tmp_path / "out")
    assert found_in(tmp_path / "out") == {blob.rpartition("/")[2]: b"rows"}


def test_a_source_that_is_not_there(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        files.upload(tmp_path / "none", RUN)


parts = st.text(string.ascii_letters + "ä %#?&+=;~'[]", min_size=1, max_size=6)
trees = st.dictionaries(
    st.lists(parts, min_size=1, max_size=3).map(tuple), st.binary(max_size=50), min_size=1, max_size=4
).filter(lambda found: not any(one[: len(two)] == two for one in found for two in found if one != two))


@pytest.fixture(scope="module")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Files, BlobServer]]:
    world = make_world(tmp_path_factory.mktemp("world"))
    with blob_server() as server:
        yield open_files(world, server), server
    world.runner.stop()


@settings(max_examples=15, deadline=None)
@given(trees)
def test_any_names_come_back(
    shared_files: tuple[Files, BlobServer], contents: dict[tuple[str, ...], bytes]
) -> None:
    files, server = shared_files
    server.blobs.clear()
    with TemporaryDirectory() as folder:
        for steps, content in contents.items():
            path = Path(folder, "in", *steps)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        files.upload(Path(folder, "in"), RUN)
        files.download(RUN, Path(folder, "out"))
        assert found_in(Path(folder, "out")) == {"/".join(steps): each for steps, each in contents.items()}
        listed = [blob.path for blob in files.list(RUN)]
        assert listed == sorted(f"{RUN.path}/{'/'.join(steps)}" for steps in contents)


# -- nothing twice


def test_what_is_there_is_not_sent_again(files: Files, server: BlobServer, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", a=b"1" * 10, b=os.urandom(PIECE_BYTES + 1), c=b"3")
    files.upload(source, RUN)
    (source / "a").write_bytes(b"2" * 10)
    os.utime(source / "c", (5, 5))
    server.calls.clear()
    progress = Progress()
    files.upload(source, RUN, watch=progress)
    assert server.said == ["GET ?list", "PUT maas/run-1/a"]
    assert server.blobs["maas/run-1/a"].content == b"2" * 10
    progress.check(PIECE_BYTES + 12)


def test_what_others_sent_is_known_by_the_hash_of_storage(
    files: Files, server: BlobServer, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"same")
    server.put("maas/a", b"same", md5(b"same"))
    files.upload(tmp_path / "a", Place(DEFAULT, "maas/a"))
    (tmp_path / "a").write_bytes(b"else")
    files.upload(tmp_path / "a", Place(DEFAULT, "maas/a"))
    assert server.said == ["HEAD maas/a", "HEAD maas/a", "PUT maas/a"]
    assert server.blobs["maas/a"].content == b"else"


def test_a_blob_without_hash_is_sent_again(files: Files, server: BlobServer, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    server.put("maas/a", b"same")
    files.upload(tmp_path / "a", Place(DEFAULT, "maas/a"))
    assert server.said == ["HEAD maas/a", "PUT maas/a"]


def test_what_is_whole_is_not_fetched_again(files: Files, server: BlobServer, tmp_path: Path) -> None:
    server.put("maas/run-1/hashed", b"12345", md5(b"12345"))
    server.put("maas/run-1/unhashed", b"67890")
    for _ in range(2):
        files.download(RUN, tmp_path)
    assert sorted(said for said in server.said if said.startswith("GET maas")) == [
        "GET maas/run-1/hashed",
        "GET maas/run-1/unhashed",
    ]
    assert (tmp_path / "unhashed").stat().st_mtime == MODIFIED_AT
    (tmp_path / "hashed").write_bytes(b"54321")
    (tmp_path / "unhashed").write_bytes(b"09876")
    files.download(RUN, tmp_path)
    assert (tmp_path / "hashed").read_bytes() + (tmp_path / "unhashed").read_bytes() == b"1234567890"


def test_another_command_that_sends_the_same_file(files: Files, server: BlobServer, tmp_path: Path) -> None:
    content = os.urandom(PIECE_BYTES + 1)
    (tmp_path / "f").write_bytes(content)

    def other_was_faster(call: Call) -> Reply | None:
        if call.target.endswith("comp=blocklist") and "f" not in server.blobs:
            server.put("f", content, md5(content))
            return refusal(400, "InvalidBlockList")
        return None

    server.trouble = other_was_faster
    files.upload(tmp_path / "f", Place(DEFAULT, "f"))
    assert server.blobs["f"].content == content
    assert server.said.count("PUT f?blocklist") == 1


# -- after a cut


def cut_after(server: BlobServer, pieces: int) -> None:
    """Refuse whatever lies behind so many pieces."""

    def refuse(call: Call) -> Reply | None:
        start = int(call.headers.get("x-ms-range", "bytes=0-")[6:].partition("-")[0])
        return refusal(403, "AuthenticationFailed") if start >= pieces * PIECE_BYTES else None

    server.trouble = refuse


def starts_of(server: BlobServer) -> list[int]:
    """Where the ranges that were asked for start."""
    ranges = [call.headers["x-ms-range"] for call in server.calls if "x-ms-range" in call.headers]
    return sorted(int(each[6:].partition("-")[0]) for each in ranges)


def test_a_download_goes_on_where_it_was_cut(files: Files, server: BlobServer, tmp_path: Path) -> None:
    content = os.urandom(4 * PIECE_BYTES + 7)
    server.put("maas/run-1/model", content, md5(content))
    cut_after(server, 2)
    with pytest.raises(AccessDeniedError):
        files.download(RUN, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "model.part",
        "model.part.etag",
    ]
    assert (tmp_path / "model.part").read_bytes() == content[: 2 * PIECE_BYTES]
    server.trouble = lambda _: None
    server.calls.clear()
    progress = Progress()
    files.download(RUN, tmp_path, watch=progress)
    assert starts_of(server) == [2 * PIECE_BYTES, 3 * PIECE_BYTES, 4 * PIECE_BYTES]
    assert (tmp_path / "model").read_bytes() == content
    assert not list(tmp_path.glob("*.part*"))
    assert progress.told[0][0] == 3 * PIECE_BYTES
    progress.check(len(content))


def test_one_that_was_cut_at_its_very_end(files: Files, server: BlobServer, tmp_path: Path) -> None:
    server.put("maas/run-1/model", b"12345", md5(b"12345"))
    etag = files.list(RUN)[0].etag
    (tmp_path / "model.part").write_bytes(b"12345")
    (tmp_path / "model.part.etag").write_text(etag)
    server.calls.clear()
    files.download(RUN, tmp_path)
    assert server.said == ["GET ?list"]
    assert (tmp_path / "model").read_bytes() == b"12345"


@pytest.mark.parametrize("etag", ["0x99", "", None])
def test_a_part_of_another_blob_begins_anew(
    etag: str | None, files: Files, server: BlobServer, tmp_path: Path
) -> None:
    server.put("maas/run-1/model", b"12345")
    (tmp_path / "model.part").write_bytes(b"xx")
    if etag is not None:
        (tmp_path / "model.part.etag").write_text(etag)
    files.download(RUN, tmp_path)
    assert found_in(tmp_path)["model"] == b"12345"


def test_a_blob_that_changes_under_a_download(files: Files, server: BlobServer, tmp_path: Path) -> None:
    server.put("maas/run-1/model", b"old")

    def change(call: Call) -> Reply | None:
        if call.method == "GET" and call.path.endswith("model"):
            server.put("maas/run-1/model", b"new")
        return None

    server.trouble = change
    with pytest.raises(ConflictError, match="changed meanwhile"):
        files.download(RUN, tmp_path)
    server.trouble = lambda _: None
    files.download(RUN, tmp_path)
    assert (tmp_path / "model").read_bytes() == b"new"


@pytest.mark.parametrize("noted", ["", hashlib.sha256(b"as it was").hexdigest()])
def test_damage_is_noticed_and_nothing_of_it_stays(
    noted: str, files: Files, server: BlobServer, tmp_path: Path
) -> None:
    right = b"damaged" if noted else b"as it was"
    server.put("maas/run-1/model", b"damaged", md5(right), {"sha256": noted} if noted else {})
    with pytest.raises(UnavailableError, match="does not have its length and hash"):
        files.download(RUN, tmp_path / "out")
    assert found_in(tmp_path / "out") == {}


def test_a_full_disk(files: Files, server: BlobServer, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    server.put("maas/run-1/model", content, md5(content))
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(QuotaError, match="disk is full"):
            files.download(RUN, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    files.download(RUN, tmp_path)
    assert (tmp_path / "model").read_bytes() == content


# -- what comes, and where to


@pytest.mark.parametrize(
    "name",
    [
        "maas/run-1/../../x",
        "maas/run-1//etc/x",
        "maas/run-1/a/../../../x",
        "maas/run-1/./x",
        "maas/run-1/link/x",
    ],
)
def test_no_name_leads_out_of_the_folder(name: str, files: Files, server: BlobServer, tmp_path: Path) -> None:
    """Nothing is fetched at all: whoever wrote such a name meant harm, or will be misunderstood."""
    out = tmp_path / "a" / "out"
    out.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (out / "link").symlink_to(tmp_path / "elsewhere")
    server.put("maas/run-1/a.txt", b"fine")
    server.put(name, b"harm")
    with pytest.raises(RejectedError) as caught:
        files.download(RUN, out)
    assert caught.value.code == "UnsafeName"
    assert not [path for path in tmp_path.rglob("*") if path.name in {"x", "x.part", "a.txt"}]


def test_what_is_ignored_stays_away(files: Files, server: BlobServer, tmp_path: Path) -> None:
    for name in ("result.json", "checkpoints/step-1/w", "model/w", "model/checkpoint-9/w", "events.jsonl"):
        server.put(f"maas/run-1/{name}", name.encode())
    progress = Progress()
    files.download(RUN, tmp_path / "out", ignore=("checkpoint*", "events.*"), watch=progress)
    assert sorted(found_in(tmp_path / "out")) == ["model/w", "result.json"]
    progress.check(len("model/w") + len("result.json"))


def test_folders_of_mounted_storage_are_no_files(files: Files, server: BlobServer, tmp_path: Path) -> None:
    server.put("maas/run-1/model", b"", metadata={"hdi_isfolder": "true"})
    server.put("maas/run-1/model/w", b"1")
    files.download(RUN, tmp_path / "out")
    assert found_in(tmp_path / "out") == {"model/w": b"1"}


def test_a_place_is_no_other_that_begins_so(files: Files, server: BlobServer, tmp_path: Path) -> None:
    server.put("maas/run-10/a", b"10")
    with pytest.raises(
        NotFoundError, match="nothing at azureml://datastores/workspaceblobstore/paths/maas/run-1"
    ):
        files.download(RUN, tmp_path)
    assert files.list(RUN) == []
    assert files.list(Place(DEFAULT, "maas/run-10/a")) == files.list(Place(DEFAULT, "maas/run-10"))
    assert len(files.list(Place(DEFAULT, ""))) == 1


def test_reading_and_writing(files: Files, server: BlobServer) -> None:
    place = Place(DEFAULT, "maas/notes.txt")
    files.write(place, b"hello there")
    assert files.read(place) == b"hello there"
    assert files.read(place, offset=6, limit=2) == b"th"
    assert files.read(place, offset=11) == b""
    with pytest.raises(NotFoundError):
        files.read(Place(DEFAULT, "maas/none.txt"))
    sha256 = hashlib.sha256(b"hello there").hexdigest()
    expected = Blob("maas/notes.txt", 11, md5(b"hello there").hex(), "0x1", MODIFIED_AT, sha256)
    assert files.list(place) == [expected]


# -- what lets one in


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobServer]:
    """Over TLS: a token goes over nothing else."""
    made = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.authority))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.server, made.key)
    with blob_server(tls) as running:
        yield running


def is_signed_with(call: Call) -> str:
    scheme = call.headers.get("authorization", "").partition(" ")[0]
    return scheme or ("Sas" if "sig=" in call.target else "nothing")


@pytest.mark.parametrize(("kind", "signed"), [("Sas", "Sas"), ("None", "Bearer")])
def test_each_kind_of_credential(kind: str, signed: str, world: World, tls_server: BlobServer) -> None:
    files = open_files(world, tls_server, kind)
    files.write(RUN, b"x")
    assert files.read(RUN) == b"x"
    assert {is_signed_with(call) for call in tls_server.calls} == {signed}


def keyless(call: Call) -> Reply | None:
    if is_signed_with(call) == "Bearer":
        return None
    return refusal(403, "KeyBasedAuthenticationNotPermitted")


def test_storage_that_takes_no_keys_is_opened_by_role(
    world: World, tls_server: BlobServer, tmp_path: Path
) -> None:
    files = open_files(world, tls_server)
    tls_server.trouble = keyless
    (tmp_path / "f").write_bytes(b"x")
    progress = Progress()
    files.upload(tmp_path / "f", Place(DEFAULT, "f"), watch=progress)
    progress.check(1)
    assert files.read(Place(DEFAULT, "f")) == b"x"
    assert [is_signed_with(call) for call in tls_server.calls] == ["Sas", "Bearer", "Bearer", "Bearer"]


def test_a_secret_that_is_not_given_out_leaves_the_role(world: World, tls_server: BlobServer) -> None:
    files = open_files(world, tls_server)
    world.faults.order({"kind": "status", "status": 403, "match": "listSecrets"})
    files.write(RUN, b"x")
    assert [is_signed_with(call) for call in tls_server.calls] == ["Bearer"]


def test_without_the_role_it_says_which_one_to_ask_for(world: World, tls_server: BlobServer) -> None:
    files = open_files(world, tls_server)
    tls_server.trouble = lambda call: keyless(call) or refusal(403, "AuthorizationPermissionMismatch")
    with pytest.raises(AccessDeniedError) as caught:
        files.list(RUN)
    assert "Storage Blob Data Contributor" in caught.value.hint
    assert caught.value.code == "AuthorizationPermissionMismatch"
    tls_server.trouble = lambda call: keyless(call) or refusal(403, "AuthorizationFailure")
    with pytest.raises(AccessDeniedError, match="AuthorizationFailure") as caught:
        files.list(RUN)
    assert "network rules" in caught.value.hint


def test_a_refused_key_that_is_no_question_of_keys_is_said(world: World, server: BlobServer) -> None:
    files = open_files(world, server)
    server.trouble = lambda _: refusal(403, "AuthorizationFailure")
    with pytest.raises(AccessDeniedError):
        files.list(RUN)
    assert len(server.calls) == 1


def test_secrets_are_in_no_error_and_no_log(
    files: Files, world: World, server: BlobServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.trouble = lambda call: refusal(403, "AuthenticationFailed", f"Wrong: {call.target}")
    with pytest.raises(ServiceError) as caught:
        files.list(RUN)
    signature = server.calls[0].target.partition("sig=")[2].partition("&")[0]
    assert len(signature) > 30
    said = [str(caught.value.to_dict()), repr(caught.value), repr(vars(files))]
    said += [record.getMessage() for record in caplog.records]
    assert not [text for text in said if signature in text or world.storage.key in text]
