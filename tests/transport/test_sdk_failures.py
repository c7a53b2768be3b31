"""Everything that the Azure packages can raise is mapped; a new exception of theirs fails here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from azure.core import exceptions as core
from azure.core.pipeline.transport import HttpRequest
from azure.identity import CredentialUnavailableError
from azure.storage.blob import BlobClient
from loopback import Reply, in_turn, loopback

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    MaasError,
    NotFoundError,
    PlanError,
    QuotaError,
    RejectedError,
    ServiceError,
    UnavailableError,
)
from maas_client.transport.sdkfailures import SDK_ERRORS, failure_of_sdk, sdk_calls

MODULES = (
    "azure.core.exceptions",
    "azure.core",
    "azure.identity",
    "azure.ai.ml.exceptions",
    "azure.ai.ml",
    "azure.storage.blob",
)


def public_exceptions() -> Iterator[type[BaseException]]:
    for name in MODULES:
        for word, value in vars(importlib.import_module(name)).items():
            if word.startswith("_") or not inspect.isclass(value) or not issubclass(value, BaseException):
                continue
            if value.__module__.startswith("azure."):
                yield value


def name_of(cls: type[BaseException]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def test_every_public_exception_of_the_packages_is_mapped() -> None:
    found = {name_of(cls) for cls in public_exceptions()}
    assert len(found) > 50
    assert sorted(found - set(SDK_ERRORS)) == [], "map these in transport/sdkfailures.py"


def test_nothing_is_mapped_that_the_packages_do_not_have() -> None:
    assert sorted(set(SDK_ERRORS) - {name_of(cls) for cls in public_exceptions()}) == []


def test_no_other_module_of_the_packages_is_public_about_exceptions() -> None:
    import azure.core
    import azure.identity
    import azure.storage.blob

    for package in (azure.core, azure.identity, azure.storage.blob):
        for module in pkgutil.iter_modules(package.__path__):
            assert (
                "exception" not in module.name or module.name.startswith("_") or module.name == "exceptions"
            )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("('Connection aborted.', RemoteDisconnected('Remote end closed'))", "the connection broke"),
        (
            "<HTTPSConnection at 0x7f>: Failed to establish a new connection: [Errno 111]",
            "the service takes no connection",
        ),
        (
            "HTTPSConnection(host='x'): Failed to resolve 'x' ([Errno -2] Name or service not known)",
            "the service's name is unknown",
        ),
    ],
)
def test_a_lost_connection_inside_of_azure_ai_ml_may_be_tried_again(said: str, words: str) -> None:
    from azure.ai.ml.exceptions import AssetException

    error = AssetException(f"Error with code: {said}", no_personal_data_message="")
    error.__cause__ = core.ServiceResponseError(said)
    ours = failure_of_sdk(error, operation="start job card-1")
    assert isinstance(ours, UnavailableError)
    assert ours.message == f"Cannot start job card-1: {words}."
    assert ours.hint


def test_each_becomes_one_sentence() -> None:
    for cls in set(public_exceptions()):
        error = cls.__new__(cls)
        Exception.__init__(error, "It broke.\nDetails: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abcdefgh")
        ours = failure_of_sdk(error, operation="do it")
        assert isinstance(ours, MaasError), cls
        assert ours.message.startswith("Cannot do it: It broke"), cls
        assert "\n" not in ours.message
        assert "eyJ" not in ours.message
        assert ours.hint or type(ours) is ServiceError, cls


class FakeResponse(SimpleNamespace):
    """What the packages' exceptions hold as `response`."""

    def text(self) -> str:
        return str(self.content)


def http_error(
    status: int, content: str, cls: type[core.HttpResponseError] = core.HttpResponseError
) -> Exception:
    headers = {"x-ms-request-id": "r1", "x-ms-correlation-request-id": "c1"}
    response = FakeResponse(status_code=status, reason="No", headers=headers, content=content)
    return cls(response=response)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "Bad", RejectedError),
        (401, "InvalidAuthenticationToken", AccessDeniedError),
        (403, "AuthorizationFailed", AccessDeniedError),
        (404, "ResourceNotFound", NotFoundError),
        (409, "Conflict", ConflictError),
        (409, "QuotaExceeded", QuotaError),
        (429, "TooManyRequests", UnavailableError),
        (503, "ServerBusy", UnavailableError),
    ],
)
def test_an_answer_decides_by_its_status(status: int, code: str, kind: type[ServiceError]) -> None:
    body = f'{{"error": {{"code": "UserError", "message": "Said.", "innererror": {{"code": "{code}"}}}}}}'
    ours = failure_of_sdk(http_error(status, body), operation="do it")
    assert type(ours) is kind
    assert isinstance(ours, ServiceError)
    assert ours.message == f"Cannot do it: Said ({code}, HTTP {status})."
    assert (ours.code, ours.status, ours.request_id, ours.operation) == (code, status, "r1, c1", "do it")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (core.ServiceRequestError("Failed to establish a new connection"), UnavailableError),
        (core.IncompleteReadError("cut off"), UnavailableError),
        (core.ClientAuthenticationError("no"), AccessDeniedError),
        (core.ResourceNotFoundError("no"), NotFoundError),
        (CredentialUnavailableError("no"), AccessDeniedError),
        (core.SerializationError("no"), RejectedError),
    ],
)
def test_errors_without_an_answer(error: Exception, kind: type[MaasError]) -> None:
    assert type(failure_of_sdk(error, operation="do it")) is kind


def test_errors_of_azure_ai_ml() -> None:
    from azure.ai.ml.exceptions import ErrorCategory, ErrorTarget, JobException, ValidationException

    wrong = ValidationException(
        "Bad.", "Bad.", target=ErrorTarget.JOB, error_category=ErrorCategory.USER_ERROR
    )
    ours = failure_of_sdk(wrong, operation="do it")
    assert type(ours) is PlanError
    assert ours.message == "Cannot do it: Bad."
    assert type(failure_of_sdk(JobException("no", "no"))) is ServiceError


def test_a_stream_that_was_not_read_is_no_harm() -> None:
    class Unread(FakeResponse):
        def text(self) -> str:
            raise core.ResponseNotReadError(HttpRequest("GET", "https://a"))  # type: ignore[arg-type]

    response = Unread(status_code=404, reason="Not Found", headers={})
    ours = failure_of_sdk(core.HttpResponseError(response=response))  # type: ignore[arg-type]
    assert type(ours) is NotFoundError


def test_what_is_not_theirs_passes() -> None:
    assert failure_of_sdk(ValueError("x")) is None
    with pytest.raises(KeyError), sdk_calls("do it"):
        raise KeyError("x")
    with pytest.raises(PlanError), sdk_calls("do it"):
        raise PlanError("ours")


def test_a_real_storage_client_against_a_real_socket() -> None:
    xml = b"<Error><Code>BlobNotFound</Code><Message>No blob.\nRequestId:1</Message></Error>"
    headers = {"Content-Type": "application/xml", "x-ms-error-code": "BlobNotFound", "x-ms-request-id": "r1"}
    with loopback(in_turn(Reply(404, xml, headers))) as server:
        blob = BlobClient(
            server.url, "c", "b", credential={"account_name": "a", "account_key": "a2V5"}, retry_total=0
        )
        with pytest.raises(NotFoundError) as caught, sdk_calls("read blob b"):
            blob.download_blob()
    assert caught.value.message == "Cannot read blob b: No blob (BlobNotFound, HTTP 404)."
    assert caught.value.request_id == "r1"


def test_a_real_storage_client_with_nobody_there() -> None:
    with loopback(in_turn(Reply())) as server:
        pass
    credential = {"account_name": "a", "account_key": "a2V5"}
    blob = BlobClient(server.url, "c", "b", credential=credential, retry_total=0)
    with pytest.raises(UnavailableError), sdk_calls("read blob b"):
        blob.get_blob_properties()
