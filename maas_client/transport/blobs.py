"""Blobs of one container through azure-storage-blob, with patience of seconds and every failure named.

Sending is the package's own parallel upload. Fetching is a few ranged reads at a time, taken in order: so a
file on disk is always whole up to its length, can go on where it was cut off, and is hashed while it comes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.errors import ConflictError, ServiceError, UnavailableError
from maas_client.transport.filehash import MD5, SHA256, file_hash, hashed_meanwhile
from maas_client.transport.storage import open_client, storage_calls

if TYPE_CHECKING:
    from maas_client.transport.credential import AzureCredential

PIECE_BYTES = 8 * 2**20
"""What one request carries: with four at once a fast network is used well, and some 60 MB of memory."""
_WORKERS = 4
_AHEAD = 5
# One request whose body goes out within one timeout, whatever the line; longer files go as blocks, which the
# package sends in small pieces with a timeout each.
_SINGLE_PUT_BYTES = 2**18
# Up to here a file is hashed before it is sent, and storage is told its MD5 too, for other tools. A longer
# one is hashed while it is sent, by SHA-256 alone: processors of today do that more than twice as fast.
_HASHED_FIRST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Blob:
    """One look at a blob. `path` is its name in the container, `modified_at` unix seconds.

    `md5` is what storage knows, `sha256` what whoever sent it noted in its metadata; hexadecimal, or None.
    """

    path: str
    size_bytes: int
    md5: str | None
    etag: str
    modified_at: float
    sha256: str | None = None

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The best hash that is known, as (algorithm, hexadecimal)."""
        if self.sha256 is not None:
            return SHA256, self.sha256
        return None if self.md5 is None else (MD5, self.md5)


@dataclass(frozen=True)
class Piece:
    """A range of a blob, in bytes."""

    blob: Blob
    offset: int
    length: int

    @property
    def is_last(self) -> bool:
        """True for the piece that ends the blob."""
        return self.offset + self.length >= self.blob.size_bytes


class Container:
    """The blobs of a container. Raises ServiceError's kinds; NotFoundError for a blob that is not there."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def look(self, path: str) -> Blob:
        """One blob."""
        with storage_calls(f"look at {path}"):
            return _blob(self._client.get_blob_client(path).get_blob_properties())

    def list(self, prefix: str) -> list[Blob]:
        """All blobs whose names start so, in order of name, without those that only stand for folders."""
        with storage_calls(f"list {prefix or 'the datastore'}"):
            found = self._client.list_blobs(name_starts_with=prefix or None, include=["metadata"])
            return [_blob(each) for each in found if not _is_folder(each)]

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """The bytes from `offset`, at most `limit`; b"" at or after the end."""
        if limit == 0:
            return b""
        try:
            with storage_calls(f"read {path}"):
                content: bytes = self._client.download_blob(path, offset, limit).readall()
                return content
        except ServiceError as error:
            if error.status == 416:  # the range begins at the end
                return b""
            raise

    def pieces(self, wanted: Iterable[Piece]) -> Generator[tuple[Piece, bytes], None, None]:
        """Each piece with its bytes, in order; some are fetched ahead.

        Raises ConflictError where a blob is no longer the one that was looked at.
        """
        coming: deque[tuple[Piece, Future[bytes]]] = deque()

        def first() -> tuple[Piece, bytes]:
            piece, content = coming.popleft()
            return piece, content.result()

        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                for piece in wanted:
                    coming.append((piece, pool.submit(self._fetch, piece)))
                    if len(coming) >= _AHEAD:
                        yield first()
                while coming:
                    yield first()
            finally:
                for _, content in coming:
                    content.cancel()

    def _fetch(self, piece: Piece) -> bytes:
        if piece.length == 0:
            return b""
        from azure.core import MatchConditions

        blob = piece.blob
        options = {"etag": f'"{blob.etag}"', "match_condition": MatchConditions.IfNotModified}
        with storage_calls(f"fetch {blob.path}"):
            stream = self._client.download_blob(blob.path, piece.offset, piece.length, **options)
            content = b"".join(stream.chunks())  # is one chunk: readall() would copy it twice
        if len(content) != piece.length:
            raise UnavailableError(
                f"Cannot fetch {blob.path}: the answer was cut off.", hint="Try again.", code="CutOff"
            )
        return content

    def write(self, path: str, data: bytes) -> None:
        """Make or replace a blob."""
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        is_short = len(data) <= _SINGLE_PUT_BYTES
        with storage_calls(f"write {path}"):
            self._client.upload_blob(
                path,
                data,
                overwrite=True,
                content_settings=_settings(md5),
                metadata={SHA256: hashlib.sha256(data).hexdigest()},
                validate_content=is_short,
            )

    def send(
        self,
        source: Path,
        path: str,
        *,
        sha256: str | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """Make or replace a blob from a file; `sha256` is the file's where it is known.

        `watch` is told the bytes that arrived so far, by several threads in turn. A short file is checked by
        the service as it arrives; a long one is looked at afterwards. Raises ConflictError where the file
        changed meanwhile, and UnavailableError where something else arrived.
        """
        before = source.stat()
        is_long = before.st_size > _HASHED_FIRST_BYTES
        if sha256 is None and not is_long:
            sha256 = file_hash(source, SHA256)
        if sha256 is not None:
            self._put(source, path, None if is_long else file_hash(source, MD5), sha256, watch)
        else:
            with hashed_meanwhile(source, SHA256) as hashing:
                self._put(source, path, None, None, watch)
                sha256 = hashing.result()
            with storage_calls(f"send {path}"):
                self._client.get_blob_client(path).set_blob_metadata({SHA256: sha256})
        after = source.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ConflictError(
                f"{source} changed while it was sent.",
                hint="Try again when nothing writes to it.",
                operation=f"send {path}",
                code="SourceChanged",
            )
        if before.st_size > _SINGLE_PUT_BYTES:
            self._check(path, before.st_size, sha256)

    def _put(
        self,
        source: Path,
        path: str,
        md5: str | None,
        sha256: str | None,
        watch: Callable[[int], None] | None,
    ) -> None:
        size = source.stat().st_size
        with storage_calls(f"send {path}"), source.open("rb") as stream:
            self._client.upload_blob(
                path,
                stream,
                length=size,
                overwrite=True,
                max_concurrency=_WORKERS if size > PIECE_BYTES else 1,
                content_settings=_settings(md5),
                metadata={SHA256: sha256} if sha256 else None,
                validate_content=size <= _SINGLE_PUT_BYTES,
                progress_hook=(lambda done, _: watch(done)) if watch else None,
            )

    def _check(self, path: str, size: int, sha256: str) -> None:
        """Whether what lies there is what was sent."""
        found = self.look(path)
        if (found.size_bytes, found.sha256) != (size, sha256):
            raise UnavailableError(
                f"Cannot send {path}: something else arrived, or another command sends it too.",
                hint="Try again.",
                operation=f"send {path}",
                code="OtherContent",
            )


def open_container(
    account_url: str,
    name: str,
    *,
    key: str | None = None,
    sas: Callable[[], str] | None = None,
    identity: AzureCredential | None = None,
) -> Container:
    """A container, let in by an account key, by a signed query that is asked for with each request, or by the
    caller's own identity. Sends nothing.
    """
    return Container(
        open_client(
            account_url,
            name,
            key=key,
            sas=sas,
            identity=identity,
            max_block_size=PIECE_BYTES,
            max_single_put_size=_SINGLE_PUT_BYTES,
            max_single_get_size=PIECE_BYTES,
            max_chunk_get_size=PIECE_BYTES,
            connection_data_block_size=PIECE_BYTES,  # a piece is read at once, not copied together
        )
    )


def _settings(md5: str | None) -> Any:
    from azure.storage.blob import ContentSettings

    return ContentSettings(
        content_type="application/octet-stream", content_md5=bytearray.fromhex(md5) if md5 else None
    )


def _metadata(found: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in (found.metadata or {}).items()}


def _is_folder(found: Any) -> bool:
    """Whether a blob only stands for a folder, as mounted storage writes them."""
    return _metadata(found).get("hdi_isfolder", "").lower() == "true" or found.name.endswith("/")


def _blob(found: Any) -> Blob:
    md5 = found.content_settings.content_md5
    return Blob(
        path=str(found.name),
        size_bytes=int(found.size),
        md5=bytes(md5).hex() if md5 else None,
        etag=str(found.etag or "").strip('"'),
        modified_at=found.last_modified.timestamp(),
        sha256=_metadata(found).get(SHA256),
    )
