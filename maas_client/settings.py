"""Settings: the environment and .env. .env.example lists every variable that is read here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from maas_client.errors import SettingsError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def _web_address(value: str) -> str:
    """An https URL (http on this machine) without a slash at its end."""
    try:
        parts = urlsplit(value.strip())
        is_plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
        usable = (parts.scheme == "https" or is_plain) and bool(parts.hostname) and not parts.username
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an https:// address")
    return value.strip().rstrip("/")


WebAddress = Annotated[str, AfterValidator(_web_address)]


class Settings(BaseSettings):
    """What the environment says. Variables that are set win over lines of .env in the working directory."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True
    )

    maas_home: Path | None = None
    """MAAS_HOME: the folder of runs, models, endpoints and the ledger, instead of the project's .maas/."""

    azure_subscription_id: str | None = None
    """AZURE_SUBSCRIPTION_ID: the subscription of the workspace or account."""

    azure_resource_group: str | None = None
    """AZURE_RESOURCE_GROUP: the resource group of the workspace or account."""

    azureml_workspace_name: str | None = None
    """AZUREML_WORKSPACE_NAME: the Azure ML workspace or hub-based project."""

    azure_location: str | None = None
    """AZURE_LOCATION: the region of new endpoints, instead of the workspace's own."""

    azure_tenant_id: str | None = None
    """AZURE_TENANT_ID: the tenant to sign in to, instead of the login's own."""

    azure_client_id: str | None = None
    """AZURE_CLIENT_ID: the app registration or managed identity to sign in as."""

    azure_client_secret: SecretStr | None = None
    """AZURE_CLIENT_SECRET: the app registration's secret."""

    azure_client_certificate_path: Path | None = None
    """AZURE_CLIENT_CERTIFICATE_PATH: a PEM file with certificate and key, instead of a secret."""

    foundry_project_endpoint: WebAddress | None = None
    """FOUNDRY_PROJECT_ENDPOINT: https://RESOURCE.services.ai.azure.com/api/projects/PROJECT."""

    azure_openai_endpoint: WebAddress | None = None
    """AZURE_OPENAI_ENDPOINT: https://RESOURCE.openai.azure.com."""

    azure_openai_api_key: SecretStr | None = None
    """AZURE_OPENAI_API_KEY: a key of that resource; without it the Azure login is used."""

    azureml_current_cloud: str | None = None
    """AZUREML_CURRENT_CLOUD: AzureCloud, AzureUSGovernment or AzureChinaCloud."""

    arm_cloud_metadata_url: WebAddress | None = None
    """ARM_CLOUD_METADATA_URL: where another Azure describes itself, such as the one of `maas simulate`."""


def settings() -> Settings:
    """The settings as they are now. Raises SettingsError that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "the environment"
        raise SettingsError(
            f"{name}: {first['msg'].removeprefix('Value error, ')}.",
            hint="Correct it in the environment or in .env.",
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(".env is not UTF-8 text.", hint="Save it as UTF-8.") from error
