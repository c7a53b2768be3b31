"""Every form of error body becomes the right error: one redacted sentence, its code, ids and a next step."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    QuotaError,
    RejectedError,
    ServiceError,
    UnavailableError,
)
from maas_client.transport.answer import read_answer
from maas_client.transport.failures import failed_operation, failure_of


def failure(
    status: int, body: Any = None, headers: dict[str, str] | None = None, **options: str
) -> ServiceError:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    kind = "text/html" if isinstance(body, bytes) else "application/json"
    answer = read_answer(status, {"Content-Type": kind, **(headers or {})}, content, "https://a/x?sig=1")
    return failure_of(answer, **options)


ML_NOT_FOUND = {
    "error": {
        "code": "UserError",
        "message": "Job j1 not found.",
        "details": [],
        "additionalInfo": [
            {"type": "Correlation", "info": {"value": {"operation": "op32", "request": "rq16"}}},
            {
                "type": "InnerError",
                "info": {
                    "value": {"code": "NotFound", "innerError": {"code": "JobNotFound", "innerError": None}}
                },
            },
        ],
    }
}
WITH_CORRELATION = {
    "error": {
        "code": "UserError",
        "message": "No.",
        "innerError": {"code": "NotFoundError", "innerError": None},
    },
    "correlation": {"operation": "op32", "request": "rq16"},
    "componentName": "account-rp",
}
PROBLEM = {
    "type": "https://tools.ietf.org/html/rfc7231#section-6.5.1",
    "title": "One or more validation errors occurred.",
    "status": 400,
    "traceId": "00-4bf9-01",
    "errors": {"$.sku": ["The value could not be read."]},
}
ONLY_INSIDE = {
    "error": {
        "code": "UserError",
        "message": None,
        "innererror": {"code": "BadArgument", "message": "The size is bad"},
    }
}
DETAILS_IN_WORDS = {"error": {"code": "E", "message": "Wrong.", "details": ["line 3", "no role"]}}
NESTED_DETAIL = {
    "error": {
        "code": "InvalidTemplateDeployment",
        "message": "Not valid.",
        "details": [
            {"code": "Outer", "message": '{"error": {"code": "InUse", "message": "The name is in use"}}'}
        ],
    }
}
DETAILED = {
    "error": {
        "code": "NotFound",
        "message": "The specified resource was not found.",
        "details": [{"code": "NoSuchEndpoint", "message": "There is no endpoint with name: e1."}],
    }
}
OPENAI = {"error": {"message": "Invalid file.", "type": "invalid_request_error", "code": "invalidPayload"}}
OPENAI_TYPE = {"error": {"message": "Bad key.", "type": "authentication_error", "param": None, "code": None}}
FILTERED = {
    "error": {
        "code": "content_filter",
        "message": "The response was filtered.",
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
APIM = {"statusCode": 401, "message": "Access denied due to invalid subscription key."}
OAUTH = {
    "error": "invalid_client",
    "error_description": "AADSTS7000215: Invalid client secret.",
    "correlation_id": "c",
}
NESTED = {
    "error": {
        "code": "DeploymentFailed",
        "message": json.dumps({"error": {"code": "QuotaExceeded", "message": "No cores are left."}}),
    }
}
ODATA = {"odata.error": {"code": "Request_Bad", "message": {"lang": "en", "value": "Bad value."}}}
FASTAPI = {"detail": [{"loc": ["body"], "msg": "field required"}]}
XML = (
    "\ufeff<Error><Code>AuthenticationFailed</Code><Message>"
    "Server failed to authenticate.\nRequestId:e4a51456-a01e-005f-74e3-186efe000000\nTime:2026"
    "</Message></Error>"
).encode()
HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>...</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "message", "ids"),
    [
        (
            404,
            ML_NOT_FOUND,
            NotFoundError,
            "JobNotFound",
            "Job j1 not found (JobNotFound, HTTP 404).",
            "op32, rq16",
        ),
        (
            404,
            WITH_CORRELATION,
            NotFoundError,
            "NotFoundError",
            "No (NotFoundError, HTTP 404).",
            "op32, rq16",
        ),
        (
            404,
            DETAILED,
            NotFoundError,
            "NoSuchEndpoint",
            "The specified resource was not found: There is no endpoint with name: e1 "
            "(NoSuchEndpoint, HTTP 404).",
            "own",
        ),
        (400, OPENAI, RejectedError, "invalidPayload", "Invalid file (invalidPayload, HTTP 400).", "own"),
        (
            401,
            OPENAI_TYPE,
            AccessDeniedError,
            "authentication_error",
            "Bad key (authentication_error, HTTP 401).",
            "own",
        ),
        (
            400,
            FILTERED,
            RejectedError,
            "ResponsibleAIPolicyViolation",
            "The response was filtered (ResponsibleAIPolicyViolation, HTTP 400).",
            "own",
        ),
        (401, APIM, AccessDeniedError, "401", "Access denied due to invalid subscription key (401).", "own"),
        (
            400,
            OAUTH,
            RejectedError,
            "invalid_client",
            "AADSTS7000215: Invalid client secret (invalid_client, HTTP 400).",
            "c",
        ),
        (409, NESTED, QuotaError, "QuotaExceeded", "No cores are left (QuotaExceeded, HTTP 409).", "own"),
        (400, ODATA, RejectedError, "Request_Bad", "Bad value (Request_Bad, HTTP 400).", "own"),
        (422, FASTAPI, RejectedError, "", "field required (HTTP 422).", "own"),
        (
            403,
            XML,
            AccessDeniedError,
            "AuthenticationFailed",
            "Server failed to authenticate (AuthenticationFailed, HTTP 403).",
            "e4a51456-a01e-005f-74e3-186efe000000",
        ),
        (502, HTML, UnavailableError, "", "502 Bad Gateway (HTTP 502).", "own"),
        (503, b"upstream connect error", UnavailableError, "", "upstream connect error (HTTP 503).", "own"),
        (404, None, NotFoundError, "", "the service gave no reason (HTTP 404).", "own"),
        (500, {}, UnavailableError, "", "the service gave no reason (HTTP 500).", "own"),
        (500, [], UnavailableError, "", "the service gave no reason (HTTP 500).", "own"),
        (502, b"<html><body><h1>Bad Gateway</h1>", UnavailableError, "", "Bad Gateway (HTTP 502).", "own"),
        (
            400,
            PROBLEM,
            RejectedError,
            "",
            "One or more validation errors occurred: $.sku: The value could not be read (HTTP 400).",
            "00-4bf9-01",
        ),
        (
            400,
            {"error": {"error": {"code": "E", "message": "Deep"}}},
            RejectedError,
            "E",
            "Deep (E, HTTP 400).",
            "own",
        ),
        (
            400,
            {"errors": [{"code": "E", "message": "First"}]},
            RejectedError,
            "E",
            "First (E, HTTP 400).",
            "own",
        ),
        (
            400,
            [{"error": {"code": "E", "message": "Listed"}}],
            RejectedError,
            "E",
            "Listed (E, HTTP 400).",
            "own",
        ),
        (400, {"error": ["In words"]}, RejectedError, "", "In words (HTTP 400).", "own"),
        (400, ONLY_INSIDE, RejectedError, "BadArgument", "The size is bad (BadArgument, HTTP 400).", "own"),
        (400, DETAILS_IN_WORDS, RejectedError, "E", "Wrong: line 3: no role (E, HTTP 400).", "own"),
        (
            409,
            NESTED_DETAIL,
            ConflictError,
            "InUse",
            "Not valid: The name is in use (InUse, HTTP 409).",
            "own",
        ),
        (400, {"errorCode": "E", "errorMessage": "No"}, RejectedError, "E", "No (E, HTTP 400).", "own"),
        (400, {"error": None}, RejectedError, "", "the service gave no reason (HTTP 400).", "own"),
    ],
)
def test_every_form_of_body(
    status: int, body: Any, kind: type[ServiceError], code: str, message: str, ids: str
) -> None:
    error = failure(status, body, operation="do it", client_request_id="own")
    assert type(error) is kind
    assert (error.code, error.status, error.request_id) == (code, status, ids)
    assert error.message == f"Cannot do it: {message}"
    assert error.hint
    assert error.operation == "do it"


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (400, "QuotaExceeded", "x", QuotaError),
        (403, "QuotaExceeded", "x", QuotaError),
        (
            409,
            "OperationNotAllowed",
            "Operation could not be completed as it results in exceeding approved quota.",
            QuotaError,
        ),
        (409, "OperationNotAllowed", "The VM is running.", ConflictError),
        (400, "InsufficientQuota", "x", QuotaError),
        (409, "SkuNotAvailable", "x", QuotaError),
        (429, "insufficient_quota", "x", QuotaError),
        (429, "TooManyRequests", "The request quota is exceeded.", UnavailableError),
        (429, "RateLimitReached", "x", UnavailableError),
        (500, "QuotaServiceFailed", "x", UnavailableError),
        (403, "AuthorizationFailed", "x", AccessDeniedError),
        (409, "Conflict", "x", ConflictError),
        (412, "PreconditionFailed", "x", ConflictError),
        (418, "Teapot", "x", ServiceError),
    ],
)
def test_quota_words_and_statuses(status: int, code: str, message: str, kind: type[ServiceError]) -> None:
    assert type(failure(status, {"error": {"code": code, "message": message}})) is kind


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("InvalidAuthenticationTokenTenant", "AZURE_TENANT_ID"),
        ("SubscriptionNotFound", "AZURE_SUBSCRIPTION_ID"),
        ("ResourceGroupNotFound", "AZURE_RESOURCE_GROUP"),
        ("KeyBasedAuthenticationNotPermitted", "Storage Blob Data Contributor"),
        ("MissingSubscriptionRegistration", "az provider register"),
        ("AuthorizationFailed", "role"),
        ("ModelNotSupportedByMaaS", "maas models"),
    ],
)
def test_known_codes_have_their_own_advice(code: str, words: str) -> None:
    assert words in failure(403, {"error": {"code": code, "message": "x"}}).hint


def test_a_blob_that_is_not_there_has_its_code_in_a_header() -> None:
    error = failure(404, None, {"x-ms-error-code": "BlobNotFound", "x-ms-request-id": "r1"})
    assert (error.code, error.request_id) == ("BlobNotFound", "r1")


def test_headers_with_ids_go_before_those_of_the_body() -> None:
    headers = {"x-ms-correlation-request-id": "c1", "apim-request-id": "a1"}
    assert failure(404, ML_NOT_FOUND, headers).request_id == "c1, a1"


BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "code",
                    "message",
                    "details",
                    "innererror",
                    "additionalInfo",
                    "type",
                    "info",
                    "value",
                    "odata.error",
                    "errors",
                    "properties",
                    "provisioningErrors",
                    "title",
                    "traceId",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(body=BODIES, status=st.integers(300, 599))
def test_no_body_is_too_strange(body: Any, status: int) -> None:
    error = failure(status, body, operation="do it", client_request_id="id")
    assert error.message.startswith("Cannot do it: ")
    assert error.message.endswith(".")
    assert "\n" not in error.message
    assert len(error.message) < 700 + len(error.code)
    assert error.request_id


@given(content=st.binary(max_size=300), status=st.integers(300, 599))
def test_no_bytes_are_too_strange(content: bytes, status: int) -> None:
    assert failure(status, content).message


@given(body=BODIES)
def test_a_failed_operation_always_has_a_reason(body: Any) -> None:
    error = failed_operation(body, "Failed", operation="do it", request_ids=())
    assert error.message.startswith("Cannot do it: ")


@pytest.mark.parametrize(
    "body",
    [
        {"Status": "Failed", "Error": {"Code": "E", "Message": "No room."}},
        {"properties": {"provisioningState": "Failed", "error": {"code": "E", "message": "No room."}}},
        {"properties": {"provisioningErrors": [{"error": {"code": "E", "message": "No room."}}]}},
        {"status": "Failed", "error": {"error": {"code": "E", "message": "No room."}}},
    ],
)
def test_a_failed_operation_says_why_wherever_that_stands(body: Any) -> None:
    error = failed_operation(body, "Failed", operation="do it", request_ids=("r1",))
    assert (error.message, error.request_id) == ("Cannot do it: No room (E).", "r1")


@pytest.mark.parametrize("piece", [b"<code>", b"<message>", b"<title>", b"sig=", b'{"error":', b"["])
def test_a_huge_body_takes_no_long_time(piece: bytes) -> None:
    began = time.process_time()
    assert len(failure(500, piece * (2_000_000 // len(piece))).message) < 600
    assert time.process_time() - began < 2


def test_secrets_in_a_message_are_hidden() -> None:
    said = "Cannot read https://s.blob.core.windows.net/c/b?sv=1&sig=aB3%2FxYz with AccountKey=abcdefgh1234=="
    error = failure(400, {"error": {"code": "Bad", "message": said}})
    assert "aB3" not in error.message
    assert "abcdefgh" not in error.message
