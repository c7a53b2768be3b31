"""Why a job waits or failed, from what Azure ML says about it and from the last lines of its log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maas_client.run import Reason
from maas_client.transport.errorwords import ErrorWords, error_words, one_line
from maas_client.transport.members import mapping_at, member, text_at

_EXIT_CODE = re.compile(
    r"(?:exit|return)\w*(?: with)?(?: a)?(?: non-?zero)?(?: status| exit)?(?: code| status)?:? (-?\d+)\b",
    re.IGNORECASE,
)
_POINTS_TO_LOG = re.compile(
    r"user process|exited with|check (?:the )?log file|std_log\.txt|70_driver_log", re.I
)
_BAD_INPUT_CODE = 2
_KILLED_CODES = {137, -9}

_OF_SERVICE = (
    (Reason.QUOTA, r"quota|cores? limit|exceeds? the (?:core|vcpu)|LimitExceeded"),
    (Reason.PREEMPTED, r"preempt|evict|low[- ]?priority node|spot (?:vm|node|instance)|node was reclaimed"),
    (
        Reason.CAPACITY,
        r"capacity|AllocationFailed|allocation fail|SkuNotAvailable|sku not available|unable to allocate"
        r"|no (?:machine|node)s? (?:is|are) (?:free|available)|insufficient resources|stock ?out",
    ),
    (
        Reason.IMAGE,
        r"image ?(?:build|pull)|(?:build|pull)\w* (?:the )?(?:docker )?image|ErrImagePull|ImagePull|docker"
        r"|environment ?(?:image|build|definition|\S* ?(?:was )?not found)|conda|container ?registry|acr\b",
    ),
    (
        Reason.IDENTITY,
        r"identit|credential|unauthori[sz]|authori[sz]ation|authentication|forbidden|access ?denied"
        r"|permission|\b40[13]\b|role assignment",
    ),
    (Reason.MEMORY, r"out ?of ?memory|\bOOM\b|memory limit"),
    (Reason.DISK, r"no space left|disk (?:is )?full|DiskFull|out of disk"),
    (
        Reason.DATA,
        r"StreamAccess|dataset|datastore|data ?(?:asset|access|mount|capability)|\bmount|\binputs?\b"
        r"|NotFoundError|the data\b|\bblob\b|connection .* can't be found",
    ),
    (
        Reason.KILLED,
        r"timeout allows|max(?:imum)? ?(?:run)? ?duration|time ?limit|NodeLost|node (?:was )?lost|unhealthy"
        r"|stopped responding|heartbeat|SIGKILL|signal 9\b",
    ),
)
_OF_LOG = (
    (Reason.DISK, r"no space left|disk [^\n]*is full|disk quota|os error 28"),
    (Reason.MEMORY, r"out of memory|can't allocate|cannot allocate|not enough memory|bad_alloc|MemoryError"),
    (Reason.KILLED, r"SIGKILL|signal 9\b|^Killed$"),
)
_DATA_WORDS = re.compile(r"\brows?\b|\bline \d|\bdata\b|\.jsonl?\b|\.csv\b|\blabels?\b|utf-8", re.IGNORECASE)
_SYSTEM = re.compile(r"system ?error|service ?error|internal", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """Why a job waits or failed. `exit_code` is that of its command, where Azure ML names one."""

    reason: Reason | None = None
    message: str = ""
    exit_code: int | None = None


def failure_of(details: Mapping[str, Any], tail: Sequence[str]) -> Failure:
    """Why a failed job failed: from the error in its run details and the last lines of its log.

    What the command itself wrote last says more than that it exited with a code.
    """
    words = _words(details)
    exit_code = _exit_code(words.message)
    in_log = exit_code is not None or _POINTS_TO_LOG.search(words.message) is not None
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    message = one_line(last) if last and (in_log or not words.message) else words.message
    reason = _of_log(tail, exit_code) if in_log else _of_service(words)
    return Failure(reason, message or "Azure ML does not say why.", exit_code)


def waiting_of(details: Mapping[str, Any]) -> Failure:
    """Why a job waits: from the warnings in its run details, and from the number of its attempt."""
    warnings = member(details, "warnings")
    for warning in reversed(warnings) if isinstance(warnings, list) else ():
        if message := one_line(text_at(warning, "message") or (warning if isinstance(warning, str) else "")):
            return Failure(_match(_OF_SERVICE, message), message)
    attempt = member(details, "currentAttemptId")
    if isinstance(attempt, int) and attempt > 1:
        return Failure(Reason.PREEMPTED, f"Its machines were taken away; attempt {attempt} waits for others.")
    return Failure()


def _words(details: Mapping[str, Any]) -> ErrorWords:
    """The error of run details: the error itself, or one level deeper with its place and correlation."""
    error = mapping_at(details, "error")
    return (
        error_words(dict(error) if mapping_at(error, "error") else {"error": dict(error)})
        if error
        else ErrorWords()
    )


def _exit_code(message: str) -> int | None:
    found = _EXIT_CODE.search(message)
    return int(found.group(1)) if found else None


def _of_log(tail: Sequence[str], exit_code: int | None) -> Reason:
    found = _match(_OF_LOG, "\n".join(tail))
    if found is not None:
        return found
    if exit_code in _KILLED_CODES:
        return Reason.KILLED
    bad_input = exit_code == _BAD_INPUT_CODE and _DATA_WORDS.search("\n".join(tail[-3:]))
    return Reason.DATA if bad_input else Reason.CODE


def _of_service(words: ErrorWords) -> Reason | None:
    """The reason in the message, else in the codes; a user error that names none is in the code."""
    found = _match(_OF_SERVICE, words.message) or _match(_OF_SERVICE, " ".join(words.codes))
    if found is not None or not words.codes or _SYSTEM.search(" ".join(words.codes)):
        return found
    return Reason.CODE


def _match(table: Sequence[tuple[Reason, str]], text: str) -> Reason | None:
    return next((reason for reason, pattern in table if re.search(pattern, text, re.I | re.M)), None)
