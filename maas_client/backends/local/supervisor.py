"""Runs one command to its end and writes down what became of it.

    python -m maas_client.backends.local.supervisor FOLDER

The folder holds launch.json. The supervisor detaches itself, starts the command in a process group of its
own, writes process.json, waits, and writes exit.json. SIGTERM goes on to the command, once; after the grace
the group is killed. The command never outlives the supervisor, nor do processes that the command left behind.
All paths are relative to the folder, so that an old supervisor never touches a folder that was made anew.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from maas_client.backends.local.process import children, identify
from maas_client.backends.local.wire import CANCEL, EXIT, LAUNCH, PROCESS, Cancel, Exit, Launch, Processes

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NOT_FOUND = 127
_RESERVE_BYTES = 8192
"""Kept in the lock file, so that the end can be written down on a disk that the command filled."""


def main() -> None:
    """Detach, report to the starter whether the command runs, and see it to its end."""
    os.chdir(sys.argv[1])
    report, hear = _detach()
    if hear is not None:
        said = hear()
        sys.stderr.write(said)
        sys.exit(1 if said else 0)
    try:
        held = _hold_lock()
        launch = Launch.read(Path(LAUNCH))
        if held is None or launch is None or Path(PROCESS).exists() or Path(CANCEL).exists():
            return
        supervisor = Supervisor(launch, held)
        supervisor.start()
    except Exception as error:  # noqa: BLE001  whatever it is, the starter must hear of it
        report(f"{error}\n")
        os._exit(1)
    report("")
    supervisor.finish()


def _detach() -> tuple[Callable[[str], None], Callable[[], str] | None]:
    """Fork. The parent gets a function that waits for the child's report, the child one that reports."""
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)

        def hear() -> str:
            with os.fdopen(read_end, encoding="utf-8", errors="replace") as pipe:
                return pipe.read()

        return lambda _: None, hear
    os.close(read_end)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)

    def report(said: str) -> None:
        with suppress(BrokenPipeError):
            os.write(write_end, said.encode())
        os.close(write_end)

    return report, None


def _hold_lock() -> int | None:
    """Take the lock that one supervisor holds for its life; None when another has it."""
    lock = os.open("supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


class Supervisor:
    """One attempt of one command."""

    def __init__(self, launch: Launch, lock: int) -> None:
        self.launch = launch
        self.lock = lock
        self.child: subprocess.Popen[bytes] | None = None
        self.asked = False
        self.message = ""

    def start(self) -> None:
        """Start the command; process.json is there before it runs. One that cannot be started is noted."""
        myself = identify(os.getpid())
        if myself is None:
            raise OSError("the process table cannot be read")
        processes = Processes(supervisor=myself, started_at=time.time(), attempt=self.launch.attempt)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGALRM, self._kill)
        processes.write(Path(PROCESS))
        os.pwrite(self.lock, bytes(_RESERVE_BYTES), 0)
        try:
            self.child = self._spawn()
        except OSError as error:
            self.message = f"{self.launch.argv[0]} cannot be started: {error.strerror or error}"
            return
        child = identify(self.child.pid)
        Processes(**{**vars(processes), "child": child}).write(Path(PROCESS))
        if self.asked or Cancel.read(Path(CANCEL)) is not None:
            self._forward()

    def _spawn(self) -> subprocess.Popen[bytes]:
        prepare = _dies_with(os.getpid())
        with Path(self.launch.log).open("ab+") as log:
            if self.launch.attempt > 1:
                log.write(_mark(self.launch.attempt, log.tell() and _last_byte(log.fileno())))
                log.flush()
            return subprocess.Popen(
                self.launch.argv,
                cwd=self.launch.cwd,
                env={**os.environ, **self.launch.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare,
            )

    def finish(self) -> None:
        """Wait for the end, sweep up what the command left running, and write exit.json."""
        code = _NOT_FOUND if self.child is None else self.child.wait()
        signal.setitimer(signal.ITIMER_REAL, 0)
        _sweep(self.child.pid if self.child else None)
        ended = Exit(
            exit_code=code if code >= 0 else 128 - code,
            signal=max(0, -code),
            ended_at=time.time(),
            asked=self.asked,
            message=self.message,
        )
        os.ftruncate(self.lock, 0)
        for pause_s in (0, 0.5, 1, 2):
            time.sleep(pause_s)
            with suppress(OSError):
                if Path(LAUNCH).exists():
                    ended.write(Path(EXIT))
                return

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            self._forward()

    def _forward(self) -> None:
        """Tell the command once (a second signal would end the training script without its checkpoint)."""
        self.asked = True
        if self.child is not None and not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, self.launch.grace_s))
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGTERM)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        if self.child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)


def _last_byte(log: int) -> bytes:
    return os.pread(log, 1, os.fstat(log).st_size - 1)


def _mark(attempt: int, last: bytes | int) -> bytes:
    """The line between two attempts in the log."""
    return (b"" if last in (0, b"\n") else b"\n") + f"--- attempt {attempt} ---\n".encode()


def _dies_with(supervisor: int) -> Callable[[], None] | None:
    """For the child before its exec: be told to stop when the supervisor dies. Linux only.

    Also makes the supervisor the new parent of processes whose own parent ends, so that it can sweep them up.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(128 + signal.SIGTERM)

    return prepare


def _sweep(group: int | None) -> None:
    """Kill what is left of the command's group and, on Linux, of all that it started."""
    if group is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    while left := children(os.getpid()):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


if __name__ == "__main__":
    main()
