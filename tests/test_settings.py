"""Settings: the environment wins over .env, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from maas_client.errors import SettingsError
from maas_client.project import open_project
from maas_client.settings import settings


def test_nothing_is_set(empty_home: Path) -> None:
    assert settings().maas_home is None


def test_a_line_of_dotenv_counts(empty_home: Path) -> None:
    (empty_home / ".env").write_text("OTHER=1\nMAAS_HOME=/srv/maas\n")
    assert settings().maas_home == Path("/srv/maas")
    assert open_project().home == Path("/srv/maas")


def test_the_environment_wins_over_dotenv(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_home / ".env").write_text("MAAS_HOME=/srv/maas\n")
    monkeypatch.setenv("MAAS_HOME", "/srv/other")
    assert settings().maas_home == open_project().home == Path("/srv/other")
    monkeypatch.setenv("MAAS_HOME", "")
    assert open_project().home == Path("/srv/maas")


def test_a_dotenv_that_is_no_text(empty_home: Path) -> None:
    (empty_home / ".env").write_bytes(b"MAAS_HOME=\xff\xfe")
    with pytest.raises(SettingsError) as caught:
        open_project()
    assert caught.value.message == ".env is not UTF-8 text."


def test_every_variable_is_in_the_example() -> None:
    text = (Path(__file__).parent.parent / ".env.example").read_text(encoding="utf-8")
    for name in type(settings()).model_fields:
        assert f"{name.upper()}=" in text
