"""Sign in to Azure once: tokens kept in memory, renewed before they end. Uses azure.identity."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from maas_client.errors import AccessDeniedError, ServiceError, UnavailableError
from maas_client.transport.errorwords import one_line
from maas_client.transport.hints import SIGN_IN
from maas_client.transport.redaction import quiet_sdk_logs

if TYPE_CHECKING:
    from maas_client.settings import Settings

RENEWED_BEFORE_S = 300.0
_PROBLEM = re.compile(r"AADSTS\d+")
_CORRELATION = re.compile(r"Correlation ID:\s*([0-9a-fA-F-]{36})")
_TRACE = re.compile(r"\s*(?:Trace ID|Correlation ID|Timestamp):.*", re.DOTALL)
_ATTEMPT = re.compile(r"^\s*(\w+Credential): Authentication failed: (\S.*)$", re.MULTILINE)
_NO_WAY = re.compile(
    r"HTTPS?Connection|Failed to (?:resolve|establish)|Max retries|Connection (?:refused|reset|aborted)"
    r"|timed out|Name or service not known|getaddrinfo",
    re.IGNORECASE,
)
_TENANT_HINT = "Set AZURE_TENANT_ID to the tenant of the subscription, or `az login --tenant`."
_EXPIRED_HINT = "Make a new secret for the app registration and set AZURE_CLIENT_SECRET."
_HINTS = {
    "AADSTS90002": _TENANT_HINT,
    "AADSTS900023": _TENANT_HINT,
    "AADSTS50020": _TENANT_HINT,
    "AADSTS700016": "Check AZURE_CLIENT_ID and AZURE_TENANT_ID.",
    "AADSTS7000215": "Check AZURE_CLIENT_SECRET: it must be the secret's value, not its id.",
    "AADSTS7000222": _EXPIRED_HINT,
    "AADSTS50076": "Sign in again with `az login`: the tenant asks for a second factor.",
    "AADSTS70043": "Sign in again with `az login`: the login has expired.",
    "AADSTS700082": "Sign in again with `az login`: the login has expired.",
    "AADSTS50173": "Sign in again with `az login`: the login has expired.",
    "AADSTS700024": "Check this machine's clock: the assertion is outside its time.",
    "AADSTS500133": "Check this machine's clock: the assertion is outside its time.",
}


class Credential(Protocol):
    """What lets a request in. Secrets leave it only as header values."""

    @property
    def renewable(self) -> bool:
        """True where `fresh=True` can bring another token, so that a 401 is worth one more try."""

    def headers(self, scope: str, *, fresh: bool = False, claims: str = "") -> Mapping[str, str]:
        """The headers of one request. `fresh` asks for a new token, `claims` is the service's challenge.

        Raises AccessDeniedError, or UnavailableError where the sign-in service cannot be reached.
        """


@dataclass(frozen=True, repr=False)
class KeyCredential:
    """A key that does not change: `api-key: KEY`, or `KeyCredential(key, "Authorization", "Bearer ")`."""

    key: str
    header: str = "api-key"
    prefix: str = ""
    renewable: bool = False

    def headers(self, scope: str, *, fresh: bool = False, claims: str = "") -> Mapping[str, str]:  # noqa: ARG002
        """The key's header; scope, `fresh` and `claims` mean nothing to a key."""
        return {self.header: f"{self.prefix}{self.key}"}

    def __repr__(self) -> str:
        return f"KeyCredential(header={self.header!r})"


@dataclass(repr=False)
class _Held:
    """A token in memory, with its times in unix seconds."""

    token: str
    expires_at: float
    renew_at: float


class AzureCredential:
    """Tokens of Microsoft Entra through azure.identity, one in memory per scope.

    A token is renewed 300 seconds before it ends (a quarter of its life where that is shorter); while a
    renewal fails, one that has not ended is still used. `open_source` makes the azure.identity credential;
    `tenant_id` asks for another tenant than the credential's own.
    """

    renewable = True

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        clock: Callable[[], float] = time.time,
        open_source: Callable[[], Any] | None = None,
    ) -> None:
        self._tenant_id = tenant_id
        self._clock = clock
        self._open_source = open_source or (lambda: _default_source(tenant_id))
        self._source: Any = None
        self._held: dict[str, _Held] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"AzureCredential(tenant_id={self._tenant_id!r})"

    @property
    def source(self) -> Any:
        """The azure.identity credential itself, for the Azure packages (azure-ai-ml, azure-storage-blob)."""
        with self._lock:
            if self._source is None:
                quiet_sdk_logs()
                self._source = self._open_source()
            return self._source

    def forget(self) -> None:
        """Sign in anew at the next need: tokens in memory and the azure.identity credential are dropped."""
        with self._lock:
            self._source = None
            self._held.clear()

    def headers(self, scope: str, *, fresh: bool = False, claims: str = "") -> Mapping[str, str]:
        """`Authorization: Bearer TOKEN` for a scope such as https://management.azure.com/.default."""
        return {"Authorization": f"Bearer {self.token(scope, fresh=fresh, claims=claims)}"}

    def token(self, scope: str, *, fresh: bool = False, claims: str = "") -> str:
        """A token for a scope; never show it. Raises AccessDeniedError, UnavailableError."""
        with self._lock:
            held, now = self._held.get(scope), self._clock()
            if held is not None and not fresh and not claims and now < held.renew_at:
                return held.token
            if fresh and not claims:
                self._source = None  # azure.identity would give the refused token again from its own memory
            try:
                renewed = self._ask(scope, claims)
            except ServiceError:
                if held is not None and not fresh and not claims and now < held.expires_at:
                    return held.token
                raise
            self._held[scope] = renewed
            return renewed.token

    def _ask(self, scope: str, claims: str) -> _Held:
        options: dict[str, str] = {"claims": claims} if claims else {}
        if self._tenant_id:
            options["tenant_id"] = self._tenant_id
        try:
            found = self.source.get_token(scope, **options)
        except Exception as error:  # noqa: BLE001  azure.identity raises its own, msal's and the OS's errors alike
            raise _sign_in_failure(error) from None
        now = self._clock()
        life = max(0.0, float(found.expires_on) - now)
        renew_at = found.expires_on - min(RENEWED_BEFORE_S, life / 4)
        return _Held(found.token, float(found.expires_on), renew_at)


def open_credential(settings: Settings, *, clock: Callable[[], float] = time.time) -> AzureCredential:
    """The credential that the settings ask for; nothing is sent yet.

    AZURE_CLIENT_* of .env, which azure.identity does not read, are handed to it.
    """

    def open_source() -> Any:
        tenant, client = settings.azure_tenant_id, settings.azure_client_id
        secret, certificate = settings.azure_client_secret, settings.azure_client_certificate_path
        if tenant and client and "AZURE_CLIENT_ID" not in os.environ:
            from azure.identity import CertificateCredential, ClientSecretCredential

            if secret:
                return ClientSecretCredential(tenant, client, secret.get_secret_value())
            if certificate:
                return CertificateCredential(tenant, client, str(certificate))
        return _default_source(tenant)

    return AzureCredential(tenant_id=settings.azure_tenant_id, clock=clock, open_source=open_source)


def _default_source(tenant_id: str | None) -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(
        additionally_allowed_tenants=[tenant_id] if tenant_id else [],
        exclude_interactive_browser_credential=True,
    )


def _sign_in_failure(error: Exception) -> ServiceError:
    """One sentence out of azure.identity's page of text, without any of its secrets."""
    if isinstance(error, OSError) and error.filename:
        return AccessDeniedError(
            f"Cannot sign in to Azure: {one_line(error.filename)} cannot be read.",
            hint="Check AZURE_CLIENT_CERTIFICATE_PATH.",
            operation="sign in",
            code="CredentialUnavailable",
        )
    text = str(error)
    names = {cls.__name__ for cls in type(error).__mro__}
    refused = _ATTEMPT.search(text)
    is_cut_off = refused is not None and _NO_WAY.search(refused[2]) is not None
    if isinstance(error, OSError) or is_cut_off or names & {"ServiceRequestError", "ServiceResponseError"}:
        return UnavailableError(
            "Cannot sign in to Azure: the sign-in service cannot be reached.",
            hint="Check the network, the proxy (HTTPS_PROXY) and the certificates (REQUESTS_CA_BUNDLE).",
            operation="sign in",
            code="SignInUnavailable",
        )
    problem, correlation = _PROBLEM.search(text), _CORRELATION.search(text)
    if problem is None:
        said = (
            "no Azure credential works here" if names & {"CredentialUnavailableError"} else "it was refused"
        )
        if refused is not None:
            said = f"{refused[1]} was refused: {one_line(refused[2]).rstrip('. ')}"
        elif "ChainedTokenCredential" in text or "DefaultAzureCredential" in text or "\n" in text.strip():
            said = "no Azure credential works here"
        code, hint = "CredentialUnavailable", SIGN_IN
    else:
        code = problem.group()
        said = one_line(_TRACE.sub("", text[problem.start() :].splitlines()[0])).rstrip(". ")
        hint = _HINTS.get(code, SIGN_IN)
    return AccessDeniedError(
        f"Cannot sign in to Azure: {said}.",
        hint=hint,
        operation="sign in",
        code=code,
        request_id=correlation.group(1) if correlation else "",
    )
