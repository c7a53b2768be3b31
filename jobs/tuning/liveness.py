"""Who still lives: each process tells the others every few seconds, and ends soon after one of them is gone.

Without this a process whose neighbor was killed may wait for it until the backend's time-out: NCCL notices
nothing, and on several machines no launcher watches over all of them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.events import say

STOPPED, DONE = "stopped", "done"
GO_ON = "the same command goes on from the newest checkpoint"


@dataclass(frozen=True)
class Pace:
    """How often a process speaks, after how long a silent one is gone, and how long the others take to end.

    Also of a busy process a thread speaks. `grace_s` is for the main thread, which may notice by itself.
    """

    beat_s: float = 2.0
    silence_s: float = 35.0
    grace_s: float = 8.0


class Liveness:
    """This process's word to the others, and theirs to it, by way of a key-value store that all reach.

    A word is a number that grows, and at last STOPPED, DONE or a sentence about what failed.
    """

    def __init__(self, store: Any, rank: int, count: int, pace: Pace | None = None) -> None:
        self._store, self._rank, self._count = store, rank, count
        self.pace = pace or Pace()
        self._others = [other for other in range(count) if other != rank]
        self._ended = threading.Event()
        self.tell: Callable[[str], None] = say
        store.set(_key(rank, "word"), "0")
        store.set(_key(rank, "place"), f"{_machine()} {socket.gethostname()} {os.getpid()}")
        self._places = {other: store.get(_key(other, "place")).decode().split(" ") for other in self._others}
        now = time.monotonic()
        self._heard_at = now
        self._words = dict.fromkeys(self._others, ("0", now))  # and when it was new
        self._dead_since: dict[int, float] = {}
        for work in (self._talk, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def end(self, word: str) -> None:
        """Tell the others how this process ends: STOPPED, DONE, or a sentence about what failed.

        The first process keeps the words where no launcher does: where all stop it leaves last, or the
        others would find it dead without a word.
        """
        self._ended.set()
        with suppress(RuntimeError):  # whoever kept the words may be gone
            self._store.set(_key(self._rank, "word"), word)
            deadline = time.monotonic() + (self.pace.grace_s if word == STOPPED and self._rank == 0 else 0.0)
            while time.monotonic() < deadline and not all(map(self._has_left, self._others)):
                time.sleep(self.pace.beat_s / 20)

    def _has_left(self, other: int) -> bool:
        """Whether one of the others has said how it ends, or cannot say it any more. Raises RuntimeError."""
        return self._is_dead(other) or not self._store.get(_key(other, "word")).decode().isdigit()

    def who_is_gone(self, wait_s: float | None = None) -> str | None:
        """A sentence about a process that failed or vanished; None if in `wait_s` none turns out to have.

        Without a number it waits until a silent process would be known to be gone.
        """
        wait_s = self.pace.silence_s + self.pace.beat_s if wait_s is None else wait_s
        deadline = time.monotonic() + wait_s
        while (found := self._judge()) is None and time.monotonic() < deadline and not self.others_stopped():
            time.sleep(self.pace.beat_s / 10)
        return found

    def is_any_dead(self) -> bool:
        """Whether one of the others, on this machine, runs no more."""
        return any(self._is_dead(other) for other in self._others)

    def others_stopped(self) -> bool:
        """Whether one of the others ended because it was asked to."""
        return any(word == STOPPED for word, _ in self._words.values())

    def _talk(self) -> None:
        """Speak and listen. If the store falls silent this does, too: that is why another thread judges."""
        beat = 0
        while not self._ended.wait(self.pace.beat_s):
            beat += 1
            with suppress(RuntimeError):
                self._store.set(_key(self._rank, "word"), str(beat))
                heard = self._store.multi_get([_key(other, "word") for other in self._others])
                now = self._heard_at = time.monotonic()
                for other, word in zip(self._others, heard, strict=True):
                    if self._words[other][0] != word.decode():
                        self._words[other] = (word.decode(), now)

    def _watch(self) -> None:
        gone_since: float | None = None
        while not self._ended.wait(self.pace.beat_s):
            if (found := self._judge()) is None:
                gone_since = None
                continue
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > self.pace.grace_s:
                self.tell(found)
                os._exit(1)

    def _judge(self) -> str | None:
        """A sentence about the first process that failed or is gone, if there is one."""
        now, silence_s = time.monotonic(), self.pace.silence_s
        for other, (word, since) in self._words.items():
            if word in (STOPPED, DONE):
                continue
            if not word.isdigit():
                return f"{self._name(other)} failed: {word}"
            if self._is_dead(other) and self._had_time_to_speak(other, now):
                return f"{self._name(other)} ended without a word (killed, or out of memory?); {GO_ON}."
            if self._heard_at - since > silence_s:
                return f"{self._name(other)} gave no sign of life for {silence_s:.0f} s; {GO_ON}."
        if now - self._heard_at > silence_s:
            return f"No other process was heard of for {silence_s:.0f} s; {GO_ON}."
        return None

    def _had_time_to_speak(self, other: int, now: float) -> bool:
        """Whether a dead process's last word would be known by now."""
        since = self._dead_since.setdefault(other, now)
        return self._heard_at > since or now - since > 2 * self.pace.beat_s

    def _name(self, other: int) -> str:
        _, host, pid = self._places[other]
        return f"Process {other} of {self._count} ({host}, pid {pid})"

    def _is_dead(self, other: int) -> bool:
        """Whether a process of this machine is gone; of another machine nobody can tell."""
        machine, _, pid = self._places[other]
        return bool(machine) and machine == _machine() and not _runs(pid)


def _machine() -> str:
    """This life of this machine and its process numbers; "" where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def _key(rank: int, what: str) -> str:
    return f"liveness/{rank}/{what}"
