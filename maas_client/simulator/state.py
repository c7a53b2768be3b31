"""Everything that exists in the simulated subscription: resources by id, in memory, optionally on disk."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Any

from maas_client.backends.local.wire import write_json

Resource = dict[str, Any]
"""One ARM resource as JSON: id, name, type, properties, systemData and so on."""


class Store:
    """Resources by id (letter case does not matter), each in the collection of its kind, oldest first.

    With `file`, what is there at the end is there again at the next start. All methods may be called from any
    thread.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.lock = threading.RLock()
        self._file = file
        self._collections: dict[str, dict[str, Resource]] = {}
        if file is not None and file.is_file():
            self._collections = json.loads(file.read_text(encoding="utf-8"))

    def get(self, path: str) -> Resource | None:
        """The resource itself, not a copy; None when there is none."""
        collection, _, name = path.lower().rpartition("/")
        return self._collections.get(collection, {}).get(name)

    def put(self, path: str, resource: Resource) -> Resource:
        """Keep a resource under its id; an older one is replaced in its place."""
        collection, _, name = path.lower().rpartition("/")
        with self.lock:
            self._collections.setdefault(collection, {})[name] = resource
        return resource

    def delete(self, path: str) -> Resource | None:
        """Remove a resource with all that lies under it; returns it, or None."""
        collection, _, name = path.lower().rpartition("/")
        with self.lock:
            for under in [key for key in self._collections if key.startswith(f"{path.lower()}/")]:
                del self._collections[under]
            return self._collections.get(collection, {}).pop(name, None)

    def members(self, collection: str) -> list[Resource]:
        """The resources of a collection, oldest first."""
        with self.lock:
            return list(self._collections.get(collection.lower(), {}).values())

    def names(self, collection: str) -> list[str]:
        """Names that have something under them: containers such as models/NAME of models/NAME/versions."""
        start = collection.lower() + "/"
        with self.lock:
            under = [key[len(start) :].split("/")[0] for key in self._collections if key.startswith(start)]
        return sorted(set(under))

    def collections(self, ending: str) -> list[str]:
        """Paths of the collections whose path ends so, such as /jobs."""
        with self.lock:
            return [path for path in self._collections if path.endswith(ending)]

    def save(self) -> None:
        """Write everything to the file, if there is one. Raises OSError."""
        if self._file is None:
            return
        with self.lock:
            everything = copy.deepcopy(self._collections)
        write_json(self._file, everything)
