"""Marketplace subscriptions, which models of other publishers than Microsoft need before they are served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maas_client.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from maas_client.catalog import Model
    from maas_client.workspace.session import Workspace

API_VERSION = "2024-10-01"
_SUBSCRIBED = "Subscribed"
_FAILED = {"failed", "canceled"}


def needs_subscription(model: Model) -> bool:
    """Whether a model needs one: Microsoft's own do not."""
    return model.publisher != "Microsoft"


def ensure_subscription(workspace: Workspace, registry_id: str) -> bool:
    """Subscribe to the offer of a registry's model unless that is so; True once it is.

    Returns at once: the same call again goes on. Any subscription to the model counts, whoever made it.
    Raises ConflictError for one that cannot be used.
    """
    model = registry_id.partition("/versions/")[0]
    name = subscription_name(model)
    for there in _subscriptions(workspace):
        if str(there["properties"].get("modelId") or "").lower() == model.lower():
            if not _is_ended(there):
                return _is_usable(there)
            name = str(there["name"])
    answer = workspace.arm.put(
        workspace.path("marketplaceSubscriptions", name),
        {"properties": {"modelId": model}},
        params={"api-version": API_VERSION},
        operation=f"subscribe to {model}",
    )
    return _is_usable(answer.mapping)


def subscription_name(model: str) -> str:
    """The name of our subscription to a model: letters, digits and hyphens of the model's own."""
    return f"maas-{re.sub(r'[^a-z0-9]+', '-', model.rpartition('/')[2].lower()).strip('-')}"[:52].rstrip("-")


def _subscriptions(workspace: Workspace) -> list[Mapping[str, Any]]:
    try:
        rows = workspace.arm.paging(
            workspace.path("marketplaceSubscriptions"),
            params={"api-version": API_VERSION},
            operation="list marketplace subscriptions",
        )
        return [
            row for row in rows if isinstance(row, Mapping) and isinstance(row.get("properties"), Mapping)
        ]
    except NotFoundError:
        return []


def _is_ended(body: Mapping[str, Any]) -> bool:
    """Whether somebody unsubscribed: then it can be asked for again."""
    properties = body["properties"]
    word, provisioning = properties.get("marketplaceSubscriptionStatus"), properties.get("provisioningState")
    return (word, provisioning) == ("Unsubscribed", "Succeeded")


def _is_usable(body: Mapping[str, Any]) -> bool:
    """Whether one is subscribed; False while it is being made. Raises ConflictError where it cannot be."""
    properties = body.get("properties") or {}
    word = properties.get("marketplaceSubscriptionStatus")
    provisioning = str(properties.get("provisioningState") or "")
    if word == _SUBSCRIBED:
        return True
    if word == "Suspended" or provisioning.lower() in _FAILED:
        raise ConflictError(
            f"The marketplace subscription {body.get('name')} is {word or 'unusable'} ({provisioning}).",
            hint="See it in the Azure portal: the offer must be open to the subscription's billing account.",
            operation="subscribe",
            code="MarketplaceSubscription",
        )
    return False
