"""How far a transfer of several files is, told to a caller from several threads, one after the other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maas_client.backend import Watch


class Tally:
    """Bytes of several files that are done; it never goes back, also where a file is sent again."""

    def __init__(self, total_bytes: int, watch: Watch | None) -> None:
        self._total = total_bytes
        self._watch = watch
        self._done: dict[str, int] = {}
        self._sum = 0
        self._lock = threading.Lock()

    def reach(self, name: str, done_bytes: int) -> None:
        """So much of a file is done."""
        with self._lock:
            more = done_bytes - self._done.get(name, 0)
            if more <= 0:
                return
            self._done[name] = done_bytes
            self._sum += more
            if self._watch is not None:
                self._watch(self._sum, self._total)
