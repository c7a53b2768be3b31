"""The real azure-storage-blob against storage on loopback: what is sent, what is checked, when it ends."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    ServiceError,
    UnavailableError,
)
from maas_client.simulator.certificate import make_certificate
from maas_client.transport.blobs import PIECE_BYTES, Blob, Container, Piece, open_container
from tests.transport.blobserver import MODIFIED_AT, BlobServer, blob_server, md5, refusal
from tests.transport.loopback import Call, Reply

KEY = "a2V5"
SIGNATURE = "s1gn4tur3s1gn4tur3"
SAS = f"sv=2026-01-01&sp=rl&sig={SIGNATURE}"
MIB = 2**20


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with blob_server() as running:
        yield running


@pytest.fixture
def container(server: BlobServer) -> Container:
    return open_container(server.account_url, "box", key=KEY)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pieces_of(blob: Blob, size: int = PIECE_BYTES) -> list[Piece]:
    return [
        Piece(blob, start, min(size, blob.size_bytes - start)) for start in range(0, blob.size_bytes, size)
    ]


def test_a_short_file_is_one_request_whose_hash_the_service_compares(
    server: BlobServer, container: Container, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    seen: list[int] = []
    container.send(tmp_path / "f", "a b/ü.txt", watch=seen.append)
    assert server.said == ["PUT a b/ü.txt"]
    assert server.calls[0].headers["content-md5"] == server.calls[0].headers["x-ms-blob-content-md5"]
    assert container.look("a b/ü.txt").checksum == ("sha256", sha256(b"hello"))
    assert server.blobs["a b/ü.txt"].content == b"hello"
    assert seen == [5]


def test_a_long_file_goes_as_blocks_and_is_looked_at_afterwards(
    server: BlobServer, container: Container, tmp_path: Path
) -> None:
    content = os.urandom(3 * PIECE_BYTES + 5)
    (tmp_path / "f").write_bytes(content)
    seen: list[int] = []
    container.send(tmp_path / "f", "f", watch=seen.append)
    assert sorted(server.said[:4]) == ["PUT f?block"] * 4
    assert server.said[4:] == ["PUT f?blocklist", "HEAD f"]
    assert server.blobs["f"].content == content
    assert server.blobs["f"].md5 == md5(content)
    assert server.blobs["f"].metadata == {"sha256": sha256(content)}
    assert seen == sorted(seen)
    assert seen[-1] == len(content)


def test_a_very_long_file_is_hashed_while_it_is_sent(
    server: BlobServer, container: Container, tmp_path: Path
) -> None:
    content = bytes(65 * MIB)
    (tmp_path / "f").write_bytes(content)
    container.send(tmp_path / "f", "f")
    assert server.said[-3:] == ["PUT f?blocklist", "PUT f?metadata", "HEAD f"]
    assert container.look("f") == Blob("f", len(content), None, "0x1", MODIFIED_AT, sha256(content))


def test_a_file_that_changes_while_it_is_sent(container: Container, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"before")
    with pytest.raises(ConflictError, match="changed while it was sent"):
        container.send(file, "f", watch=lambda _: os.utime(file, (1, 1)))


def test_something_else_that_arrived_is_noticed(
    server: BlobServer, container: Container, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(bytes(MIB))

    def damage(call: Call) -> Reply | None:
        if call.method == "HEAD":
            server.put("f", bytes(MIB), md5(b"other"))
        return None

    server.trouble = damage
    with pytest.raises(UnavailableError, match="something else arrived") as caught:
        container.send(tmp_path / "f", "f")
    assert caught.value.code == "OtherContent"


def test_pieces_come_in_order_however_long_each_takes(server: BlobServer, container: Container) -> None:
    content = os.urandom(10_000)
    server.put("f", content)
    stuck = threading.Event()

    def first_is_slow(call: Call) -> Reply | None:
        first = call.headers.get("x-ms-range", "").startswith("bytes=0-")
        if call.method == "GET" and first and not stuck.is_set():
            stuck.set()
            return refusal(503, "ServerBusy")
        return None

    server.trouble = first_is_slow
    came = list(container.pieces(pieces_of(container.look("f"), 1000)))
    assert [piece.offset for piece, _ in came] == list(range(0, 10_000, 1000))
    assert b"".join(data for _, data in came) == content
    assert [piece.is_last for piece, _ in came] == [False] * 9 + [True]


def test_few_pieces_are_fetched_ahead(server: BlobServer, container: Container) -> None:
    server.put("f", bytes(100))
    coming = container.pieces(pieces_of(container.look("f"), 1))
    next(coming)
    coming.close()
    assert server.said.count("GET f") <= 7


def test_a_blob_that_changes_while_it_is_fetched(server: BlobServer, container: Container) -> None:
    server.put("f", b"old")
    blob = container.list("")[0]
    server.put("f", b"new")
    with pytest.raises(ConflictError) as caught:
        list(container.pieces(pieces_of(blob)))
    assert caught.value.message == "Cannot fetch f: it changed meanwhile."
    assert (caught.value.status, caught.value.request_id) == (412, "r-2")


def test_a_cut_body_is_asked_for_again(server: BlobServer, container: Container) -> None:
    server.put("f", b"0123456789")
    cuts = iter([True])

    def cut_once(call: Call) -> Reply | None:
        if call.method == "GET" and next(cuts, False):
            headers = {"Content-Range": "bytes 0-9/10", "ETag": '"0x1"', "x-ms-blob-type": "BlockBlob"}
            return Reply(206, b"0123456789", headers, trouble="cut")
        return None

    server.trouble = cut_once
    assert [data for _, data in container.pieces(pieces_of(container.look("f")))] == [b"0123456789"]


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 2, b"34"),
        (8, 100, b"89"),
        (10, None, b""),
        (99, 5, b""),
        (3, 0, b""),
    ],
)
def test_ranges(
    offset: int, limit: int | None, expected: bytes, server: BlobServer, container: Container
) -> None:
    server.put("f", b"0123456789")
    assert container.read("f", offset=offset, limit=limit) == expected


def test_a_blob_that_is_not_there(container: Container) -> None:
    for ask in (container.read, container.look):
        with pytest.raises(NotFoundError) as caught:
            ask("none")
        assert (caught.value.status, caught.value.code) == (404, "BlobNotFound")


def test_a_listing_has_all_pages_and_no_blobs_that_stand_for_folders(
    server: BlobServer, container: Container
) -> None:
    for name in ("run/a", "run/b", "run/c", "run/d", "other"):
        server.put(name, name.encode(), md5(name.encode()))
    server.put("run/folder", b"", metadata={"hdi_isfolder": "true"})
    server.put("run/folder/", b"")
    server.put("run/no-hash", b"x")
    found = container.list("run/")
    assert [blob.path for blob in found] == ["run/a", "run/b", "run/c", "run/d", "run/no-hash"]
    assert [blob.md5 for blob in found[2:]] == [md5(b"run/c").hex(), md5(b"run/d").hex(), None]
    assert found[0].modified_at == MODIFIED_AT
    assert container.look("run/a") == found[0]


def test_what_is_written_is_there(server: BlobServer, container: Container) -> None:
    for content in (b"", b"x", os.urandom(MIB)):
        container.write("f", content)
        assert server.blobs["f"].content == content
        assert server.blobs["f"].md5 == md5(content)


def test_a_signed_query_is_asked_for_with_each_request(server: BlobServer) -> None:
    asked = iter(range(100))
    container = open_container(server.account_url, "box", sas=lambda: f"sig={next(asked)}")
    container.list("")
    container.list("")
    assert ["sig=0" in call.target for call in server.calls] == [True, False]
    assert "sig=1" in server.calls[1].target


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_storage_that_is_not_there_is_said_within_seconds() -> None:
    container = open_container(f"http://127.0.0.1:{closed_port()}/account", "box", sas=lambda: SAS)
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        container.list("")
    assert time.monotonic() - began < 8
    assert caught.value.message == "Cannot list the datastore: the storage account takes no connection."
    assert "HTTPS_PROXY" in caught.value.hint


@pytest.mark.slow
def test_storage_that_swallows_connections_is_said_within_seconds() -> None:
    """A full backlog: the system drops every further connection, as a firewall does."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        container = open_container(f"http://127.0.0.1:{deaf.getsockname()[1]}/account", "box", key=KEY)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="takes no connection"):
            container.look("f")
        assert time.monotonic() - began < 16
        for filler in fillers:
            filler.close()


def test_an_overloaded_service_is_asked_again(server: BlobServer, container: Container) -> None:
    server.put("f", b"x")
    busy = iter([True])
    server.trouble = lambda _: refusal(503, "ServerBusy") if next(busy, False) else None
    assert container.read("f") == b"x"


def test_a_broken_connection_is_no_end(server: BlobServer, container: Container) -> None:
    breaks = iter([True])
    server.trouble = lambda _: Reply(trouble="reset") if next(breaks, False) else None
    container.write("f", b"x")
    assert server.blobs["f"].content == b"x"


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (403, "AuthorizationPermissionMismatch", AccessDeniedError, "Storage Blob Data Contributor"),
        (403, "AuthorizationFailure", AccessDeniedError, "network rules"),
        (403, "AuthenticationFailed", AccessDeniedError, "clock"),
        (404, "ContainerNotFound", NotFoundError, ""),
        (409, "BlobImmutableDueToPolicy", ConflictError, ""),
    ],
)
def test_refusals(
    status: int, code: str, kind: type[ServiceError], hint: str, server: BlobServer, container: Container
) -> None:
    server.trouble = lambda _: refusal(status, code)
    with pytest.raises(kind) as caught:
        container.list("x/")
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, code, "r-2")
    assert caught.value.operation == "list x/"
    assert hint in caught.value.hint


def test_no_secret_is_in_an_error_or_a_log(server: BlobServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.trouble = lambda _: refusal(403, "AuthenticationFailed", f"Signature did not match: {_.target}")
    said = []
    for url in (server.account_url, f"http://127.0.0.1:{closed_port()}/account"):
        container = open_container(url, "box", sas=lambda: SAS)
        with pytest.raises(ServiceError) as caught:
            container.list("x")
        said += [str(caught.value.to_dict()), repr(caught.value), repr(container)]
    assert any("urllib3" in record.name for record in caplog.records)
    said += [record.getMessage() for record in caplog.records]
    assert not [text for text in said if SIGNATURE in text]


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.server, made.key)
    with blob_server(tls) as server:
        container = open_container(server.account_url, "box", key=KEY)
        with pytest.raises(ServiceError) as caught:
            container.list("")
    assert caught.value.code == "CertificateError"
    assert "REQUESTS_CA_BUNDLE" in caught.value.hint


def test_two_that_send_the_same_blob(server: BlobServer, container: Container, tmp_path: Path) -> None:
    """The blocks of the slower one are dropped when the faster one is done."""
    (tmp_path / "f").write_bytes(bytes(MIB))
    server.trouble = lambda call: (
        refusal(400, "InvalidBlockList") if call.target.endswith("blocklist") else None
    )
    with pytest.raises(ServiceError) as caught:
        container.send(tmp_path / "f", "f")
    assert caught.value.code == "InvalidBlockList"
    assert "f" not in server.blobs
