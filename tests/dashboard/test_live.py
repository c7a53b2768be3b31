"""The dashboard on a real terminal: keys, resizing, and that every way out leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.dashboard.keyboard import names

ROOT = Path(__file__).parents[2]
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
SHOWN = "\x1b[?25h"
PATIENCE_S = 20.0
COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, words: list[str], *, rows: int = 24, columns: int = 80, **environment: str) -> None:
        self.parent, self.child = pty.openpty()
        self.resize(rows, columns)
        self.modes = termios.tcgetattr(self.child)
        env = {
            **os.environ,
            "TERM": "xterm-256color",
            "PYTHONUTF8": "1",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            words, stdin=self.child, stdout=self.child, stderr=self.child, env=env, preexec_fn=_own_terminal
        )
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.parent, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Type keys, and forget what was on the screen before."""
        self.text = ""
        os.write(self.parent, keys.encode())

    def until(self, *wanted: str) -> str:
        """Read until all of the wanted texts came since the last keys."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(text in COLORS.sub("", self.text) for text in wanted):
            assert time.monotonic() < deadline, f"{wanted} did not come: {self.text[-3000:]!r}"
            self._read(0.1)
        return self.text

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text[-3000:]
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self.parent], [], [], timeout_s)[0]:
            return False
        self.text += os.read(self.parent, 65536).decode(errors="replace")
        return True

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.parent)
        os.close(self.child)


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


Start = Callable[..., Terminal]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the dashboard on made-up runs."""
    opened: list[Terminal] = []

    def open_(*words: str, **facts: Any) -> Terminal:
        terminal = Terminal([sys.executable, "-m", "tests.dashboard.stage", str(tmp_path), *words], **facts)
        opened.append(terminal)
        return terminal

    yield open_
    for terminal in opened:
        terminal.close()


def left_as_found(terminal: Terminal) -> bool:
    """Normal screen, visible cursor, echo on."""
    modes = termios.tcgetattr(terminal.child)
    return (
        terminal.text.count(ENTER) <= terminal.text.count(LEAVE)
        and terminal.text.rfind(SHOWN) > terminal.text.rfind("\x1b[?25l")
        and modes == terminal.modes
    )


def test_keys_move_follow_the_log_and_quit(start: Start) -> None:
    terminal = start()
    terminal.until(ENTER, "❯ new-1", "220/400", "q quit")
    terminal.type("j")
    terminal.until("❯ old-1", "The disk is full.")
    terminal.type("\x1b[A")
    terminal.until("❯ new-1")
    terminal.type("l")
    terminal.until("log of new-1", "line 299")
    terminal.type("\x1b[5~")
    terminal.until("10 lines below", "line 289")
    terminal.type("\x1b")
    terminal.until("❯ new-1", "220/400")
    terminal.type("q")
    assert terminal.end() == 0
    assert "done" in terminal.text
    assert left_as_found(terminal)


def test_cancel_asks_and_a_watched_run_ends_the_dashboard(start: Start) -> None:
    terminal = start("target")
    terminal.until("c cancel")
    terminal.type("c")
    terminal.until("cancel new-1? It writes a checkpoint first. y/n")
    terminal.type("n")
    terminal.until("c cancel")
    terminal.type("cy")
    assert terminal.end() == 0
    left = terminal.text[terminal.text.index(LEAVE) :]
    assert "new-1 ■ canceled" in left
    assert "step 220/400" in left
    assert "state canceled" in left
    assert left_as_found(terminal)


def test_keys_are_answered_while_a_service_is_waited_for(start: Start) -> None:
    terminal = start("stuck")
    terminal.until(ENTER, "❯ new-1")
    terminal.type("j")
    terminal.until("❯ old-1")
    terminal.type("c")
    terminal.until("cancel old-1?")
    terminal.type("n")
    terminal.type("q")
    assert terminal.end() == 0
    assert left_as_found(terminal)


def test_a_new_size_is_drawn_at_once(start: Start) -> None:
    terminal = start()
    terminal.until("220/400")
    terminal.text = ""
    terminal.resize(40, 120)
    terminal.until("SEEN", "tokens seen")
    terminal.text = ""
    terminal.resize(10, 40)
    terminal.until(" step 220/400  ━━━━━━━━━─────────  55 %")
    terminal.type("q")
    assert terminal.end() == 0


def test_ctrl_c_leaves_the_terminal_and_says_that_the_run_goes_on(start: Start) -> None:
    terminal = start("target")
    terminal.until("220/400")
    terminal.type("\x03")
    assert terminal.end() != 0
    assert "detached; the run goes on: maas watch new-1" in terminal.text[terminal.text.index(LEAVE) :]
    assert left_as_found(terminal)


def test_sigterm_leaves_the_terminal(start: Start) -> None:
    terminal = start()
    terminal.until("220/400")
    terminal.text = ""
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 143
    assert left_as_found(terminal)


def test_a_defect_leaves_the_terminal(start: Start) -> None:
    terminal = start("raise")
    assert terminal.end() == 1
    assert "AttributeError" in terminal.text[terminal.text.index(LEAVE) :]
    assert left_as_found(terminal)


def test_ctrl_z_gives_the_terminal_back_until_the_dashboard_goes_on(start: Start) -> None:
    terminal = start()
    terminal.until("220/400")
    terminal.text = ""
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.until(LEAVE, ENTER)  # nobody controls this job: it goes on by itself
    terminal.type("l")
    terminal.until("log of new-1")
    terminal.type("q")
    assert terminal.end() == 0
    assert left_as_found(terminal)


def test_a_terminal_that_is_gone_ends_the_dashboard(start: Start) -> None:
    terminal = start()
    terminal.until("220/400")
    os.close(terminal.child)
    os.close(terminal.parent)
    terminal.child, terminal.parent = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    terminal.process.wait(timeout=PATIENCE_S)
    assert terminal.process.returncode != 0


def test_escape_sequences_become_keys_also_in_pieces() -> None:
    assert names(b"jk\x1b[A\x1bOB\r\x1b[5~") == (["j", "k", "up", "down", "enter", "page-up"], b"")
    assert names(b"\x1b[200~q") == (["q"], b"")
    assert names(b"x\x1b") == (["x"], b"\x1b")
    assert names(b"\x1b[") == ([], b"\x1b[")
    assert names(b"\x1b[1;") == ([], b"\x1b[1;")
    assert names("é".encode()) == ([], b"")
