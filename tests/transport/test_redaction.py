"""No secret of any kind gets through, in any text, and harmless text stays readable."""

from __future__ import annotations

import base64
import json
import logging
import string
import time
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.transport.redaction import quiet_http_logs, redact, shown_url

WORDS = st.text(string.ascii_letters + string.digits + " .,:/-\n", max_size=40)
KEY_CHARACTERS = string.ascii_letters + string.digits
KEYS = st.text(KEY_CHARACTERS, min_size=24, max_size=64).map(lambda text: "Zq7" + text)
BASE64_KEYS = st.binary(min_size=64, max_size=64).map(lambda raw: base64.b64encode(raw).decode())
SEGMENTS = st.text(KEY_CHARACTERS + "_-", min_size=20, max_size=60)
TOKENS = st.tuples(SEGMENTS, SEGMENTS, SEGMENTS).map(lambda parts: "eyJ" + ".".join(parts))

PLACES = [
    "Authorization: Bearer {}",
    '"Authorization": "Bearer {}"',
    "{{'authorization': 'bearer {}'}}",
    "Authorization: Basic {}",
    "api-key: {}",
    '{{"api-key": "{}"}}',
    "Ocp-Apim-Subscription-Key={}",
    "https://x.blob.core.windows.net/c/b?sv=2024-01-01&sig={}&se=2026-11-23",
    "https://x.blob.core.windows.net/c/b?sig={}",
    "https://management.azure.com/operations/1?api-version=1&t=6385&c=MIIH&s={}&h=abc",
    "https://management.azure.com/operations/1?c={}&h=x",
    "https://host/path?code={}&x=1",
    "AccountName=a;AccountKey={};EndpointSuffix=core.windows.net",
    "Endpoint=sb://a;SharedAccessKeyName=n;SharedAccessKey={}",
    "SharedAccessSignature={};x",
    "client_secret={}&grant_type=client_credentials",
    '{{"clientSecret":"{}"}}',
    '{{\\"client_secret\\": \\"{}\\"}}',
    "client_assertion={}",
    '{{"access_token": "{}", "expires_in": 3600}}',
    '{{"primaryKey": "{}", "secondaryKey": "x"}}',
    '{{"key1":"{}"}}',
    '{{"token": "{}"}}',
    "password: {}",
    '{{"adminUserPassword": "{}"}}',
    "InstrumentationKey={};IngestionEndpoint=https://x",
    "AZUREML_RUN_TOKEN={}",
    "HF_TOKEN: {}",
    "https://user:{}@host/path",
    "sig%3D{}%26se%3D1",
]


@pytest.mark.parametrize("place", PLACES)
@given(secret=st.one_of(KEYS, TOKENS), before=WORDS, after=WORDS)
def test_a_secret_in_its_place_is_hidden(place: str, secret: str, before: str, after: str) -> None:
    text = f"{before} {place.format(secret)} {after}"
    shown = redact(text)
    assert secret not in shown
    assert "***" in shown


@given(secret=st.one_of(TOKENS, BASE64_KEYS), before=WORDS, after=WORDS)
def test_tokens_and_account_keys_are_known_by_their_shape(secret: str, before: str, after: str) -> None:
    assert secret not in redact(f"{before} {secret} {after}")


@given(key=BASE64_KEYS)
def test_a_connection_string_keeps_its_account(key: str) -> None:
    shown = redact(f"DefaultEndpointsProtocol=https;AccountName=store;AccountKey={key};EndpointSuffix=x")
    assert shown == "DefaultEndpointsProtocol=https;AccountName=store;AccountKey=***;EndpointSuffix=x"


@given(secret=st.text(min_size=8, max_size=40), text=WORDS)
def test_secrets_that_are_known_by_value_are_hidden(secret: str, text: str) -> None:
    shown = redact(f"{text}<{secret}> {quote(secret, safe='')}", [secret])
    assert f"<{secret}>" not in shown


@given(
    text=st.one_of(st.text(max_size=300), st.sampled_from(PLACES).map(lambda place: place.format("abc1" * 9)))
)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "key: /subscriptions/1/resourceGroups/rg/workspaces/ws, Message: Not found component c (version: 1).",
        "Bearer authentication is required.",
        "The operation 05b922ca7dd1926b07edfe07fe74d2ee failed; request 24faa594484fe670.",
        "Quota of Standard NCADSA100v4 Family vCPUs is 0.",
        "https://management.azure.com/subscriptions/1?api-version=2024-10-01&$skipToken=abc",
        "The keyword argument is unknown.",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert redact(text) == text


@given(blob=st.dictionaries(st.sampled_from(["sig", "accountKey", "x"]), KEYS, min_size=1))
def test_json_stays_json(blob: dict[str, str]) -> None:
    shown = json.loads(redact(json.dumps(blob)))
    assert {name: value for name, value in shown.items() if name != "x"} == {
        name: "***" for name in blob if name != "x"
    }


@pytest.mark.parametrize(
    "piece", ["a", "eyJ", "sig=", "secret", "://", 'key1="', "bearer ", "<code>", "Authorization", " "]
)
def test_long_text_takes_no_long_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 2


def test_a_shown_url_has_no_query_and_no_user() -> None:
    assert shown_url("https://u:p@host.net:8443/a/b?sig=abc&s=1#f") == "https://host.net:8443/a/b"
    assert shown_url("/a/b?sig=abc") == "/a/b"


def test_what_httpx_logs_holds_no_query(caplog: pytest.LogCaptureFixture) -> None:
    quiet_http_logs()
    quiet_http_logs()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx").info(
            'HTTP Request: %s %s "%s"', "GET", httpx.URL("https://h/p?s=SECRET"), "200"
        )
        logging.getLogger("httpcore.http11").debug("headers [(b'Location', b'https://h/p?c=SECRET')]")
    assert len(caplog.records) == 2
    assert "SECRET" not in caplog.text
    assert "https://h/p" in caplog.text
