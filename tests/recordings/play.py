"""Play a cassette: the same journey, with sockets that refuse, to the last recorded request."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from tests.recordings.journeys import Journey
from tests.recordings.scenes import Scene, in_cassette, own_values
from tests.recordings.tape import about, playing

AZURE = ("AZURE", "ARM_", "FOUNDRY_", "IDENTITY_", "MSI_", "REGISTRY_", "MAAS_")
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class NetworkUsedError(BaseException):
    """Somebody opened a connection. Nothing catches it: it must not look like a service that is away."""


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Connections and names of hosts are refused, and kept in the list."""
    tried: list[str] = []

    def refuse(*words: Any, **_: Any) -> NoReturn:
        place = next((word for word in words if not isinstance(word, socket.socket)), "")
        tried.append(str(place))
        raise NetworkUsedError(f"A connection to {place} while a cassette plays.")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket.socket, "connect_ex", refuse),
        mock.patch.object(socket.socket, "sendto", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
        mock.patch.object(socket, "create_connection", refuse),
    ):
        yield tried


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables of this process: none of Azure's but these."""
    left = {name: value for name, value in os.environ.items() if not name.startswith(AZURE)}
    if variables:
        left = {name: value for name, value in left.items() if name not in CERTIFICATES}
    with mock.patch.dict(os.environ, {**left, **variables}, clear=True):
        yield


def play(journey: Journey, path: Path) -> None:
    """Take the journey as it is on record. Raises AssertionError where something else is asked, or less."""
    kept = about(path)
    path = path.absolute()
    with tempfile.TemporaryDirectory() as folder, chdir(folder), environment():
        stage = journey.prepare(Scene(in_cassette(kept), Path(folder), kept["began"]))
        with no_network() as tried, playing(path, own_values(stage.plan)) as tape:
            journey.go(stage)
    assert tried == []
    assert tape.unplayed == [], f"{path.name} holds requests that nobody makes any more"
