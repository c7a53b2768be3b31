"""Which route made a run or an endpoint: a hint on disk, so that the right service is asked first.

It may be lost or wrong at any time: then every route that the settings name is asked.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

Kind = Literal["runs", "endpoints"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Memory:
    """Small files under `folder`: runs/NAME.json and endpoints/NAME.json."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, kind: Kind, name: str, route: str) -> None:
        """Remember a route, where the disk lets us."""
        path = self._path(kind, name)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps({"route": route}), encoding="utf-8")
            fresh.replace(path)

    def recall(self, kind: Kind, name: str) -> str | None:
        """The route that was kept, or None."""
        if not _NAME.fullmatch(name):
            return None
        try:
            found = json.loads(self._path(kind, name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        route = found.get("route") if isinstance(found, dict) else None
        return route if isinstance(route, str) else None

    def _path(self, kind: Kind, name: str) -> Path:
        return self._folder / kind / f"{name}.json"
