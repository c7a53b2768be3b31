"""Keys from a terminal as they are typed, and the signals that concern a screen; left as found."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import threading
import tty
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b" ": "page-down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1b": "escape",
    b"\x7f": "escape",
}
_READ_BYTES = 1024


def names(typed: bytes) -> tuple[list[str], bytes]:
    """The keys in what was typed, and the bytes of an escape sequence whose end has not come yet."""
    found: list[str] = []
    while typed:
        length = _key_bytes(typed)
        if length == 0:
            return found, typed
        piece, typed = typed[:length], typed[length:]
        name = _NAMES.get(piece) or (piece.decode("ascii") if piece.isascii() and len(piece) == 1 else "")
        if name:
            found.append(name)
    return found, b""


def _key_bytes(typed: bytes) -> int:
    """How many bytes the first key has; 0 where its end is missing. An unknown escape sequence is one key."""
    if typed[0] != 0x1B:
        return 1
    if len(typed) == 1:
        return 0
    if typed[1] == ord("O"):
        return 3 if len(typed) > 2 else 0
    if typed[1] != ord("["):
        return 1
    for at in range(2, len(typed)):
        if 0x40 <= typed[at] <= 0x7E:
            return at + 1
    return 0


class Keyboard:
    """Keys come at once and unseen; SIGTERM ends the process with 143 by way of every `finally`.

    Without a terminal on standard input there are no keys, and `wait` only waits.
    """

    def __init__(self) -> None:
        self.has_keys = sys.stdin is not None and sys.stdin.isatty()
        self._saved: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._rest = b""
        self._wakeup, self._woken = socket.socketpair()

    def __enter__(self) -> Keyboard:
        self._wakeup.setblocking(False)
        self._woken.setblocking(False)
        if self.has_keys:
            self._saved = termios.tcgetattr(sys.stdin)
        if threading.current_thread() is threading.main_thread():
            for number, handler in (
                (signal.SIGTERM, _leave),
                (signal.SIGTSTP, _wake),
                (signal.SIGWINCH, _wake),
            ):
                self._handlers[number] = signal.signal(number, handler)
            self._before = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self._give_back()
        finally:
            if self._handlers:
                signal.set_wakeup_fd(self._before)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._wakeup.close()
            self._woken.close()

    def wait(self, timeout_s: float) -> list[str]:
        """Wait for keys or a signal; gives keys, `suspend` for Ctrl-Z, `hangup` when the terminal is gone."""
        sources: list[Any] = [self._woken, *([sys.stdin] if self.has_keys else [])]
        ready, _, _ = select.select(sources, [], [], max(0.0, timeout_s))
        keys = []
        if self._woken in ready and signal.SIGTSTP in self._woken.recv(_READ_BYTES):
            keys.append("suspend")
        if sys.stdin in ready:
            return keys + self._typed()
        if self._rest:  # nothing followed: the escape key alone
            self._rest = b""
            keys.append("escape")
        return keys

    def wake(self) -> None:
        """End the waiting, from any thread."""
        with suppress(OSError):  # closed, or full of calls that were not answered yet
            self._wakeup.send(b"\0")

    def suspend(self) -> None:
        """Stop this process as Ctrl-Z does, with the terminal as it was; returns when it goes on."""
        self._give_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            os.kill(os.getpid(), signal.SIGTSTP)
        finally:
            signal.signal(signal.SIGTSTP, handler)
            self._take()

    def _typed(self) -> list[str]:
        try:
            read = os.read(sys.stdin.fileno(), _READ_BYTES)
        except OSError:
            read = b""
        if not read:
            return ["hangup"]
        found, self._rest = names(self._rest + read)
        return found

    def _take(self) -> None:
        if self.has_keys:
            tty.setcbreak(sys.stdin, termios.TCSADRAIN)

    def _give_back(self) -> None:
        if self.has_keys:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._saved)


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _wake(_number: int, _: FrameType | None) -> None:
    """The signal's number wakes `wait`; nothing else is to do."""
