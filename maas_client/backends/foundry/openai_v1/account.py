"""The Foundry resource that the settings name: its address, and the account in Resource Manager behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from maas_client.errors import NotFoundError, SettingsError
from maas_client.transport.cloud import Cloud, open_arm, open_cloud
from maas_client.transport.credential import AzureCredential, Credential, KeyCredential, open_credential
from maas_client.transport.members import mapping_at, member, text_at
from maas_client.transport.trust import is_loopback, parts_of

if TYPE_CHECKING:
    import httpx

    from maas_client.settings import Settings
    from maas_client.transport.openai_client import OpenAIService
    from maas_client.transport.rest import Rest

API_VERSION = "2024-10-01"
_PROVIDER = "Microsoft.CognitiveServices"
_UNSET_HINT = (
    "Set AZURE_OPENAI_ENDPOINT=https://RESOURCE.openai.azure.com, or FOUNDRY_PROJECT_ENDPOINT, "
    "in the environment or in .env."
)
_SUBSCRIPTION_HINT = (
    "Set AZURE_SUBSCRIPTION_ID (and AZURE_RESOURCE_GROUP) to those of the Foundry resource: deployments are "
    "made by Azure Resource Manager."
)


@dataclass(frozen=True)
class Resource:
    """A Foundry resource, or a project in it. `endpoint` is above /openai/v1, `scope` what tokens are for."""

    name: str
    endpoint: str
    scope: str
    project: str = ""

    def __str__(self) -> str:
        of = f"project {self.project} of " if self.project else ""
        return f"{of}Foundry resource {self.name} ({self.host})"

    @property
    def host(self) -> str:
        """The host of the address, without a port: the one of a simulator changes with every start."""
        return parts_of(self.endpoint).hostname or self.endpoint


def find_resource(settings: Settings) -> Resource:
    """The resource of the settings; AZURE_OPENAI_ENDPOINT goes before FOUNDRY_PROJECT_ENDPOINT.

    Raises SettingsError where neither is set.
    """
    address = settings.azure_openai_endpoint or settings.foundry_project_endpoint
    if not address:
        raise SettingsError("The Foundry resource is not set.", hint=_UNSET_HINT)
    endpoint = address.partition("/openai")[0].rstrip("/")
    host = parts_of(endpoint).hostname or ""
    project = endpoint.partition("/api/projects/")[2].partition("/")[0]
    return Resource(host.partition(".")[0], endpoint, _scope(host, bool(project)), project)


def _scope(host: str, is_project: bool) -> str:
    """What a token must be for, by the cloud of the host."""
    suffix = next((end for end in ("azure.us", "azure.cn") if host.endswith(f".{end}")), "azure.com")
    return f"https://{'ai' if is_project else 'cognitiveservices'}.{suffix}/.default"


@dataclass(frozen=True)
class AccountFacts:
    """What Resource Manager says of the account. `keys_disabled`: it takes tokens only."""

    id: str
    name: str
    location: str
    kind: str
    keys_disabled: bool


class Account:
    """One Foundry resource, opened without a word to it. `key` is one of the resource's, None: sign in.

    `subscription` and `group` say where Resource Manager has it; they are needed for deployments only.
    `find_cloud` gives the cloud when it is first asked for. `transport` replaces the network.
    """

    def __init__(
        self,
        resource: Resource,
        credential: AzureCredential,
        find_cloud: Callable[[], Cloud],
        *,
        key: str | None = None,
        subscription: str | None = None,
        group: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.resource = resource
        self.credential = credential
        self.key = key
        self.subscription = subscription
        self.group = group
        self.clock = clock
        self.sleep = sleep
        self._find_cloud = find_cloud
        self._transport = transport

    @cached_property
    def service(self) -> OpenAIService:
        """The OpenAI v1 API of the resource."""
        from maas_client.transport.openai_client import OpenAIService

        signer: Credential = KeyCredential(self.key) if self.key else self.credential
        return OpenAIService(
            self.resource.endpoint,
            signer,
            self.resource.scope,
            clock=self.clock,
            sleep=self.sleep,
            transport=self._transport,
        )

    @cached_property
    def cloud(self) -> Cloud:
        """The cloud of the account."""
        return self._find_cloud()

    @cached_property
    def arm(self) -> Rest:
        """Azure Resource Manager."""
        return open_arm(
            self.cloud, self.credential, clock=self.clock, sleep=self.sleep, transport=self._transport
        )

    @property
    def params(self) -> dict[str, str | int | None]:
        """The api-version of every request to Resource Manager about the account."""
        return {"api-version": API_VERSION}

    @cached_property
    def facts(self) -> AccountFacts:
        """The account behind the address, looked up once. Raises SettingsError, NotFoundError."""
        if not self.subscription:
            raise SettingsError(
                "The subscription of the Foundry resource is not set.", hint=_SUBSCRIPTION_HINT
            )
        place = f"/subscriptions/{quote(self.subscription)}"
        if self.group:
            place += f"/resourceGroups/{quote(self.group)}"
        rows = self.arm.paging(
            f"{place}/providers/{_PROVIDER}/accounts",
            params=self.params,
            operation="find the Foundry resource",
        )
        for row in rows:
            if isinstance(row, Mapping) and _is_at(row, self.resource):
                return _read_account(row)
        where = (
            f"resource group {self.group} of subscription {self.subscription}"
            if self.group
            else (f"subscription {self.subscription}")
        )
        raise NotFoundError(
            f"There is no account with the address {self.resource.host} in {where}.",
            operation="find the Foundry resource",
            hint="Check AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_OPENAI_ENDPOINT.",
        )

    def path(self, *parts: str) -> str:
        """The account's path in Resource Manager, or that of something in it."""
        return "/".join([self.facts.id, *(quote(part, safe="") for part in parts)])


def open_account(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Account:
    """The account of the settings; nothing is sent. Raises SettingsError."""
    key = settings.azure_openai_api_key
    return Account(
        find_resource(settings),
        open_credential(settings, clock=clock),
        lambda: open_cloud(settings),
        key=key.get_secret_value() if key else None,
        subscription=settings.azure_subscription_id,
        group=settings.azure_resource_group,
        clock=clock,
        sleep=sleep,
    )


def _is_at(row: Mapping[str, Any], resource: Resource) -> bool:
    """Whether an account has the resource's address: by its own domain, or by one of its endpoints."""
    if text_at(row, "properties", "customSubDomainName").lower() == resource.name.lower():
        return True
    more = mapping_at(row, "properties", "endpoints").values()
    addresses = [text_at(row, "properties", "endpoint"), *(each for each in more if isinstance(each, str))]
    ours = parts_of(resource.endpoint)
    wanted = ours.netloc if is_loopback(resource.endpoint) else ours.hostname
    return any(
        wanted == (parts_of(each).netloc if is_loopback(each) else parts_of(each).hostname)
        for each in addresses
    )


def _read_account(row: Mapping[str, Any]) -> AccountFacts:
    return AccountFacts(
        id=text_at(row, "id"),
        name=text_at(row, "name"),
        location=text_at(row, "location"),
        kind=text_at(row, "kind"),
        keys_disabled=bool(member(row, "properties", "disableLocalAuth")),
    )
