"""Blob storage: the real Azurite as a child process, and what the simulator does with blobs."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from maas_client.errors import UnavailableError
from maas_client.simulator.azurite import azurite, node
from maas_client.simulator.certificate import Certificate

ACCOUNT = "maassimulator"
DEFAULT_CONTAINER = "azureml-blobstore-simulated"
ARTIFACT_CONTAINER = "azureml"
_START_S = 60.0
_DIES_WITH_PARENT = """\
process.stdin.resume();
process.stdin.unref();
process.stdin.on('end', () => {
  process.kill(process.pid, 'SIGTERM');
  setTimeout(() => process.exit(0), 3000).unref();
});
"""
"""Loaded into Azurite: its end of the pipe closes when the simulator ends, however that ends."""


class Storage:
    """One storage account. `endpoint` is its URL; `keep`: what is in it is wanted again at the next start."""

    def __init__(
        self, folder: Path, certificate: Certificate | None, key: str, *, keep: bool = False
    ) -> None:
        self._keep = keep
        self.key = key
        self._folder = folder
        self._certificate = certificate
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""
        self._client: Any = None

    @property
    def account_name(self) -> str:
        """What datastores give as the account.

        Packages put it between https:// and .blob.SUFFIX; the # makes the rest of that a fragment, so that
        they reach Azurite without any name in DNS.
        """
        return f"{self.endpoint.partition('://')[2]}#"

    def start(self) -> None:
        """Start Azurite and make the two containers of a workspace. Raises UnavailableError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        guard = self._folder / "guard.js"
        guard.write_text(_DIES_WITH_PARENT, encoding="utf-8")
        words = [
            node(),
            "--require",
            str(guard),
            str(azurite()),
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            "0",
        ]
        words += ["--location", str(self._folder / "blobs"), "--silent", "--skipApiVersionCheck"]
        words += ["--disableTelemetry", "--loose"]
        if self._certificate is not None:
            words += ["--cert", str(self._certificate.server), "--key", str(self._certificate.key)]
            words += ["--oauth", "basic"]
        environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{self.key}"}
        process = self._process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.endpoint = f"{_listening(process)}/{ACCOUNT}"
        for container in (DEFAULT_CONTAINER, ARTIFACT_CONTAINER):
            with suppress(_exists()):
                self.client.create_container(container)

    def stop(self) -> None:
        """End Azurite and wait until it is gone."""
        if self._process is None:
            return
        if self._keep:  # in good order, which takes seconds: it writes down what it holds
            self.client.close()
            self._process.terminate()
        else:
            self._process.kill()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process = None

    @property
    def client(self) -> Any:
        """A BlobServiceClient with the account's key; safe to use from several threads."""
        if self._client is None:
            from azure.storage.blob import BlobServiceClient

            verify = str(self._certificate.authority) if self._certificate else True
            self._client = BlobServiceClient(
                self.endpoint,
                credential={"account_name": ACCOUNT, "account_key": self.key},
                connection_verify=verify,
                retry_total=2,
                connection_timeout=10,
                read_timeout=60,
                proxies={"http": None, "https": None},
            )
        return self._client

    def sas(self, container: str, blob: str = "", *, write: bool = False, hours: float = 1.0) -> str:
        """The query of a signed URL: for one blob to read, or for a container to read (and write)."""
        from azure.storage.blob import (
            BlobSasPermissions,
            ContainerSasPermissions,
            generate_blob_sas,
            generate_container_sas,
        )

        end = datetime.now(UTC) + timedelta(hours=hours)
        start = datetime.now(UTC) - timedelta(minutes=5)
        if blob:
            allowed = BlobSasPermissions(read=True)
            return str(
                generate_blob_sas(
                    ACCOUNT,
                    container,
                    blob,
                    account_key=self.key,
                    permission=allowed,
                    expiry=end,
                    start=start,
                )
            )
        everything = ContainerSasPermissions(
            read=True, list=True, add=write, create=write, write=write, delete=write
        )
        return str(
            generate_container_sas(
                ACCOUNT, container, account_key=self.key, permission=everything, expiry=end, start=start
            )
        )

    def account_sas(self, hours: float) -> str:
        """A SAS for the whole account, as listSecrets gives it."""
        from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

        return str(
            generate_account_sas(
                ACCOUNT,
                self.key,
                ResourceTypes(service=True, container=True, object=True),
                AccountSasPermissions(
                    read=True, write=True, delete=True, list=True, add=True, create=True, update=True
                ),
                datetime.now(UTC) + timedelta(hours=hours),
            )
        )

    def ensure_container(self, name: str) -> None:
        """Make a container unless it is there."""
        with suppress(_exists()):
            self.client.create_container(name)

    def download(self, container: str, path: str, to: Path) -> list[Path]:
        """Fetch one blob into the file `to`, or everything under a folder path into the folder `to`."""
        box = self.client.get_container_client(container)
        clean = path.strip("/")
        if clean and not path.endswith("/") and box.get_blob_client(clean).exists():
            _write(box.get_blob_client(clean), to)
            return [to]
        prefix = f"{clean}/" if clean else ""
        written = []
        for blob in box.list_blobs(name_starts_with=prefix):
            target = (to / blob.name[len(prefix) :]).resolve()
            if not target.is_relative_to(to.resolve()):
                continue
            _write(box.get_blob_client(blob.name), target)
            written.append(target)
        return written

    def upload(self, container: str, path: str, source: Path) -> None:
        """Write one file as a block blob, in place of an older one."""
        with source.open("rb") as file:
            self.client.get_blob_client(container, path).upload_blob(file, overwrite=True)

    def delete(self, container: str, path: str) -> None:
        """Remove a blob, if it is there."""
        blob = self.client.get_blob_client(container, path)
        if blob.exists():
            blob.delete_blob()

    def append(self, container: str, path: str, data: bytes) -> None:
        """Add bytes to an append blob, which is made if it is not there."""
        blob = self.client.get_blob_client(container, path)
        if not blob.exists():
            blob.create_append_blob()
        for start in range(0, len(data), 1 << 20):
            blob.append_block(data[start : start + (1 << 20)])

    def used_bytes(self) -> int:
        """Bytes of all blobs of the workspace's two containers."""
        boxes = (DEFAULT_CONTAINER, ARTIFACT_CONTAINER)
        return sum(blob.size for box in boxes for blob in self.client.get_container_client(box).list_blobs())


def _listening(process: subprocess.Popen[str]) -> str:
    """The URL that Azurite prints, with localhost in it: packages know that name for an emulator."""
    said: list[str] = []
    timer = threading.Timer(_START_S, process.kill)
    timer.start()
    output = process.stdout or iter(())
    for line in output:
        said.append(line.strip())
        if match := re.search(r"listens on (https?)://127\.0\.0\.1:(\d+)", line):
            timer.cancel()
            threading.Thread(target=_drain, args=(output,), daemon=True).start()
            return f"{match[1]}://localhost:{match[2]}"
    timer.cancel()
    words = said[-1] if said else "it ended without a word"
    raise UnavailableError(f"Azurite did not start: {words}.", hint=f"Try it by hand: node {azurite()}")


def _exists() -> type[Exception]:
    from azure.core.exceptions import ResourceExistsError

    exists: type[Exception] = ResourceExistsError
    return exists


def _write(blob: Any, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("wb") as file:
        blob.download_blob(max_concurrency=2).readinto(file)


def _drain(lines: Iterator[str]) -> None:
    for _ in lines:
        pass


def new_key() -> str:
    """A storage account key."""
    return b64encode(secrets.token_bytes(64)).decode()
