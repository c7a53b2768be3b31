"""Long-running operations in each of Azure's manners, as pure steps and over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Call, Loopback, Reply, Sleeper, in_turn, loopback

from maas_client.errors import ConflictError, NotFoundError, QuotaError, ServiceError, UnavailableError
from maas_client.transport.answer import Answer
from maas_client.transport.credential import KeyCredential
from maas_client.transport.operations import STATES, LookBy, Operation, OperationState, begun, seen, state_of
from maas_client.transport.rest import Rest

URL = "https://management.azure.com/w/endpoints/e1?api-version=1"
LAST = [state for state in OperationState if state is not OperationState.RUNNING]


@given(st.sampled_from(sorted(STATES)), st.lists(st.booleans(), min_size=12, max_size=12))
def test_words_are_known_in_any_case(word: str, upper: list[bool]) -> None:
    mixed = (
        "".join(letter.upper() if up else letter for letter, up in zip(word, upper * 2, strict=False))
        + word[24:]
    )
    assert state_of(f" {mixed} ") is STATES[word]


@given(st.text(max_size=20).filter(lambda word: word.strip().lower() not in STATES))
def test_a_word_that_nobody_mapped_means_still_running(word: str) -> None:
    assert state_of(word) is OperationState.RUNNING


@pytest.mark.parametrize(
    ("method", "status", "headers", "body", "look_by", "state"),
    [
        ("PUT", 201, {"azure-asyncoperation": "https://a/op"}, {"id": 1}, LookBy.STATUS, "running"),
        ("PUT", 200, {"operation-location": "/op"}, {}, LookBy.STATUS, "running"),
        (
            "DELETE",
            202,
            {"azure-asyncoperation": "https://a/op", "location": "/l"},
            None,
            LookBy.STATUS,
            "running",
        ),
        ("POST", 202, {"location": "/l"}, None, LookBy.LOCATION, "running"),
        ("PUT", 202, {"location": "/l"}, None, LookBy.LOCATION, "running"),
        (
            "PUT",
            201,
            {"location": "/jobs/j"},
            {"properties": {"status": "Running"}},
            LookBy.NOTHING,
            "succeeded",
        ),
        ("PUT", 201, {}, {"properties": {"provisioningState": "Creating"}}, LookBy.RESOURCE, "running"),
        ("PUT", 200, {}, {"properties": {"provisioningState": "Succeeded"}}, LookBy.RESOURCE, "succeeded"),
        ("PUT", 200, {}, {"properties": {"provisioningState": "Failed"}}, LookBy.RESOURCE, "failed"),
        ("PATCH", 202, {}, None, LookBy.RESOURCE, "running"),
        ("DELETE", 202, {}, None, LookBy.RESOURCE, "running"),
        ("DELETE", 204, {}, None, LookBy.NOTHING, "succeeded"),
        ("DELETE", 200, {}, None, LookBy.NOTHING, "succeeded"),
        ("POST", 200, {}, {"a": 1}, LookBy.NOTHING, "succeeded"),
        ("POST", 202, {}, None, LookBy.NOTHING, "succeeded"),
    ],
)
def test_what_the_first_answer_begins(
    method: str, status: int, headers: dict[str, str], body: Any, look_by: LookBy, state: str
) -> None:
    operation = begun("x", method, URL, Answer(status, headers, body=body))
    assert (operation.look_by, operation.state) == (look_by, state)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "properties", "provisioningState", "error", "id", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(
    method=st.sampled_from(["PUT", "PATCH", "POST", "DELETE"]),
    statuses=st.lists(st.sampled_from([200, 201, 202, 204]), min_size=2, max_size=4),
    bodies=st.lists(JSON, min_size=4, max_size=4),
    headers=st.dictionaries(
        st.sampled_from(["azure-asyncoperation", "location", "operation-location", "retry-after"]),
        st.sampled_from(["https://a/op?s=1", "/op", "op", "5", ""]),
    ),
)
def test_any_answers_give_a_state(
    method: str, statuses: list[int], bodies: list[Any], headers: dict[str, str]
) -> None:
    operation = begun("x", method, URL, Answer(statuses[0], headers, body=bodies[0]))
    for status, body in zip(statuses[1:], bodies[1:], strict=False):
        if operation.is_final:
            break
        assert operation.look_url.startswith("https://")
        operation = seen(operation, Answer(status, headers, body=body))
    assert operation.state in OperationState
    assert operation.result_url == "" or operation.result_url.startswith("https://")


def serving(script: dict[tuple[str, str], list[Reply]]) -> Any:
    """Answers by method and path, each list in turn; the last one stays."""

    def answer(call: Call) -> Reply:
        replies = script[call.method, call.path]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    return answer


def run(
    server: Loopback, sleeper: Sleeper, method: str, body: Any = None, **options: Any
) -> tuple[Answer, list[Operation]]:
    looks: list[Operation] = []
    with Rest(
        server.url, KeyCredential("k"), clock=sleeper.clock, sleep=sleeper.sleep, chance=lambda: 0.0
    ) as rest:
        answer = rest.long_running(
            method, "/e1", body, operation="create endpoint e1", watch=looks.append, **options
        )
    return answer, looks


def status(word: str, **more: Any) -> Reply:
    return Reply(200, {"id": "op", "status": word, **more})


def test_a_status_url_is_polled_as_often_as_asked_then_the_resource_is_read() -> None:
    sleeper = Sleeper()
    signed = "s=" + "aB3%2F" * 500
    with loopback(lambda call: script(call)) as server:
        begin = Reply(
            201,
            {"properties": {"provisioningState": "Creating"}},
            {"Azure-AsyncOperation": f"{server.url}/op?c=1&{signed}", "Retry-After": "12"},
        )
        done = Reply(200, {"properties": {"provisioningState": "Succeeded", "x": 1}})
        script = serving(
            {
                ("PUT", "/e1"): [begin],
                ("GET", "/op"): [
                    Reply(200, {"status": "InProgress"}, {"Retry-After": "3"}),
                    Reply(200, {"status": "Wondering"}),
                    status("Succeeded"),
                ],
                ("GET", "/e1"): [done],
            }
        )
        answer, looks = run(server, sleeper, "PUT", {"location": "eastus"})
    assert answer.body == done.body
    assert [look.native_state for look in looks] == ["InProgress", "Wondering", "Succeeded"]
    assert sleeper.naps == [12, 3, 1.5**2]
    assert [call.target for call in server.calls if call.path == "/op"] == [f"/op?c=1&{signed}"] * 3
    assert signed not in repr(looks)


def test_a_location_is_polled_until_it_is_no_202() -> None:
    script = serving(
        {
            ("POST", "/e1"): [Reply(202, headers={"Location": "/where"})],
            ("GET", "/where"): [
                Reply(202, {}, {"Location": "/where?2"}),
                Reply(202, headers={"Azure-AsyncOperation": "/never"}),
                status("InProgress"),
                Reply(200, {"value": {"ok": 1}}),
            ],
        }
    )
    with loopback(script) as server:
        answer, _ = run(server, Sleeper(), "POST")
    assert answer.body == {"value": {"ok": 1}}
    assert [call.target for call in server.calls] == ["/e1", "/where", "/where?2", "/where?2", "/where?2"]


@given(
    word=st.sampled_from(["Failed", "failed", "FAILED", "InProgress", "Succeeded"]),
    more=st.dictionaries(st.sampled_from(["operations", "properties", "resourceId", "startTime"]), st.none()),
    name=st.sampled_from(["status", "Status"]),
)
def test_a_location_that_shows_a_status_is_believed_whatever_stands_beside(
    word: str, more: dict[str, None], name: str
) -> None:
    began = begun("x", "POST", URL, Answer(202, {"location": "/where"}))
    looked = seen(began, Answer(200, body={"id": "o", name: word, "error": None, **more}))
    assert looked.state is state_of(word)


@pytest.mark.parametrize("resource", [{"id": "r", "type": "T", "status": "Failed"}, {"value": []}, {}])
def test_a_location_that_shows_a_result_is_done(resource: dict[str, Any]) -> None:
    began = begun("x", "POST", URL, Answer(202, {"location": "/where"}))
    assert seen(began, Answer(200, body=resource)).state is OperationState.SUCCEEDED


def test_the_result_of_an_action_is_where_its_status_says() -> None:
    began = begun("x", "POST", URL, Answer(202, {"operation-location": "/op"}))
    done = seen(began, Answer(200, body={"status": "succeeded", "resourceLocation": "/made/1"}))
    assert done.result_url == "https://management.azure.com/made/1"


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html"}), Reply(200)]
)
def test_a_status_that_is_none_is_not_waited_for_long(reply: Reply) -> None:
    begin = Reply(202, headers={"Azure-AsyncOperation": "/op"})
    with (
        loopback(serving({("PUT", "/e1"): [begin], ("GET", "/op"): [reply]})) as server,
        pytest.raises(UnavailableError, match="tells no status"),
    ):
        run(server, Sleeper(), "PUT")
    assert len(server.calls) == 1 + 5


def test_a_service_that_asks_for_no_wait_is_not_stormed() -> None:
    sleeper = Sleeper()
    begin = Reply(202, headers={"Azure-AsyncOperation": "/op", "Retry-After": "0"})
    busy = Reply(200, {"status": "Creating"}, {"Retry-After": "0"})
    with (
        loopback(serving({("PUT", "/e1"): [begin], ("GET", "/op"): [busy]})) as server,
        pytest.raises(UnavailableError, match="still says Creating"),
    ):
        run(server, sleeper, "PUT", timeout_s=60)
    assert sleeper.naps[0] < 0.1
    assert len(server.calls) < 75


def test_a_put_by_location_with_an_empty_end_reads_the_resource() -> None:
    script = serving(
        {
            ("PUT", "/e1"): [Reply(202, headers={"Location": "/where"})],
            ("GET", "/where"): [Reply(202), Reply(200)],
            ("GET", "/e1"): [Reply(200, {"id": "e1"})],
        }
    )
    with loopback(script) as server:
        assert run(server, Sleeper(), "PUT")[0].body == {"id": "e1"}


def test_a_provisioning_state_is_read_on_the_resource() -> None:
    def resource(word: str) -> Reply:
        return Reply(200, {"properties": {"provisioningState": word}})

    script = serving(
        {
            ("PUT", "/e1"): [resource("Creating")],
            ("GET", "/e1"): [resource("Updating"), resource("Succeeded")],
        }
    )
    with loopback(script) as server:
        answer, _ = run(server, Sleeper(), "PUT")
    assert answer.mapping["properties"]["provisioningState"] == "Succeeded"
    assert len(server.calls) == 3


@pytest.mark.parametrize("location", [True, False])
def test_what_is_being_deleted_and_gone_is_deleted(location: bool) -> None:
    begin = Reply(202, headers={"Location": "/where"} if location else {})
    there = Reply(202) if location else Reply(200, {"properties": {"provisioningState": "Deleting"}})
    path = "/where" if location else "/e1"
    gone = Reply(404, {"error": {"code": "ResourceNotFound", "message": "Gone."}})
    with loopback(serving({("DELETE", "/e1"): [begin], ("GET", path): [there, gone]})) as server:
        answer, looks = run(server, Sleeper(), "DELETE")
    assert answer.status == 204
    assert looks[-1].state is OperationState.SUCCEEDED


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("QuotaExceeded", QuotaError),
        ("OutOfCapacity", QuotaError),
        ("EndpointAlreadyExists", ConflictError),
        ("ModelNotFound", NotFoundError),
        ("InternalServerError", UnavailableError),
        ("SomethingElse", ServiceError),
    ],
)
def test_an_operation_that_fails_says_why(code: str, kind: type[ServiceError]) -> None:
    failed = Reply(
        200,
        {"status": "Failed", "error": {"code": code, "message": "No."}},
        {"x-ms-correlation-request-id": "c1"},
    )
    begin = Reply(202, headers={"Azure-AsyncOperation": "/op"})
    with (
        loopback(serving({("PUT", "/e1"): [begin], ("GET", "/op"): [failed]})) as server,
        pytest.raises(ServiceError) as caught,
    ):
        run(server, Sleeper(), "PUT")
    assert type(caught.value) is kind
    assert caught.value.message == f"Cannot create endpoint e1: No ({code})."
    assert (caught.value.code, caught.value.request_id) == (code, "c1")


@pytest.mark.parametrize("word", ["Failed", "Canceled"])
def test_an_operation_that_ends_without_a_reason(word: str) -> None:
    begin = Reply(202, headers={"Azure-AsyncOperation": "/op"})
    with (
        loopback(serving({("PUT", "/e1"): [begin], ("GET", "/op"): [status(word)]})) as server,
        pytest.raises(ServiceError, match=rf"Azure ended it as {word} \({word}\)\."),
    ):
        run(server, Sleeper(), "PUT")


def test_the_time_is_bounded_and_the_operation_goes_on() -> None:
    sleeper = Sleeper()
    begin = Reply(202, headers={"Azure-AsyncOperation": "/op"})
    with (
        loopback(serving({("PUT", "/e1"): [begin], ("GET", "/op"): [status("Creating")]})) as server,
        pytest.raises(UnavailableError) as caught,
    ):
        run(server, sleeper, "PUT", timeout_s=100)
    assert "still says Creating after 100 s" in caught.value.message
    assert caught.value.code == "StillRunning"
    assert sum(sleeper.naps) <= 100


def test_lost_looks_are_taken_again_and_five_in_a_row_are_an_error() -> None:
    begin = Reply(202, headers={"Azure-AsyncOperation": "/op"})
    lost = [Reply(503)] * 19  # each look is five tries
    with loopback(serving({("PUT", "/e1"): [begin], ("GET", "/op"): [*lost, status("Succeeded")]})) as server:
        server_resource = {("GET", "/e1"): [Reply(200, {"id": "e1"})]}
        script = serving(
            {("PUT", "/e1"): [begin], ("GET", "/op"): [*lost, status("Succeeded")], **server_resource}
        )
        server.answer = script
        assert run(server, Sleeper(), "PUT")[0].body == {"id": "e1"}
    with (
        loopback(serving({("PUT", "/e1"): [begin], ("GET", "/op"): [Reply(503)]})) as server,
        pytest.raises(UnavailableError),
    ):
        run(server, Sleeper(), "PUT")
    assert len(server.calls) == 1 + 25


def test_a_status_url_elsewhere_is_polled_without_the_key() -> None:
    with loopback(in_turn(status("Succeeded"))) as other:
        begin = Reply(202, headers={"Azure-AsyncOperation": f"{other.url}/op?s=signed"})
        script = serving({("DELETE", "/e1"): [begin]})
        with loopback(script) as server:
            run(server, Sleeper(), "DELETE")
    assert "api-key" in server.calls[0].headers
    assert "api-key" not in other.calls[0].headers


def test_begin_and_look_are_single_steps() -> None:
    begin = Reply(202, headers={"Azure-AsyncOperation": "/op"})
    script = serving({("PUT", "/e1"): [begin], ("GET", "/op"): [status("Creating"), status("Canceled")]})
    with loopback(script) as server, Rest(server.url) as rest:
        first = rest.begin("PUT", "/e1", {}, operation="create endpoint e1", params={"api-version": "1"})
        assert first.url == f"{server.url}/e1?api-version=1"
        second = rest.look(first)
        assert (second.state, second.native_state) == (OperationState.RUNNING, "Creating")
        third = rest.look(second)
        assert third.state is OperationState.CANCELED
        assert rest.look(third) is third
