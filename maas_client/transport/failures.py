"""Turn what a service refused into one error of errors.py, with the next thing to try."""

from __future__ import annotations

import re

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    QuotaError,
    RejectedError,
    ServiceError,
    UnavailableError,
)
from maas_client.transport.answer import Answer
from maas_client.transport.errorwords import ErrorWords, error_words
from maas_client.transport.hints import hint_for
from maas_client.transport.members import member

_STATUSES: dict[int, type[ServiceError]] = {
    400: RejectedError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: NotFoundError,
    408: UnavailableError,
    409: ConflictError,
    412: ConflictError,
    422: RejectedError,
    429: UnavailableError,
}
# "No quota" and "no room" by the service's own codes; throttling is none of them.
_QUOTA_CODE = re.compile(
    r"quota|outofcapacity|insufficientcapacity|insufficientvcpu|notenoughcores|allocationfailed|skunotavailable"
    r"|corequotareached",
    re.IGNORECASE,
)
_QUOTA_WORDS = re.compile(r"\bquota\b|\bcores? limit|exceed\w* .{0,40}limit", re.IGNORECASE)
# For operations that fail after they were accepted: there is a code, but no HTTP status.
_CODES: tuple[tuple[re.Pattern[str], type[ServiceError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"notfound|nosuch|doesnotexist", NotFoundError),
        (r"^auth|authoriz|authentic|forbidden|accessdenied|unauthorized|permission", AccessDeniedError),
        (r"conflict|alreadyexists|preconditionfailed|inuse", ConflictError),
        (
            r"transient|unavailable|timeout|timedout|throttl|toomanyrequests|internal(server)?error",
            UnavailableError,
        ),
        (
            r"invalid|badrequest|badargument|usererror|validation|unsupported|notsupported|disallowed",
            RejectedError,
        ),
    )
)


def failure_of(answer: Answer, *, operation: str = "", client_request_id: str = "") -> ServiceError:
    """The error for an answer that is not a success (status 300 or more).

    `operation` is what was tried as a verb phrase ("get job card-1"); `client_request_id` is reported where
    the service sent no id of its own.
    """
    words = error_words(answer.body, answer.text, answer.headers)
    ids = answer.request_ids or words.ids or ((client_request_id,) if client_request_id else ())
    return service_error(words, status=answer.status, operation=operation, request_ids=ids)


def failed_operation(
    body: object, word: str, *, operation: str, request_ids: tuple[str, ...]
) -> ServiceError:
    """The error for a long-running operation that ended as `word` (Failed, Canceled)."""
    error = _error_of_operation(body)
    words = error_words({"error": error}) if error else ErrorWords()
    if not words.message:
        words = ErrorWords(words.codes or (word,), f"Azure ended it as {word}", words.ids)
    return service_error(words, status=None, operation=operation, request_ids=request_ids or words.ids)


def _error_of_operation(body: object) -> object:
    """The error in an operation's status or in a resource; None where there is none."""
    for path in (("error",), ("properties", "error"), ("properties", "provisioningErrors"), ("message",)):
        if found := member(body, *path):
            return found
    return None


def service_error(
    words: ErrorWords, *, status: int | None, operation: str, request_ids: tuple[str, ...]
) -> ServiceError:
    """The error for what a service said."""
    kind = error_class(words, status)
    return kind(
        _sentence(words, status, operation),
        hint=hint_for(words.codes, status, kind, words.message),
        operation=operation,
        status=status,
        code=words.code,
        request_id=", ".join(request_ids),
    )


def error_class(words: ErrorWords, status: int | None) -> type[ServiceError]:
    """Which error of the tree: by quota codes first, then by HTTP status, then by the code's words."""
    client_side = status is None or 400 <= status < 500
    if client_side and _is_quota(words):
        return QuotaError
    if status is None:
        for pattern, kind in _CODES:
            if any(pattern.search(code) for code in reversed(words.codes)):
                return kind
        return ServiceError
    return _STATUSES.get(status, UnavailableError if status >= 500 else ServiceError)


def _is_quota(words: ErrorWords) -> bool:
    if any(_QUOTA_CODE.search(code) for code in words.codes):
        return True
    return "OperationNotAllowed" in words.codes and _QUOTA_WORDS.search(words.message) is not None


def _sentence(words: ErrorWords, status: int | None, operation: str) -> str:
    """One sentence: what could not be done, what the service said, its code and the HTTP status."""
    said = words.message.rstrip(". ") or "the service gave no reason"
    facts = ", ".join(
        part
        for part in (words.code, f"HTTP {status}" if status and str(status) != words.code else "")
        if part
    )
    start = f"Cannot {operation}: " if operation else "Azure refused: "
    return f"{start}{said} ({facts})." if facts else f"{start}{said}."
