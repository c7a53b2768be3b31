"""Watch a long-running operation to its end: the steps of operations.py over the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from maas_client.errors import NotFoundError, UnavailableError
from maas_client.transport.answer import Answer
from maas_client.transport.failures import failed_operation
from maas_client.transport.operations import LookBy, Operation, OperationState, seen
from maas_client.transport.retrying import retry_after_s

_LOST_LOOKS = 5
_SHORTEST_WAIT_S = 0.05
_SHORTEST_LATER_S = 1.0
"""A service that asks for no wait at all is asked less often with each look, down to once in so long."""
_LONGEST_WAIT_S = 30.0


class Get(Protocol):
    """Reads a URL: `Rest.get`."""

    def __call__(self, path: str, /, *, operation: str = "") -> Answer: ...


def look(get: Get, operation: Operation) -> Operation:
    """Look once. What is being deleted and is not there anymore is deleted."""
    if operation.is_final or operation.look_by is LookBy.NOTHING:
        return operation
    try:
        answer = get(operation.look_url, operation=operation.name)
    except NotFoundError:
        if operation.method != "DELETE":
            raise
        answer = Answer(204, url=operation.look_url)
    return seen(operation, answer)


def wait(
    get: Get,
    operation: Operation,
    *,
    timeout_s: float,
    watch: Callable[[Operation], None] | None,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Operation:
    """Look until the operation has ended; see Rest.finish."""
    began, looks, lost = clock(), 0, 0
    asked_s = retry_after_s(operation.answer.headers, began)
    while not operation.is_final:
        wait_s = _wait_s(asked_s, looks)
        if clock() - began + wait_s > timeout_s:
            raise _unfinished(operation, timeout_s)
        sleep(wait_s)
        looks = min(looks + 1, 20)
        try:
            operation = _telling(look(get, operation))
        except UnavailableError as error:
            lost, asked_s = lost + 1, error.retry_after_s
            if lost >= _LOST_LOOKS:
                raise
            continue
        lost, asked_s = 0, retry_after_s(operation.answer.headers, clock())
        if watch is not None:
            watch(operation)
    return operation


def result(get: Get, operation: Operation) -> Answer:
    """The result of an operation that has ended. Raises ServiceError where it did not succeed."""
    if operation.state is not OperationState.SUCCEEDED:
        answer, word = operation.answer, operation.native_state or str(operation.state)
        raise failed_operation(answer.body, word, operation=operation.name, request_ids=answer.request_ids)
    if operation.result_url:
        return get(operation.result_url, operation=operation.name)
    return operation.answer


def _wait_s(asked_s: float | None, looks: int) -> float:
    if asked_s is None:
        return min(_LONGEST_WAIT_S, 1.5**looks)
    return max(asked_s, min(_SHORTEST_LATER_S, _SHORTEST_WAIT_S * 1.5**looks))


def _telling(operation: Operation) -> Operation:
    """The operation, where the look told something. Raises UnavailableError: such a look is a lost one."""
    if not operation.tells_nothing:
        return operation
    raise UnavailableError(
        f"Cannot {operation.name}: what answers at the operation's address tells no status.",
        hint="Check that no proxy or sign-in page stands between; the operation goes on by itself.",
        operation=operation.name,
        status=operation.answer.status,
        code="UnreadableAnswer",
        request_id=", ".join(operation.answer.request_ids),
    )


def _unfinished(operation: Operation, timeout_s: float) -> UnavailableError:
    word = operation.native_state or "Running"
    return UnavailableError(
        f"Cannot {operation.name}: Azure still says {word} after {timeout_s:.0f} s.",
        hint="It goes on by itself: run the same command again later.",
        operation=operation.name,
        code="StillRunning",
        request_id=", ".join(operation.answer.request_ids),
    )
