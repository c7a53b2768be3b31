"""Marketplace subscriptions, which models of other publishers than Microsoft need before they are served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maas_client.errors import ConflictError, NotFoundError
from maas_client.transport.members import text_at

if TYPE_CHECKING:
    from maas_client.catalog import Model
    from maas_client.workspace.session import Workspace

API_VERSION = "2024-10-01"
_SUBSCRIBED = "subscribed"
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
        if text_at(there, "properties", "modelId").lower() == model.lower():
            if not _is_ended(there):
                return _is_usable(there)
            name = text_at(there, "name") or name
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
        return [row for row in rows if isinstance(row, Mapping)]
    except NotFoundError:
        return []


def _is_ended(body: Mapping[str, Any]) -> bool:
    """Whether somebody unsubscribed: then it can be asked for again."""
    return [word.lower() for word in _words(body)] == ["unsubscribed", "succeeded"]


def _words(body: Mapping[str, Any]) -> tuple[str, str]:
    """(whether it is subscribed, what Azure is doing with it) in Azure's words."""
    return (
        text_at(body, "properties", "marketplaceSubscriptionStatus"),
        text_at(body, "properties", "provisioningState"),
    )


def _is_usable(body: Mapping[str, Any]) -> bool:
    """Whether one is subscribed; False while it is being made. Raises ConflictError where it cannot be."""
    word, provisioning = _words(body)
    if word.lower() == _SUBSCRIBED:
        return True
    if word.lower() == "suspended" or provisioning.lower() in _FAILED:
        raise ConflictError(
            f"The marketplace subscription {text_at(body, 'name')} is {word or 'unusable'} ({provisioning}).",
            hint="See it in the Azure portal: the offer must be open to the subscription's billing account.",
            operation="subscribe",
            code="MarketplaceSubscription",
        )
    return False
