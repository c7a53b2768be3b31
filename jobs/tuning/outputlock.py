"""One run at a time in an output folder: whoever comes second is told who is there."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from tuning.errors import InputError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock.tmp"
"""Left behind, for a lock whose file is removed holds nobody off; what ends in .tmp is never copied."""


class OutputLock:
    """Held from `take` to the end of the `with` block, or of the process, however that ends."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._file: int | None = None

    def __enter__(self) -> OutputLock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def take(self) -> None:
        """Hold the folder. Raises InputError, which says who holds it; OSError if nothing can be written."""
        path = self._output / LOCK
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            raise InputError(
                f"{holder} is training into {self._output}; wait until it ends, or give another --output."
            ) from None
        except OSError:
            return  # a mounted folder that knows no locks
        with suppress(OSError):  # a full disk holds the lock all the same
            os.truncate(self._file, 0)
            os.pwrite(self._file, f"Process {os.getpid()} on {socket.gethostname()}".encode(), 0)
