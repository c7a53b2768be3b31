"""Stop requests: SIGTERM and Ctrl-C are noted, the step in hand is finished, and then the run ends."""

from __future__ import annotations

import os
import signal
from types import FrameType

from tuning.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_quietly_while_starting() -> None:
    """Let a stop signal end the process at once until a `StopRequest` takes over: libraries load slowly."""
    for number in SIGNALS:
        signal.signal(number, lambda received, _frame: os._exit(128 + received))


class StopRequest:
    """Notes the first stop signal; `raise_if_asked` turns it into StoppedError where stopping is safe.

    A second signal ends the process at once. Use as a context manager, in the main thread.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number:
            os._exit(128 + number)
        self.signal_number = number

    def raise_if_asked(self, step: int) -> None:
        """Raise StoppedError if a stop signal came; `step` is what the newest checkpoint holds."""
        if self.signal_number:
            raise StoppedError(self.signal_number, step)
