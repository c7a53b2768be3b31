"""From evidence to a status: what the files of a run and the process table say, looked at once."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maas_client.backends.local.pages import last_text
from maas_client.backends.local.process import boot_name, is_alive
from maas_client.backends.local.wire import (
    CANCEL,
    EVENTS,
    EXIT,
    JOB,
    LOG,
    PROCESS,
    RESULT,
    STATES,
    Cancel,
    Evidence,
    Exit,
    Processes,
    read_json,
)
from maas_client.errors import ServiceError
from maas_client.run import Reason, RunState, RunStatus

_TAIL_LINES = 15
_FULL_BYTES = 1 << 20
_STOP_CODES = {128 + signal.SIGTERM, 128 + signal.SIGINT}
_DISK = re.compile(r"no space left|disk [^\n]*is full|disk quota|os error 28|file too large", re.IGNORECASE)
_MEMORY = re.compile(
    r"out of memory|can't allocate|cannot allocate|not enough memory|bad_alloc|MemoryError", re.IGNORECASE
)
_KILLED = re.compile(r"SIGKILL|signal 9\b", re.IGNORECASE)
_DATA = re.compile(r"\brows?\b|\bline \d|\bdata\b|\.jsonl?\b|\.csv\b|\blabels?\b|utf-8", re.IGNORECASE)


@dataclass(frozen=True)
class Look:
    """What was found in a run's folder."""

    folder: Path
    evidence: Evidence
    processes: Processes | None = None
    exit: Exit | None = None
    trouble: str = ""


def look_at(folder: Path) -> Look:
    """Read a run's files and the process table once; files that cannot be read are evidence too."""
    try:
        processes = Processes.read(folder / PROCESS)
        alive = processes is not None and any(map(is_alive, processes.both))
        # After the process table, so that an exit between the two looks is seen.
        ended = Exit.read(folder / EXIT)
        asked = Cancel.read(folder / CANCEL) is not None
        wants_result = "run" in (read_json(folder / JOB) or {}).get("outputs", ())
    except ServiceError as error:
        return Look(folder, Evidence.UNREADABLE, trouble=error.message)
    if processes is None:
        return Look(folder, Evidence.NEVER_STARTED if asked else Evidence.PREPARED)
    if ended is not None:
        evidence = _ended(ended, asked, (folder / RESULT).is_file() or not wants_result)
    elif alive:
        evidence = Evidence.STOPPING if asked else Evidence.ALIVE
    elif wants_result and (folder / RESULT).is_file():
        evidence = Evidence.RESULT
    elif asked:
        evidence = Evidence.CANCELED
    else:
        evidence = Evidence.GONE if processes.supervisor.boot == boot_name() else Evidence.REBOOTED
    return Look(folder, evidence, processes, ended)


def _ended(ended: Exit, asked: bool, has_result: bool) -> Evidence:
    if ended.exit_code == 0 and has_result:
        return Evidence.RESULT
    stopped = ended.asked or ended.exit_code in _STOP_CODES
    if asked and stopped:
        return Evidence.CANCELED
    if ended.exit_code == 0:
        return Evidence.NO_RESULT
    return Evidence.TERMINATED if stopped else Evidence.EXITED


def to_status(look: Look, now: float) -> RunStatus:
    """The look in the words of the contract."""
    failure = _failure(look) if STATES[look.evidence] is RunState.FAILED else _NO_FAILURE
    return RunStatus(
        state=STATES[look.evidence],
        native_state=_native(look),
        seen_at=now,
        reason=failure.reason,
        message=failure.message or _WORDS.get(look.evidence, "") or look.trouble,
        tail=failure.tail,
        started_at=look.processes.started_at if look.processes else None,
        ended_at=look.exit.ended_at if look.exit else _last_sign(look),
        exit_code=look.exit.exit_code if look.exit else None,
    )


def _last_sign(look: Look) -> float | None:
    """When a run that ended without a word last wrote something."""
    if look.processes is None or not STATES[look.evidence].is_final:
        return None
    written = [path.stat().st_mtime for name in (LOG, EVENTS) if (path := look.folder / name).is_file()]
    return max([look.processes.started_at, *written])


_WORDS: Mapping[Evidence, str] = {
    Evidence.PREPARED: "Prepared but not started; submit it again.",
    Evidence.NEVER_STARTED: "Canceled before it started.",
    Evidence.NO_RESULT: "The command ended without a result.",
    Evidence.TERMINATED: "The run was stopped by a signal from outside maas; resume it.",
    Evidence.GONE: "The process is gone without a result; it was killed, perhaps for lack of memory.",
    Evidence.REBOOTED: "The machine was restarted while the run was going; resume it.",
}


def _native(look: Look) -> str:
    if look.exit is None or look.evidence is Evidence.CANCELED:
        return look.evidence.value
    if look.exit.signal:
        return f"ended by {signal.Signals(look.exit.signal).name}"
    return f"{look.evidence.value} (exit code {look.exit.exit_code})"


@dataclass(frozen=True)
class _Failure:
    reason: Reason | None = None
    message: str = ""
    tail: tuple[str, ...] = ()


_NO_FAILURE = _Failure()


def _failure(look: Look) -> _Failure:
    """Why a run failed: from its own last event, its last log lines, its exit code, the room on the disk."""
    tail = _tail(look.folder / LOG)
    began = look.processes.started_at if look.processes else 0.0
    said = _failed_event(look.folder / EVENTS, began) or (look.exit.message if look.exit else "")
    killed = look.exit is not None and look.exit.exit_code == 128 + signal.SIGKILL
    reason = _reason(look, killed, "\n".join([said, *tail]))
    if said:
        message = said
    elif killed:
        message = "The command was killed, perhaps for lack of memory."
    elif reason is Reason.MEMORY:
        message = "The command ran out of memory; close other programs, or lower training.batch_size."
    elif look.evidence is Evidence.EXITED:
        message = next(
            (line for line in reversed(tail) if line.strip()), "The command failed without a word."
        )
    elif reason is Reason.DISK:
        message = "The disk is full, and the process is gone without a result."
    else:
        message = _WORDS[look.evidence]
    return _Failure(reason, message.strip(), tail)


def _reason(look: Look, killed: bool, words: str) -> Reason:
    if _DISK.search(words) or shutil.disk_usage(look.folder).free < _FULL_BYTES:
        return Reason.DISK
    if _MEMORY.search(words):
        return Reason.MEMORY
    if look.evidence is Evidence.TERMINATED:
        return Reason.PREEMPTED
    if killed or look.evidence in {Evidence.GONE, Evidence.REBOOTED} or _KILLED.search(words):
        return Reason.KILLED
    bad_input = look.exit is not None and look.exit.exit_code == 2
    return Reason.DATA if bad_input and _DATA.search(words) else Reason.CODE


def _tail(log: Path) -> tuple[str, ...]:
    """The last lines of the last attempt."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in last_text(log).split("\n")]
    lines = lines[:-1] if lines and not lines[-1] else lines
    marks = [number for number, line in enumerate(lines) if re.fullmatch(r"--- attempt \d+ ---", line)]
    return tuple(lines[marks[-1] + 1 if marks else 0 :][-_TAIL_LINES:])


def _failed_event(events: Path, began: float) -> str:
    """The message of the last `failed` event since the attempt began, or nothing."""
    for line in reversed(last_text(events).split("\n")):
        event: Any = None
        with suppress(ValueError):
            event = json.loads(line)
        if isinstance(event, dict) and event.get("event") == "failed" and event.get("time", 0) >= began - 1:
            return str(event.get("message", ""))
    return ""
