"""Where packages learn what cloud this is: cloud metadata, discovery, and tokens in both of their ways."""

from __future__ import annotations

import time
import uuid

from maas_client.simulator.replies import Refusal, Reply
from maas_client.simulator.routing import Call, Operation
from maas_client.simulator.world import World

CLOUD = "MaasSimulator"
PORTAL = "https://portal.azure.simulated/"
STORAGE_SUFFIX = "core.simulated"
ML_AUDIENCE = "https://ml.azure.simulated"
_AUDIENCES = (
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://ml.azure.com",
    "https://ai.azure.com",
    "https://cognitiveservices.azure.com",
)


def audiences(base_url: str) -> tuple[str, ...]:
    """What a token may be for, to be accepted here."""
    return (base_url, ML_AUDIENCE, *_AUDIENCES)


def clouds(call: Call) -> Reply:
    """GET of ARM_CLOUD_METADATA_URL: one cloud, whose every endpoint is this server."""
    base = call.world.base_url
    cloud = {
        "name": CLOUD,
        "portal": PORTAL,
        "resourceManager": f"{base}/",
        "authentication": {
            "loginEndpoint": base,
            "audiences": [f"{base}/"],
            "tenant": call.world.names.tenant,
            "identityProvider": "AAD",
        },
        "suffixes": {"storage": STORAGE_SUFFIX, "keyVaultDns": "vault.simulated"},
    }
    return Reply(200, [cloud])


def discovery(call: Call) -> Reply:
    """GET of a workspace's discoveryUrl: the data planes."""
    base = call.world.base_url
    planes = (
        *("api", "catalog", "experimentation", "gallery", "history", "hyperdrive", "labeling"),
        *("modelmanagement", "pipelines"),
    )
    return Reply(200, {**dict.fromkeys(planes, base), "studio": PORTAL.rstrip("/")})


def registry_discovery(call: Call) -> Reply:
    """GET of a registry: where its models are listed."""
    names, name = call.world.names, call.params["registry"]
    return Reply(
        200,
        {
            "registryId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"registry {name}")),
            "registryName": name,
            "tenantId": names.tenant,
            "workspaceName": None,
            "regions": [names.location],
            "registryFqdns": {names.location: {"uri": call.world.base_url}},
            "primaryRegionResourceProviderUri": f"{call.world.base_url}/",
            "resourceGroup": names.resource_group,
            "subscriptionId": names.subscription,
            "additionalRegions": [],
            "primaryRegion": names.location,
        },
    )


def managed_identity(call: Call) -> Reply:
    """GET of IDENTITY_ENDPOINT, as App Service answers it; the header must carry IDENTITY_HEADER."""
    if call.headers.get("x-identity-header") != call.world.environment.get("IDENTITY_HEADER"):
        raise Refusal(401, "Unauthorized", "The header X-IDENTITY-HEADER is missing or wrong.", inner=None)
    resource = call.query.get("resource", "")
    token, ends = call.world.tokens.issue(resource)
    return Reply(
        200,
        {
            "access_token": token,
            "expires_on": str(int(ends)),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": "00000000-0000-0000-0000-0000000051a2",
        },
    )


def oauth_token(call: Call) -> Reply:
    """POST for client credentials: the secret is the one of IDENTITY_HEADER, any client may use it."""
    form = call.form
    if form.get("client_secret") != call.world.environment.get("IDENTITY_HEADER"):
        words = "AADSTS7000215: Invalid client secret provided."
        return Reply(401, {"error": "invalid_client", "error_description": words})
    audience = form.get("scope", "").removesuffix("/.default")
    token, ends = call.world.tokens.issue(audience)
    return Reply(200, {"token_type": "Bearer", "expires_in": int(ends - time.time()), "access_token": token})


def openid_configuration(call: Call) -> Reply:
    """GET of what a sign-in library asks an authority first."""
    start = f"{call.world.base_url}/{call.world.names.tenant}"
    return Reply(
        200,
        {
            "issuer": f"{start}/v2.0",
            "token_endpoint": f"{start}/oauth2/v2.0/token",
            "authorization_endpoint": f"{start}/oauth2/v2.0/authorize",
        },
    )


def environment(world: World, *, ca_bundle: str, identity_header: str) -> dict[str, str]:
    """The variables that make the Azure packages talk to this server and to nothing else."""
    names = world.names
    variables = {
        "ARM_CLOUD_METADATA_URL": f"{world.base_url}/metadata/endpoints",
        "REGISTRY_DISCOVERY_ENDPOINT_URL": f"{world.base_url}/",
        "IDENTITY_ENDPOINT": f"{world.base_url}/msi/token",
        "IDENTITY_HEADER": identity_header,
        "AZURE_SUBSCRIPTION_ID": names.subscription,
        "AZURE_RESOURCE_GROUP": names.resource_group,
        "AZUREML_WORKSPACE_NAME": names.workspace,
        "AZURE_LOCATION": names.location,
        "AZURE_TENANT_ID": names.tenant,
        "AZURE_OPENAI_ENDPOINT": world.base_url,
        "FOUNDRY_PROJECT_ENDPOINT": f"{world.base_url}/api/projects/simulated-project",
        "NO_PROXY": "localhost,127.0.0.1",
        "no_proxy": "localhost,127.0.0.1",
        "MAAS_SIMULATOR_URL": world.base_url,
        "MAAS_SIMULATOR_KEY": world.admin_key,
    }
    if ca_bundle:
        variables |= {
            "REQUESTS_CA_BUNDLE": ca_bundle,
            "SSL_CERT_FILE": ca_bundle,
            "CURL_CA_BUNDLE": ca_bundle,
        }
    return variables


def operations(world: World) -> list[Operation]:
    """The paths of this module; those of the directory carry the tenant's id."""
    tenant = world.names.tenant
    return [
        Operation("GET", "/metadata/endpoints", clouds),
        Operation("GET", "/discovery", discovery),
        Operation("GET", "/registrymanagement/v1.0/registries/{registry}/discovery", registry_discovery),
        Operation("GET", "/msi/token", managed_identity),
        Operation("POST", f"/{tenant}/oauth2/v2.0/token", oauth_token),
        Operation("GET", f"/{tenant}/v2.0/.well-known/openid-configuration", openid_configuration),
    ]
