"""Work in another thread, so that keys are answered while a service is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Does one thing at a time. `wake` is called when it is done. Nobody waits for it at the end."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._done: list[T] = []
        self._failed: list[BaseException] = []

    @property
    def is_busy(self) -> bool:
        """True from `start` until `take` gave what came of it."""
        return self._thread is not None

    def start(self, work: Callable[[], T]) -> None:
        """Begin something; nothing else may be going on."""
        self._thread = threading.Thread(target=self._run, args=(work,), name="dashboard", daemon=True)
        self._thread.start()

    def take(self) -> T | None:
        """What came of it, None while it goes on. Raises what it raised."""
        if self._failed:
            self._thread = None
            raise self._failed.pop()
        if not self._done:
            return None
        self._thread = None
        return self._done.pop()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._done.append(work())
        except BaseException as error:  # noqa: BLE001  raised again where the result is taken
            self._failed.append(error)
        self._wake()
