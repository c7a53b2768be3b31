"""What ends a script: bad input (exit 2), a failure (exit 1), or a request to stop (exit 128 + signal)."""

from __future__ import annotations

import signal


class InputError(Exception):
    """The config, the data or the model cannot be used as given; the message says what to try next."""

    exit_code = 2


class FailedError(Exception):
    """Training or scoring could not go on: no memory, no disk, a loss that is not a number."""

    exit_code = 1


class StoppedError(Exception):
    """Somebody asked to stop (SIGTERM, Ctrl-C). `step` is the step that the newest checkpoint holds."""

    def __init__(self, signal_number: int, step: int) -> None:
        self.signal_number = signal_number
        self.reason = signal.Signals(signal_number).name
        self.step = step
        self.exit_code = 128 + signal_number
        super().__init__(f"Stopped by {self.reason} at step {step}; the same command goes on from there.")
