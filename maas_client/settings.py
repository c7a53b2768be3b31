"""Settings: the environment and .env. .env.example lists every variable that is read here."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from maas_client.errors import SettingsError


class Settings(BaseSettings):
    """What the environment says. Variables that are set win over lines of .env in the working directory."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True
    )

    maas_home: Path | None = None
    """MAAS_HOME: the folder of runs, models, endpoints and the ledger, instead of the project's .maas/."""


def settings() -> Settings:
    """The settings as they are now. Raises SettingsError that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "the environment"
        raise SettingsError(
            f"{name}: {first['msg']}.", hint="Correct it in the environment or in .env."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(".env is not UTF-8 text.", hint="Save it as UTF-8.") from error
