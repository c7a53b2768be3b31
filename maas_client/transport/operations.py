"""Long-running operations as pure steps: what an answer says about one, and which URL to look at next.

begun(...) -> Operation -> (GET look_url) -> seen(...) -> ... -> is_final -> (GET result_url) -> result
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from maas_client.transport.answer import Answer
from maas_client.transport.members import text_at
from maas_client.transport.trust import absolute


class OperationState(StrEnum):
    """What an operation is doing. Every word that nobody mapped means that it still runs."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


STATES: dict[str, OperationState] = {
    "succeeded": OperationState.SUCCEEDED,
    "success": OperationState.SUCCEEDED,
    "completed": OperationState.SUCCEEDED,
    "failed": OperationState.FAILED,
    "error": OperationState.FAILED,
    "timedout": OperationState.FAILED,
    "aborted": OperationState.FAILED,
    "canceled": OperationState.CANCELED,
    "cancelled": OperationState.CANCELED,
}


class LookBy(StrEnum):
    """Where the state is read: an operation's own status URL, its Location, or the resource itself."""

    STATUS = "status"
    LOCATION = "location"
    RESOURCE = "resource"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Operation:
    """One look at a long-running operation. `native_state` is the service's own word, "" where it gave none.

    `look_url` may be signed: 3,000 characters that go out as they came and are never shown.
    """

    name: str
    method: str
    url: str = field(repr=False)
    answer: Answer
    state: OperationState = OperationState.RUNNING
    native_state: str = ""
    look_by: LookBy = LookBy.NOTHING
    look_url: str = field(default="", repr=False)
    location: str = field(default="", repr=False)

    @property
    def is_final(self) -> bool:
        """True when no later look can show another state."""
        return self.state is not OperationState.RUNNING

    @property
    def tells_nothing(self) -> bool:
        """True where the last look at the status brought no word of it, as behind a proxy's sign-in page."""
        return self.look_by is LookBy.STATUS and self.answer.status == 200 and not self.native_state

    @property
    def result_url(self) -> str:
        """Where the result of a SUCCEEDED operation is read; "" where the last answer is the result."""
        if self.method in {"PUT", "PATCH"}:
            has_result = (
                self.look_by is not LookBy.STATUS and isinstance(self.answer.body, dict) and self.answer.body
            )
            return "" if has_result else self.url
        if self.method == "POST" and self.look_by is LookBy.STATUS:
            place = text_at(self.answer.body, "resourceLocation")
            return absolute(self.look_url, place) if place else self.location
        return ""


def state_of(word: str) -> OperationState:
    """The state behind a service's word, in any case."""
    return STATES.get(word.strip().lower(), OperationState.RUNNING)


def begun(name: str, method: str, url: str, answer: Answer) -> Operation:
    """The operation that a first answer (status below 300) began or already ended."""
    headers = answer.headers
    status_url = headers.get("azure-asyncoperation") or headers.get("operation-location") or ""
    location = absolute(url, headers["location"]) if headers.get("location") else ""
    operation = Operation(name, method, url, answer, location=location)
    provisioning = _provisioning(answer.body)
    if status_url and answer.status != 204:
        operation = replace(operation, look_by=LookBy.STATUS, look_url=absolute(url, status_url))
        return replace(operation, native_state=provisioning or _status(answer.body))
    if answer.status == 202 and location:
        return replace(operation, look_by=LookBy.LOCATION, look_url=location, native_state="Accepted")
    by_resource = replace(operation, look_by=LookBy.RESOURCE, look_url=url, native_state=provisioning)
    if answer.status == 202 and method in {"PUT", "PATCH", "DELETE"}:
        return replace(by_resource, native_state=provisioning or "Accepted")
    if method in {"PUT", "PATCH"} and provisioning:
        return replace(by_resource, state=state_of(provisioning))
    return replace(operation, state=OperationState.SUCCEEDED, native_state=provisioning)


def seen(operation: Operation, answer: Answer) -> Operation:
    """The operation after a look (an answer with a status below 300) at its `look_url`."""
    headers = answer.headers
    looked = replace(operation, answer=answer)
    if operation.look_by is LookBy.STATUS:
        if newer := headers.get("azure-asyncoperation") or headers.get("operation-location"):
            looked = replace(looked, look_url=absolute(operation.look_url, newer))
        if operation.method == "POST" and headers.get("location"):
            looked = replace(looked, location=absolute(operation.look_url, headers["location"]))
        word = _status(answer.body) or _provisioning(answer.body)
        state = OperationState.SUCCEEDED if answer.status == 204 else state_of(word)
        return replace(looked, state=state, native_state=word)
    if operation.look_by is LookBy.LOCATION and answer.status == 202:
        if newer := headers.get("location"):
            looked = replace(looked, look_url=absolute(operation.look_url, newer))
        return replace(looked, native_state=_status(answer.body) or "Accepted")
    word = _provisioning(answer.body) or _bare_status(answer.body)
    if operation.method == "DELETE" and operation.look_by is LookBy.RESOURCE:
        return replace(looked, native_state=word, state=_deleted(word, answer))
    return replace(looked, native_state=word, state=state_of(word) if word else OperationState.SUCCEEDED)


def _deleted(word: str, answer: Answer) -> OperationState:
    """A resource that is still there is still being deleted, unless that failed."""
    if answer.status == 204:
        return OperationState.SUCCEEDED
    return OperationState.FAILED if state_of(word) is OperationState.FAILED else OperationState.RUNNING


# What the status of an operation may hold, in lower case; anything else has a status of its own.
_OF_STATUS = {"id", "name", "status", "starttime", "endtime", "createdtime", "percentcomplete", "error"}
_OF_STATUS |= {"code", "message", "resourceid", "resourcelocation", "operations", "properties"}


def _status(body: Any) -> str:
    return text_at(body, "status")


def _bare_status(body: Any) -> str:
    """The status of a body that is an operation's status and not a resource with a status of its own."""
    return _status(body) if isinstance(body, dict) and {name.lower() for name in body} <= _OF_STATUS else ""


def _provisioning(body: Any) -> str:
    """properties.provisioningState of a resource."""
    return text_at(body, "properties", "provisioningState")
