"""The simulator's clock, which can run fast: waiting in queues and provisioning follow it."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """Unix seconds that go `speed` times as fast as real ones, and can be moved on.

    What only waits (queues, provisioning, scripted jobs) takes simulated time. Commands that run take the
    time that they take. Tokens and signatures live in real time, because the packages that hold them do.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._began_real = time.monotonic()
        self._began = time.time()
        self._moved_on_s = 0.0
        self._changed = threading.Condition()

    def now(self) -> float:
        """Simulated unix seconds."""
        return self._began + self._moved_on_s + (time.monotonic() - self._began_real) * self.speed

    def move_on(self, seconds: float) -> None:
        """Jump ahead by simulated seconds; whoever sleeps looks at the clock again."""
        with self._changed:
            self._moved_on_s += seconds
            self._changed.notify_all()

    def change_speed(self, speed: float) -> None:
        """Go on at another speed (more than 0). Raises ValueError."""
        if speed <= 0:
            raise ValueError("The speed must be more than 0.")
        with self._changed:
            now = self.now()
            self._began, self._began_real, self._moved_on_s = now, time.monotonic(), 0.0
            self.speed = speed
            self._changed.notify_all()

    def sleep(self, seconds: float, stop: threading.Event) -> bool:
        """Sleep for simulated seconds; False when `stop` was set before they were over."""
        until = self.now() + seconds
        with self._changed:
            while (left := until - self.now()) > 0 and not stop.is_set():
                self._changed.wait(min(left / self.speed, 0.1))
        return not stop.is_set()


def timestamp(seconds: float) -> str:
    """Unix seconds as the service writes them: 2026-11-24T01:02:03.1234567+00:00."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}0+00:00"
