"""`.env.example` and Settings name the same variables, each with a line that explains it."""

from __future__ import annotations

from pathlib import Path

import pytest

from maas_client.errors import SettingsError
from maas_client.settings import Settings, settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def variables() -> list[tuple[str, str]]:
    """(name, the comment line above it) for each variable of the example."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    return [
        (line.partition("=")[0], lines[number - 1])
        for number, line in enumerate(lines)
        if line and not line.startswith("#")
    ]


def test_the_example_lists_what_settings_read_and_nothing_else() -> None:
    names = [name for name, _ in variables()]
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "comment"), variables())
def test_each_variable_is_explained_and_empty(name: str, comment: str) -> None:
    assert comment.startswith("# ")
    assert len(comment) > 15
    assert f"\n{name}=\n" in EXAMPLE.read_text(encoding="utf-8")


def test_the_example_itself_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(EXAMPLE.read_bytes())
    assert all(value is None for value in settings().model_dump().values())


def test_a_secret_of_dotenv_is_read_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "AZURE_OPENAI_API_KEY=topsecret\nAZURE_OPENAI_ENDPOINT=https://r.openai.azure.com/\n"
    )
    found = settings()
    assert found.azure_openai_api_key is not None
    assert found.azure_openai_api_key.get_secret_value() == "topsecret"
    assert found.azure_openai_endpoint == "https://r.openai.azure.com"
    assert "topsecret" not in repr(found) + str(found.model_dump())


@pytest.mark.parametrize(
    "value", ["r.openai.azure.com", "http://r.openai.azure.com", "https://", "https://u:p@h", "x://["]
)
def test_an_address_that_is_none_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", value)
    with pytest.raises(SettingsError) as caught:
        settings()
    assert caught.value.message == "AZURE_OPENAI_ENDPOINT: must be an https:// address."


def test_plain_http_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARM_CLOUD_METADATA_URL", "http://127.0.0.1:9/metadata/endpoints")
    assert settings().arm_cloud_metadata_url == "http://127.0.0.1:9/metadata/endpoints"
