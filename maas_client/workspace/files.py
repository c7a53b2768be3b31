"""Files in a workspace's datastores: sent, fetched, read and listed, whatever lets one in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from maas_client.errors import AccessDeniedError, NotFoundError
from maas_client.transport.blobs import Blob, Container, open_container
from maas_client.workspace.datastores import Datastore, Place, SignedQuery, ask_secret, get_datastore
from maas_client.workspace.downloads import Incoming, fetch_files, target_in
from maas_client.workspace.uploads import outgoing, send_files

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.workspace.session import Workspace

__all__ = ["Blob", "Files"]

_LOOK = "Check the path, and that what writes it has ended."
_Result = TypeVar("_Result")
_KEYLESS = "KeyBasedAuthenticationNotPermitted"
_BLOCKED = "AuthorizationFailure"  # by the account's network rules


@dataclass(frozen=True)
class _Store:
    """An open datastore; `by_identity` where the caller's own identity is what lets in."""

    datastore: Datastore
    container: Container
    by_identity: bool


class Files:
    """Files of a workspace, by their places. A datastore is looked at once, when it is first used.

    Its account key or signed URL is used where it has one that is given to this caller and that the storage
    account takes; else the caller's own identity. Raises ServiceError's kinds: NotFoundError,
    AccessDeniedError with the role to ask for, UnavailableError within seconds where storage does not answer.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._stores: dict[str, _Store] = {}

    def upload(self, source: Path, place: Place, *, watch: Watch | None = None) -> None:
        """Send a file, or a folder's files below a place; what lies there unchanged is not sent again.

        A file goes to `place` itself, or below it by its own name where the path ends with a slash. Other
        blobs below the place stay. `watch` may be called from several threads, one call after the other.
        """
        files = outgoing(source, place.path)

        def send(container: Container) -> None:
            there = _below(container, place.path) if source.is_dir() else _at(container, files[0].path)
            send_files(container, files, {blob.path: blob for blob in there}, watch)

        self._use(place.datastore, send)

    def download(
        self, place: Place, folder: Path, *, ignore: tuple[str, ...] = (), watch: Watch | None = None
    ) -> None:
        """Bring a file, or all files below a place, into a folder; what is there whole is not fetched again.

        `ignore` are patterns such as checkpoint-*: a file is left out where one fits its name, or that of a
        folder on the way to it. Raises NotFoundError where nothing is at the place.
        """

        def fetch(container: Container) -> None:
            found = _below(container, place.path) or _at(container, place.path)
            if not found:
                raise NotFoundError(f"There is nothing at {place}.", hint=_LOOK, operation="download")
            names = {blob: _name_below(place.path, blob.path) for blob in found}
            kept = [(blob, name) for blob, name in names.items() if not _is_ignored(name, ignore)]
            fetch_files(container, [Incoming(blob, target_in(folder, name)) for blob, name in kept], watch)

        self._use(place.datastore, fetch)

    def read(self, place: Place, *, offset: int = 0, limit: int | None = None) -> bytes:
        """The bytes of a file from `offset`, at most `limit`; b"" at its end. Raises NotFoundError."""
        return self._use(
            place.datastore, lambda container: container.read(place.path, offset=offset, limit=limit)
        )

    def list(self, place: Place) -> list[Blob]:
        """The files below a place, or the one at it, in order of name; their paths are those of places in the
        same datastore.
        """
        return self._use(
            place.datastore, lambda container: _below(container, place.path) or _at(container, place.path)
        )

    def write(self, place: Place, data: bytes) -> None:
        """Make or replace a file, for what fits into memory."""
        self._use(place.datastore, lambda container: container.write(place.path, data))

    def _use(self, name: str, do: Callable[[Container], _Result]) -> _Result:
        """Do something with a datastore's container, by identity where the account takes no keys."""
        store = self._stores.get(name) or self._open(name)
        self._stores[name] = store
        try:
            return do(store.container)
        except AccessDeniedError as error:
            if store.by_identity:
                raise _with_role(error, store.datastore) from None
            if error.code != _KEYLESS:
                raise
        self._stores[name] = self._by_identity(store.datastore)
        return self._use(name, do)

    def _open(self, name: str) -> _Store:
        datastore = get_datastore(self._workspace, name)
        secret = ask_secret(self._workspace, datastore)
        url, container = datastore.account_url, datastore.container
        if secret is None:
            return self._by_identity(datastore)
        if secret.kind == "AccountKey":
            return _Store(datastore, open_container(url, container, key=secret.value), by_identity=False)
        sas = SignedQuery(self._workspace, datastore, secret)
        return _Store(datastore, open_container(url, container, sas=sas), by_identity=False)

    def _by_identity(self, datastore: Datastore) -> _Store:
        identity = self._workspace.credential
        container = open_container(datastore.account_url, datastore.container, identity=identity)
        return _Store(datastore, container, by_identity=True)


def _below(container: Container, path: str) -> list[Blob]:
    return container.list(f"{path.rstrip('/')}/" if path else "")


def _at(container: Container, path: str) -> list[Blob]:
    """The blob of exactly this path, if it is there."""
    if not path or path.endswith("/"):
        return []
    try:
        return [container.look(path)]
    except NotFoundError:
        return []


def _name_below(start: str, path: str) -> str:
    """A blob's name seen from the place; the last part where it is the place itself."""
    if path == start:
        return path.rpartition("/")[2]
    return path[len(start.rstrip("/")) + 1 :] if start else path


def _is_ignored(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(step, pattern) for step in name.split("/") for pattern in patterns)


def _with_role(error: AccessDeniedError, datastore: Datastore) -> AccessDeniedError:
    """The error with the role that the caller's own identity needs; as it is where a role would not help."""
    if error.status != 403 or error.code == _BLOCKED:
        return error
    account = (urlsplit(datastore.account_url).hostname or "").partition(".")[0]
    return AccessDeniedError(
        error.message,
        hint=(
            f"Ask for the role Storage Blob Data Contributor on storage account {account}, then wait some "
            "minutes: the datastore gives no key, so your own role counts."
        ),
        operation=error.operation,
        status=error.status,
        code=error.code,
        request_id=error.request_id,
    )
