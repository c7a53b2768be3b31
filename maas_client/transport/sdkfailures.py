"""Turn what the Azure packages raise into errors.py, by name: nothing of them is imported here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    MaasError,
    NotFoundError,
    PlanError,
    RejectedError,
    ServiceError,
    UnavailableError,
)
from maas_client.transport.answer import Answer
from maas_client.transport.errorwords import ErrorWords, error_words, one_line
from maas_client.transport.failures import service_error
from maas_client.transport.hints import SIGN_IN, hint_for

_CORE, _IDENTITY, _ML = "azure.core.exceptions", "azure.identity._exceptions", "azure.ai.ml.exceptions"

# None: decided by the HTTP status and the service's words.
SDK_ERRORS: dict[str, type[MaasError] | None] = {
    f"{_CORE}.AzureError": ServiceError,
    f"{_CORE}.ServiceRequestError": UnavailableError,
    f"{_CORE}.ServiceRequestTimeoutError": UnavailableError,
    f"{_CORE}.ServiceResponseError": UnavailableError,
    f"{_CORE}.ServiceResponseTimeoutError": UnavailableError,
    f"{_CORE}.HttpResponseError": None,
    f"{_CORE}.DecodeError": UnavailableError,
    f"{_CORE}.IncompleteReadError": UnavailableError,
    f"{_CORE}.ResourceExistsError": None,
    f"{_CORE}.ResourceNotFoundError": None,
    f"{_CORE}.ClientAuthenticationError": None,
    f"{_CORE}.ResourceModifiedError": None,
    f"{_CORE}.ResourceNotModifiedError": None,
    f"{_CORE}.TooManyRedirectsError": ServiceError,
    f"{_CORE}.ODataV4Error": None,
    f"{_CORE}.StreamConsumedError": ServiceError,
    f"{_CORE}.StreamClosedError": ServiceError,
    f"{_CORE}.ResponseNotReadError": ServiceError,
    f"{_CORE}.SerializationError": RejectedError,
    f"{_CORE}.DeserializationError": ServiceError,
    f"{_IDENTITY}.CredentialUnavailableError": AccessDeniedError,
    f"{_IDENTITY}.AuthenticationRequiredError": AccessDeniedError,
    "azure.storage.blob._shared.response_handlers.PartialBatchErrorException": None,
    f"{_ML}.MlException": ServiceError,
    f"{_ML}.DeploymentException": ServiceError,
    f"{_ML}.ComponentException": PlanError,
    f"{_ML}.JobException": ServiceError,
    f"{_ML}.ModelException": ServiceError,
    f"{_ML}.AssetException": ServiceError,
    f"{_ML}.ScheduleException": ServiceError,
    f"{_ML}.ValidationException": PlanError,
    f"{_ML}.AssetPathException": PlanError,
    f"{_ML}.EmptyDirectoryError": PlanError,
    f"{_ML}.UserErrorException": PlanError,
    f"{_ML}.CannotSetAttributeError": PlanError,
    f"{_ML}.UnsupportedParameterKindError": PlanError,
    f"{_ML}.KeywordError": PlanError,
    f"{_ML}.UnexpectedKeywordError": PlanError,
    f"{_ML}.UnexpectedAttributeError": PlanError,
    f"{_ML}.MissingPositionalArgsError": PlanError,
    f"{_ML}.TooManyPositionalArgsError": PlanError,
    f"{_ML}.MultipleValueError": PlanError,
    f"{_ML}.ParamValueNotExistsError": PlanError,
    f"{_ML}.UnsupportedOperationError": PlanError,
    f"{_ML}.LocalEndpointNotFoundError": NotFoundError,
    f"{_ML}.LocalEndpointInFailedStateError": ConflictError,
    f"{_ML}.DockerEngineNotAvailableError": PlanError,
    f"{_ML}.MultipleLocalDeploymentsFoundError": ConflictError,
    f"{_ML}.InvalidLocalEndpointError": ConflictError,
    f"{_ML}.LocalEndpointImageBuildError": ServiceError,
    f"{_ML}.CloudArtifactsNotSupportedError": PlanError,
    f"{_ML}.RequiredLocalArtifactsNotFoundError": PlanError,
    f"{_ML}.JobParsingError": ServiceError,
    f"{_ML}.PipelineChildJobError": PlanError,
    f"{_ML}.InvalidVSCodeRequestError": PlanError,
    f"{_ML}.VSCodeCommandNotFound": PlanError,
    f"{_ML}.LocalDeploymentGPUNotAvailable": PlanError,
}
_WITHOUT_STATUS: dict[str, type[ServiceError]] = {
    "ClientAuthenticationError": AccessDeniedError,
    "ResourceExistsError": ConflictError,
    "ResourceModifiedError": ConflictError,
    "ResourceNotFoundError": NotFoundError,
}


# What requests and urllib3 say about a connection, and what that is in words.
_LOST = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"Failed to resolve|Name or service|getaddrinfo", "the service's name is unknown"),
        (r"Connection refused|Failed to establish", "the service takes no connection"),
        (r"timed out|timeout", "the answer took too long"),
        (
            r"Connection (?:aborted|reset|broken)|RemoteDisconnected|IncompleteRead",
            "the connection broke",
        ),
    )
)


@contextmanager
def sdk_calls(operation: str) -> Iterator[None]:
    """Around calls into an Azure package: what it raises comes out as one of errors.py, redacted.

    `operation` is what is tried, as a verb phrase. Errors that are no package's own pass as they are.
    """
    try:
        yield
    except MaasError:
        raise
    except Exception as error:
        if (ours := failure_of_sdk(error, operation=operation)) is None:
            raise
        raise ours from None


def failure_of_sdk(error: BaseException, *, operation: str = "") -> MaasError | None:
    """Our error for one of an Azure package's; None for an exception that is not one of theirs."""
    for cls in type(error).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name in SDK_ERRORS:
            kind = SDK_ERRORS[name]
            if kind is ServiceError and error.__cause__ is not None:  # azure-ai-ml wraps what others raise
                cause = failure_of_sdk(error.__cause__, operation=operation)
                if cause is not None:
                    return cause
            return _by_response(error, operation) if kind is None else _as(kind, error, operation)
    return None


def _as(kind: type[MaasError], error: BaseException, operation: str) -> MaasError:
    """An error of a kind that is known from the exception's class alone."""
    said = one_line(_first_line(error)).rstrip(". ") or type(error).__name__
    if kind is UnavailableError:
        said = next((words for pattern, words in _LOST if pattern.search(said)), said)
    message = f"Cannot {operation}: {said}." if operation else f"{said}."
    if not issubclass(kind, ServiceError):
        return kind(message, hint="Correct the job file as the message says.")
    headers = _headers(error)
    status = getattr(error, "status_code", None)
    return kind(
        message,
        hint=SIGN_IN if kind is AccessDeniedError else hint_for((), status, kind),
        operation=operation,
        status=status,
        code=type(error).__name__,
        request_id=", ".join(Answer(status or 0, headers).request_ids),
    )


def _by_response(error: BaseException, operation: str) -> ServiceError:
    """An error that carries an HTTP answer: its status, its words, its ids.

    A success is the last look at an operation that failed after it was accepted: no status of its own.
    """
    status = getattr(error, "status_code", None)
    status = None if status is not None and status < 300 else status
    headers = _headers(error)
    words = _words(error, headers)
    ids = Answer(status or 0, headers).request_ids or words.ids
    if status is None and (kind := _WITHOUT_STATUS.get(type(error).__name__)) is not None:
        ours = _as(kind, error, operation)
        return ours if isinstance(ours, ServiceError) else ServiceError(ours.message)
    return service_error(words, status=status, operation=operation, request_ids=ids)


def _words(error: BaseException, headers: Mapping[str, str]) -> ErrorWords:
    """The service's words: out of the answer where it was read, else out of the exception."""
    text = ""
    with suppress(Exception):  # a stream that was closed or not read yet
        text = str(error.response.text())  # type: ignore[attr-defined]
    body: object = None
    with suppress(ValueError, RecursionError):
        body = json.loads(text)
    words = error_words(body, text or _first_line(error), headers)
    storage_code = getattr(error, "error_code", None)
    if storage_code and not words.codes:
        code = str(getattr(storage_code, "value", storage_code))
        return ErrorWords((code,), words.message or one_line(_first_line(error)), words.ids)
    return words if words.message else ErrorWords(words.codes, one_line(_first_line(error)), words.ids)


def _headers(error: BaseException) -> dict[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _first_line(error: BaseException) -> str:
    """The message without the lines of facts that the packages add below it."""
    text = str(getattr(error, "message", None) or next(iter(error.args), "")).strip()
    return text.splitlines()[0] if text else ""
