"""The next thing to try after a refusal: by the service's own code first, then by the kind of error."""

from __future__ import annotations

from collections.abc import Sequence

from maas_client.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    QuotaError,
    RejectedError,
    ServiceError,
    UnavailableError,
)

SIGN_IN = "Sign in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
CHECK_KEY = "Check the key; a Foundry resource's is AZURE_OPENAI_API_KEY, and without it you sign in."
_ROLE = "Ask the owner for a role that allows it (Azure ML: AzureML Data Scientist), then wait some minutes."
_STORAGE_ROLE = "Ask for the role Storage Blob Data Contributor on the storage account."
_TENANT = "Set AZURE_TENANT_ID to the tenant of the subscription, or `az login --tenant`."
_REGISTER = (
    "Register the provider that the message names: "
    "`az provider register --namespace Microsoft.MachineLearningServices`."
)
_KEYLESS = f"The storage account takes no keys: use an identity-based datastore. {_STORAGE_ROLE}"
_QUOTA = "Ask for quota in the Azure portal (Quotas), or take a smaller size, fewer nodes or another region."
_ROOM = "The region has no such machines free just now: try later, another size or another region."

# Lower-case codes.
_BY_CODE: dict[str, str] = {
    "invalidauthenticationtokentenant": _TENANT,
    "invalidauthenticationtoken": SIGN_IN,
    "expiredauthenticationtoken": "Sign in again with `az login`, and check this machine's clock.",
    "authenticationfailed": "Check the key or sign in again, and check this machine's clock.",
    "authorizationfailed": _ROLE,
    "linkedauthorizationfailed": _ROLE,
    "authorizationpermissionmismatch": _STORAGE_ROLE,
    "authorizationfailure": "Check the network rules of the storage account and the role on it.",
    "keybasedauthenticationnotpermitted": _KEYLESS,
    "subscriptionnotfound": "Check AZURE_SUBSCRIPTION_ID, and that you are signed in to its tenant.",
    "invalidsubscriptionid": "Check AZURE_SUBSCRIPTION_ID.",
    "readonlydisabledsubscription": "The subscription is disabled: settle its bill or take another.",
    "resourcegroupnotfound": "Check AZURE_RESOURCE_GROUP and AZURE_SUBSCRIPTION_ID.",
    "resourcenotfound": "Check the name, AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME.",
    "parentresourcenotfound": "Check the names of the workspace or account that it belongs to.",
    "missingsubscriptionregistration": _REGISTER,
    "noregisteredproviderfound": "Check AZURE_LOCATION: the service is not offered there.",
    "locationnotavailableforresourcetype": "Set AZURE_LOCATION to a region that the message lists.",
    "modelnotsupportedbymaas": "Take a model and a region that `maas models` lists for this route.",
    "requestdisallowedbypolicy": "A policy of your organization forbids it: ask the subscription's owner.",
    "scopelocked": "A lock protects it: ask the owner of the resource group.",
    "content_filter": "Change the text: the content filter of the deployment refused it.",
    "contentfilter": "Change the text: the content filter of the deployment refused it.",
    "deploymentnotfound": "Check the name of the deployment; a new one takes some minutes to answer.",
    "insufficientquota": "Ask for quota in the portal, lower deploy.capacity, or take another deploy.sku.",
    "skunotavailable": _ROOM,
    "outofcapacity": _ROOM,
    "allocationfailed": _ROOM,
    "zonalallocationfailed": _ROOM,
}
_BY_KIND: dict[type[ServiceError], str] = {
    AccessDeniedError: _ROLE,
    NotFoundError: "Check the name, and the subscription and workspace that it should be in.",
    ConflictError: "Look at it first: the name may be taken, or it is changing just now.",
    RejectedError: "Correct the request as the message says.",
    QuotaError: _QUOTA,
    UnavailableError: "Try again in a minute.",
}


def hint_for(codes: Sequence[str], status: int | None, kind: type[ServiceError], message: str = "") -> str:
    """What to try next after an error of this kind; the most exact code that has advice wins."""
    for code in reversed(codes):
        if advice := _BY_CODE.get(code.lower()):
            return advice
    if status == 401:
        return SIGN_IN
    if status == 407:
        return "Check the user and password in HTTPS_PROXY."
    if status is not None and 300 <= status < 400:
        return "Check the endpoint: it leads elsewhere."
    if kind is RejectedError and "hub" in message.lower() and "project" in message.lower():
        return "This needs a hub-based project or a workspace; set AZUREML_WORKSPACE_NAME to one."
    return _BY_KIND.get(kind, "")
