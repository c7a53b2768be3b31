"""Azurite is installed once, by whatever npm is on PATH; what stands in the way is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from maas_client.errors import UnavailableError
from maas_client.simulator.azurite import azurite, is_installed

MAKES = """#!/bin/sh
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/node_modules/azurite/dist/src/blob"
echo "$NODE_EXTRA_CA_CERTS" > "$2/node_modules/azurite/dist/src/blob/main.js"
"""
FAILS = """#!/bin/sh
echo "npm error code SELF_SIGNED_CERT_IN_CHAIN" >&2
echo "npm error errno SELF_SIGNED_CERT_IN_CHAIN" >&2
exit 1
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that is a script, and an empty cache folder."""
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    monkeypatch.setenv("MAAS_HOME", str(tmp_path / "home"))
    for name in ("NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return script


def test_it_is_installed_once_with_the_certificates_of_python(
    npm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm.write_text(MAKES)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/our.pem")
    assert not is_installed()
    main = azurite()
    assert is_installed()
    assert main.read_text() == "/etc/our.pem\n"
    npm.write_text(FAILS)
    assert azurite() == main


def test_certificates_that_npm_does_not_trust_are_told(npm: Path) -> None:
    npm.write_text(FAILS)
    with pytest.raises(UnavailableError) as caught:
        azurite()
    assert caught.value.message == "azurite@3.35.0 could not be installed: errno SELF_SIGNED_CERT_IN_CHAIN."
    assert caught.value.hint == "Set NODE_EXTRA_CA_CERTS to your organization's CA file."
    assert not is_installed()
