"""Tokens: kept, renewed before they end, never shown; failures are one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.identity import CredentialUnavailableError
from hypothesis import given
from hypothesis import strategies as st
from loopback import Call, Reply, Sleeper, in_turn, loopback
from pydantic import SecretStr

from maas_client.errors import AccessDeniedError, ServiceError, UnavailableError
from maas_client.settings import Settings
from maas_client.transport.credential import AzureCredential, KeyCredential, open_credential
from maas_client.transport.rest import Rest

ROOT = Path(__file__).parents[2]
SCOPE = "https://management.azure.com/.default"
START = 1_800_000_000.0


@dataclass
class Source:
    """An identity provider: tokens with a life in seconds, or an error."""

    sleeper: Sleeper
    life_s: float = 3600
    error: Exception | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    opened: int = 0

    def open(self) -> Source:
        self.opened += 1
        return self

    def get_token(self, scope: str, **options: str) -> AccessToken:
        if self.error is not None:
            raise self.error
        self.asked.append((scope, options))
        return AccessToken(f"token-{len(self.asked)}", int(self.sleeper.now + self.life_s))


def credential(source: Source, **options: Any) -> AzureCredential:
    return AzureCredential(clock=source.sleeper.clock, open_source=source.open, **options)


def test_a_token_is_asked_for_once_per_scope() -> None:
    source = Source(Sleeper(START))
    tokens = credential(source)
    assert source.opened == 0
    assert tokens.headers(SCOPE) == tokens.headers(SCOPE) == {"Authorization": "Bearer token-1"}
    assert tokens.token("https://ml.azure.com/.default") == "token-2"
    assert [scope for scope, _ in source.asked] == [SCOPE, "https://ml.azure.com/.default"]


@given(life_s=st.integers(1, 90_000), looks=st.lists(st.floats(0, 5000), max_size=30))
def test_a_token_in_use_has_not_ended(life_s: int, looks: list[float]) -> None:
    source = Source(Sleeper(START), life_s=life_s)
    tokens = credential(source)
    given_at: dict[str, float] = {}
    for step in looks:
        source.sleeper.now += step
        given_at.setdefault(token := tokens.token(SCOPE), source.sleeper.now)
        assert source.sleeper.now <= given_at[token] + life_s
        left_s = given_at[token] + life_s - source.sleeper.now
        assert left_s >= min(300, life_s / 4) - 2


def test_a_token_is_renewed_five_minutes_before_its_end() -> None:
    source = Source(Sleeper(START))
    tokens = credential(source)
    tokens.token(SCOPE)
    source.sleeper.now += 3299
    assert tokens.token(SCOPE) == "token-1"
    source.sleeper.now += 1
    assert tokens.token(SCOPE) == "token-2"


def test_while_renewal_fails_a_living_token_is_used() -> None:
    source = Source(Sleeper(START))
    tokens = credential(source)
    tokens.token(SCOPE)
    source.error = ServiceRequestError("no network")
    source.sleeper.now += 3500
    assert tokens.token(SCOPE) == "token-1"
    source.sleeper.now += 200
    with pytest.raises(UnavailableError):
        tokens.token(SCOPE)


def test_fresh_opens_the_source_again_and_claims_go_along() -> None:
    source = Source(Sleeper(START))
    tokens = credential(source, tenant_id="contoso")
    tokens.token(SCOPE)
    assert tokens.token(SCOPE, fresh=True) == "token-2"
    assert source.opened == 2
    tokens.token(SCOPE, claims='{"a":1}')
    assert source.asked[-1] == (SCOPE, {"claims": '{"a":1}', "tenant_id": "contoso"})
    assert source.opened == 2


AADSTS = (
    "Authentication failed: AADSTS{}: {} Trace ID: 1d5f8ff0-0000-0000-0000-000000000000 "
    "Correlation ID: 7a982825-cd57-4f27-ad37-c9f5237e83d6 Timestamp: 2026-11-23 00:00:00Z"
)


@pytest.mark.parametrize(
    ("number", "said", "hint"),
    [
        (7000215, "Invalid client secret provided.", "AZURE_CLIENT_SECRET"),
        (90002, "Tenant 'x' not found.", "AZURE_TENANT_ID"),
        (700082, "The refresh token has expired due to inactivity.", "has expired"),
        (700024, "Client assertion is not within its valid time range.", "clock"),
        (99999999, "Something new.", "az login"),
    ],
)
def test_what_entra_refuses_is_one_sentence(number: int, said: str, hint: str) -> None:
    source = Source(Sleeper(START), error=ClientAuthenticationError(AADSTS.format(number, said)))
    with pytest.raises(AccessDeniedError) as caught:
        credential(source).token(SCOPE)
    error = caught.value
    assert error.message == f"Cannot sign in to Azure: AADSTS{number}: {said}"
    assert error.code == f"AADSTS{number}"
    assert error.request_id == "7a982825-cd57-4f27-ad37-c9f5237e83d6"
    assert hint in error.hint


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CredentialUnavailableError("EnvironmentCredential: not configured"), AccessDeniedError),
        (
            ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token\nA: x\nB: y"),
            AccessDeniedError,
        ),
        (
            ClientAuthenticationError(
                "DefaultAzureCredential failed\n\tEnvironmentCredential: Authentication "
                "failed: HTTPSConnection(host='login.microsoftonline.com', port=443): Failed to resolve"
            ),
            UnavailableError,
        ),
        (ServiceRequestError("Failed to resolve login.microsoftonline.com"), UnavailableError),
        (OSError("no route"), UnavailableError),
        (ValueError("bad tenant"), AccessDeniedError),
    ],
)
def test_other_failures_too(error: Exception, kind: type[ServiceError]) -> None:
    with pytest.raises(ServiceError) as caught:
        credential(Source(Sleeper(START), error=error)).token(SCOPE)
    assert type(caught.value) is kind
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_credential_that_was_tried_and_refused_is_named() -> None:
    text = "It failed\n\tEnvironmentCredential: Authentication failed: bad certificate.\n\tB: x"
    with pytest.raises(AccessDeniedError, match=r"EnvironmentCredential was refused: bad certificate\.$"):
        credential(Source(Sleeper(START), error=ClientAuthenticationError(text))).token(SCOPE)


def test_secrets_are_in_no_error_and_no_repr() -> None:
    secret = "Zq7" + "x" * 40
    error = ClientAuthenticationError(f"AADSTS7000215: client_secret={secret} is wrong; Bearer {secret}")
    tokens = credential(Source(Sleeper(START), error=error))
    with pytest.raises(AccessDeniedError) as caught:
        tokens.token(SCOPE)
    shown = "".join(traceback.format_exception(caught.value))
    assert secret not in shown
    key = KeyCredential(secret)
    assert secret not in repr(key) + str(key) + repr(tokens)
    assert key.headers("any") == {"api-key": secret}
    bearer = KeyCredential(secret, "Authorization", "Bearer ")
    assert bearer.headers("any", fresh=True) == {"Authorization": f"Bearer {secret}"}


def identity_service(lives: list[int]) -> Callable[[Call], Reply]:
    """The managed-identity protocol of App Service: each token lives so many seconds from START."""

    def answer(call: Call) -> Reply:
        assert call.headers["x-identity-header"] == "let-me-in"
        number = len(lives)
        ends = int(time.time()) + lives.pop(0)
        return Reply(200, {"access_token": f"real-{number}", "expires_on": str(ends), "token_type": "Bearer"})

    return answer


def test_the_real_default_credential_signs_our_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"error": {"code": "ExpiredAuthenticationToken", "message": "The access token has expired."}}

    def arm(call: Call) -> Reply:
        return (
            Reply(200, {"ok": 1}) if call.headers["authorization"] == "Bearer real-1" else Reply(401, refused)
        )

    with loopback(identity_service([86_000, 86_000])) as identity, loopback(arm) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "let-me-in")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        tokens = open_credential(Settings())
        with Rest(server.url, tokens, SCOPE) as rest:
            assert rest.get("/x").body == {"ok": 1}
            rest.get("/x")
    assert len(identity.calls) == 2
    assert [call.headers["authorization"][-6:] for call in server.calls] == ["real-2", "real-1", "real-1"]
    assert "resource=https://management.azure.com" in identity.calls[0].target


def test_no_login_at_all_is_one_sentence_and_no_talk() -> None:
    code = "from maas_client.settings import settings; from maas_client.transport.credential import *\n"
    code += "try: open_credential(settings()).token('https://a/.default')\n"
    code += "except AccessDeniedError as error: print(error.message)"
    environment = {**os.environ, "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "Cannot sign in to Azure: no Azure credential works here.\n"
    assert done.stderr == ""


def test_no_login_at_all_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(AccessDeniedError) as caught:
        open_credential(Settings()).token(SCOPE)
    assert caught.value.message == "Cannot sign in to Azure: no Azure credential works here."
    assert "az login" in caught.value.hint


def test_a_refusing_identity_service_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback(
        in_turn(Reply(400, {"statusCode": 400, "message": "No managed identity found"}))
    ) as identity:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "let-me-in")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        with pytest.raises(AccessDeniedError) as caught:
            open_credential(Settings()).token(SCOPE)
    assert caught.value.hint


def test_a_client_of_dotenv_is_handed_over() -> None:
    from azure.identity import ClientSecretCredential

    settings = Settings(azure_tenant_id="t", azure_client_id="c", azure_client_secret=SecretStr("s"))
    assert isinstance(open_credential(settings).source, ClientSecretCredential)


def test_a_certificate_of_dotenv_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    settings = Settings(
        azure_tenant_id="t", azure_client_id="c", azure_client_certificate_path=tmp_path / "none.pem"
    )
    with pytest.raises(ServiceError) as caught:
        open_credential(settings).token(SCOPE)
    assert "none.pem" in caught.value.message
