"""Blob storage: how a container is opened, how long it is waited for, and what its failures are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from maas_client.errors import ConflictError, ServiceError, UnavailableError
from maas_client.transport.redaction import quiet_sdk_logs
from maas_client.transport.sdkfailures import sdk_calls
from maas_client.transport.trust import is_loopback

if TYPE_CHECKING:
    from maas_client.transport.credential import AzureCredential

# Storage that is not there is said after 5 s twice, one that goes silent after 20 s three times.
_CONNECT_S, _READ_S = 5, 20
_TRIES = {"retry_total": 4, "retry_connect": 1, "retry_read": 2, "retry_status": 3}
# Seconds between the tries: 2, 4 and 8, each a second more or less.
_WAITS = {"initial_backoff": 0, "increment_base": 2, "random_jitter_range": 1}
_NO_ANSWER = {"ServiceRequest": "takes no connection", "ServiceResponse": "gives no whole answer"}


def open_client(
    account_url: str,
    name: str,
    *,
    key: str | None = None,
    sas: Callable[[], str] | None = None,
    identity: AzureCredential | None = None,
    **options: int,
) -> Any:
    """The package's client of a container, with one of the three credentials. Sends nothing.

    `sas` is asked for the signed query with each request; `options` are the package's sizes.
    """
    from azure.storage.blob import ContainerClient, ExponentialRetry

    quiet_sdk_logs()
    credential: Any = None
    if key is not None:
        credential = {"account_name": _account_name(account_url), "account_key": key}
    elif sas is not None:
        credential = _signed(sas)
    elif identity is not None:
        credential = identity.source
    return ContainerClient(
        account_url,
        name,
        credential=credential,
        retry_policy=ExponentialRetry(**_WAITS, **_TRIES),
        connection_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        **options,
    )


@contextmanager
def storage_calls(operation: str) -> Iterator[None]:
    """`sdk_calls` for storage: says what no answer means, and that a blob changed under a ranged read."""
    try:
        with sdk_calls(operation):
            yield
    except UnavailableError as error:
        raise (_no_answer(error, operation) or error) from None
    except ConflictError as error:
        if error.status != 412:
            raise
        raise ConflictError(
            f"Cannot {operation}: it changed meanwhile.",
            hint="Try again.",
            operation=operation,
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        ) from None


def _no_answer(error: UnavailableError, operation: str) -> ServiceError | None:
    """The error for storage that gave no answer, instead of the package's words about itself."""
    said = next((words for start, words in _NO_ANSWER.items() if error.code.startswith(start)), None)
    if said is None or error.status is not None:
        return None
    if "certificate verify failed" in error.message.lower():
        return ServiceError(
            f"Cannot {operation}: the certificate of the storage account is not trusted here.",
            hint="Set REQUESTS_CA_BUNDLE to your organization's CA file.",
            operation=operation,
            code="CertificateError",
        )
    hint = "Check the network, VPN, firewall and HTTPS_PROXY."
    message = f"Cannot {operation}: the storage account {said}."
    return UnavailableError(message, hint=hint, operation=operation, code=error.code)


def _signed(sas: Callable[[], str]) -> Any:
    """A credential of the package that asks for the signed query whenever it is used."""
    from azure.core.credentials import AzureSasCredential

    class Signed(AzureSasCredential):  # type: ignore[misc,unused-ignore]
        """Never holds an old one."""

        @property
        def signature(self) -> str:
            return sas()

    return Signed("unused")


def _account_name(account_url: str) -> str:
    """The account that signs: the host's first part, or on this machine the path's."""
    parts = urlsplit(account_url)
    if is_loopback(account_url):
        return parts.path.strip("/").partition("/")[0]
    return (parts.hostname or "").partition(".")[0]
