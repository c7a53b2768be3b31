"""Tokens go to the service's own hosts only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.transport.trust import TrustedHosts, absolute, harmless

ARM = TrustedHosts(
    "https://management.azure.com", [".management.azure.com", "eastus.api.azureml.ms", "localhost:8443"]
)


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://management.azure.com/x", True),
        ("https://MANAGEMENT.azure.com:443/x", True),
        ("https://eastus.management.azure.com/x?c=1", True),
        ("https://eastus.api.azureml.ms/history", True),
        ("https://localhost:8443/x", True),
        ("http://localhost:8443/x", True),
        ("http://management.azure.com/x", False),
        ("https://management.azure.com:8443/x", False),
        ("https://management.azure.com.evil.example/x", False),
        ("https://evilmanagement.azure.com/x", False),
        ("https://evil.example/management.azure.com", False),
        ("https://management.azure.com@evil.example/x", False),
        ("https://user@management.azure.com/x", False),
        ("http://eastus.management.azure.com/x", False),
        ("https://eastus.management.azure.com:444/x", False),
        ("http://eastus.api.azureml.ms/history", False),
        ("https://localhost:8444/x", False),
        ("https://example.com", False),
        ("/relative", False),
        ("http://[x", False),
        ("https://management.azure.com:port/x", False),
        ("", False),
    ],
)
def test_who_may_see_a_token(url: str, trusted: bool) -> None:
    assert (url in ARM) is trusted


@given(st.text(max_size=60))
def test_a_stranger_by_any_name_is_none(host: str) -> None:
    name = "".join(letter for letter in host if letter.isalnum()) + ".example"
    assert f"https://{name}/x" not in ARM


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_no_header_with_a_secret_is_harmless(headers: dict[str, str]) -> None:
    secrets = {
        "Authorization": "t",
        "api-key": "k",
        "Cookie": "c",
        "x-azureml-token": "t",
        "X-IDENTITY-HEADER": "i",
    }
    assert not {name.lower() for name in secrets} & {
        name.lower() for name in harmless({**headers, **secrets})
    }
    assert harmless({"If-Match": "*", "Range": "bytes=0-"}) == {"If-Match": "*", "Range": "bytes=0-"}


def test_relative_and_whole_urls() -> None:
    assert absolute("https://h/a/b?x=1", "/c?s=%2B") == "https://h/c?s=%2B"
    assert absolute("https://h/a/b?x=1", "HTTPS://other/%2f") == "HTTPS://other/%2f"
    assert absolute("https://h/a/b", "c") == "https://h/a/c"
