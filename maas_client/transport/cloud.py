"""Which Azure: the public cloud, a sovereign one, or the one that a metadata URL describes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maas_client.errors import SettingsError
from maas_client.transport.trust import is_loopback

if TYPE_CHECKING:
    import httpx

    from maas_client.settings import Settings
    from maas_client.transport.credential import Credential
    from maas_client.transport.rest import Rest


@dataclass(frozen=True)
class Cloud:
    """Addresses of one Azure; URLs without a slash at their end."""

    name: str
    resource_manager: str
    login: str
    storage_suffix: str
    ml_resource: str

    @property
    def arm_scope(self) -> str:
        """The scope of tokens for Azure Resource Manager, run history and metrics."""
        return f"{self.resource_manager}/.default"

    @property
    def is_loopback(self) -> bool:
        """True for a cloud on this machine."""
        return is_loopback(self.resource_manager)

    @property
    def trusted_hosts(self) -> tuple[str, ...]:
        """Further hosts that may see a token for Azure Resource Manager: its regions."""
        host = self.resource_manager.partition("://")[2]
        return () if self.is_loopback else (f".{host}",)


PUBLIC = Cloud(
    "AzureCloud",
    "https://management.azure.com",
    "https://login.microsoftonline.com",
    "core.windows.net",
    "https://ml.azure.com",
)
US_GOVERNMENT = Cloud(
    "AzureUSGovernment",
    "https://management.usgovcloudapi.net",
    "https://login.microsoftonline.us",
    "core.usgovcloudapi.net",
    "https://ml.azure.us",
)
CHINA = Cloud(
    "AzureChinaCloud",
    "https://management.chinacloudapi.cn",
    "https://login.chinacloudapi.cn",
    "core.chinacloudapi.cn",
    "https://ml.azure.cn",
)
CLOUDS = {cloud.name: cloud for cloud in (PUBLIC, US_GOVERNMENT, CHINA)}


def open_cloud(settings: Settings, *, transport: httpx.BaseTransport | None = None) -> Cloud:
    """The cloud of the settings; asks ARM_CLOUD_METADATA_URL where that is set.

    Raises SettingsError, or ServiceError where the metadata cannot be read.
    """
    name, url = settings.azureml_current_cloud, settings.arm_cloud_metadata_url
    if name in CLOUDS:
        return CLOUDS[name]
    if url is None:
        if name is None:
            return PUBLIC
        raise SettingsError(
            f"AZUREML_CURRENT_CLOUD is {name}, which is not known.",
            hint=f"Take one of {', '.join(CLOUDS)}, or set ARM_CLOUD_METADATA_URL.",
        )
    from maas_client.transport.rest import Rest

    with Rest(url, transport=transport) as rest:
        body = rest.get(url, operation="read the cloud's metadata").body
    return read_clouds(body, url, name)


def read_clouds(body: Any, url: str, name: str | None = None) -> Cloud:
    """The cloud in a metadata document that is named, else whose resource manager is that of `url`."""
    listed = body if isinstance(body, list) else [body]
    clouds = [cloud for entry in listed if (cloud := _read_cloud(entry)) is not None]
    for cloud in clouds:
        if cloud.name == name or (name is None and url.startswith(f"{cloud.resource_manager}/")):
            return cloud
    if len(clouds) == 1 and name is None:
        return clouds[0]
    raise SettingsError(
        "ARM_CLOUD_METADATA_URL names no cloud that can be used.",
        hint="Unset it for public Azure, or correct it together with AZUREML_CURRENT_CLOUD.",
    )


def _read_cloud(entry: object) -> Cloud | None:
    if not isinstance(entry, Mapping):
        return None
    try:
        portal = str(entry["portal"])
        return Cloud(
            name=str(entry["name"]),
            resource_manager=str(entry["resourceManager"]).rstrip("/"),
            login=str(entry["authentication"]["loginEndpoint"]).rstrip("/"),
            storage_suffix=str(entry["suffixes"]["storage"]),
            ml_resource=f"https://ml.azure.{'.'.join(portal.split('.')[2:]).replace('/', '')}",
        )
    except (KeyError, TypeError):
        return None


def open_arm(
    cloud: Cloud,
    credential: Credential,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    transport: httpx.BaseTransport | None = None,
) -> Rest:
    """A client for Azure Resource Manager. Nothing is sent yet."""
    from maas_client.transport.rest import Rest

    return Rest(
        cloud.resource_manager,
        credential,
        cloud.arm_scope,
        clock=clock,
        sleep=sleep,
        transport=transport,
        trusted_hosts=cloud.trusted_hosts,
    )
