"""PROVENANCE.toml: where each recording comes from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("PROVENANCE.toml")
SOURCES = ("live", "simulator", "spec-example", "hand")
_HEAD = """\
# Where each recording comes from. Written by `make record`; a file made in another way is entered by hand.
# source: live = a real subscription, simulator = `maas simulate`, spec-example = a published contract, hand.
"""


def entries() -> dict[str, dict[str, Any]]:
    """The entries by the name of their file."""
    return tomllib.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def api_versions(text: str) -> list[str]:
    """The api-versions that a cassette's requests name."""
    asked = re.findall(r"^    uri: \S*?[?&]api-version=([^&\s']+)", text, re.MULTILINE)
    return sorted(set(asked))


def write_entry(path: Path, *, source: str, text: str, packages: Mapping[str, str]) -> None:
    """Enter a recording that was made just now."""
    command = "make record LIVE=1" if source == "live" else "make record"
    made: dict[str, Any] = {
        "source": source,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "api_versions": api_versions(text),
        "packages": dict(packages),
    }
    known = {**entries(), path.name: made}
    parts = [_entry(name, known[name]) for name in sorted(known)]
    FILE.write_text("\n".join([_HEAD, *parts]), encoding="utf-8")


def _entry(name: str, facts: Mapping[str, Any]) -> str:
    return "\n".join([f'["{name}"]', *(f"{key} = {_shown(value)}" for key, value in facts.items()), ""])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{key}" = "{each}"' for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(f'"{each}"' for each in value) + "]"
    return f'"{value}"'
