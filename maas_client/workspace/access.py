"""Who the caller is in Azure, and what the caller may do there. Needs no workspace."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from maas_client.check import Check
from maas_client.errors import AccessDeniedError, NotFoundError
from maas_client.workspace.rights import Right, read_permissions

if TYPE_CHECKING:
    from maas_client.transport.credential import AzureCredential
    from maas_client.transport.rest import Rest


def check_sign_in(credential: AzureCredential, scope: str) -> tuple[Check, ...]:
    """Whether a token can be had for a scope, and for whom: object id and tenant, never the token."""
    try:
        token = credential.token(scope)
    except AccessDeniedError as error:
        return (Check("Sign-in", False, error.message, error.hint),)
    return (Check("Sign-in", True, _who(token)),)


def _who(token: str) -> str:
    """Whom a token is for, as far as it says. It is not verified: that is the service's part."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        kind = "application" if claims.get("idtyp") == "app" else "object"
        return f"{kind} {claims['oid']} of tenant {claims['tid']}"
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        return "a token was given"


_STATES = {
    "enabled": True,
    "warned": True,
    "pastdue": None,
    "disabled": False,
    "deleted": False,
    "expired": False,
}


def check_subscription(arm: Rest, subscription_id: str) -> tuple[Check, ...]:
    """Whether the subscription can be seen and is enabled."""
    name = "Subscription"
    try:
        body = arm.get(
            f"/subscriptions/{subscription_id}",
            params={"api-version": "2022-12-01"},
            operation="get the subscription",
        ).mapping
    except NotFoundError as error:
        return (Check(name, False, error.message, error.hint),)
    state = str(body.get("state") or "in an unknown state")
    shown = f"{body.get('displayName') or subscription_id} is {state}"
    hint = "Settle its bill, or set AZURE_SUBSCRIPTION_ID to another."
    return (Check(name, _STATES.get(state.lower()), shown, hint),)


def check_provider(arm: Rest, subscription_id: str, namespace: str) -> tuple[Check, ...]:
    """Whether the subscription may use a resource provider."""
    name = f"Provider {namespace}"
    body = arm.get(
        f"/subscriptions/{subscription_id}/providers/{namespace}",
        params={"api-version": "2021-04-01"},
        operation=f"look at provider {namespace}",
    ).mapping
    state = str(body.get("registrationState") or "unknown")
    ok = {"registered": True, "registering": None}.get(state.lower(), False)
    return (Check(name, ok, state, f"az provider register --namespace {namespace}"),)


def check_rights(arm: Rest, scope: str, rights: Sequence[Right]) -> tuple[Check, ...]:
    """Whether the caller may do all that is needed at a place; `scope` is its ARM id.

    One Check for what is granted, one for each right that is missing or cannot be told.
    """
    rows = arm.paging(
        f"{scope}/providers/Microsoft.Authorization/permissions",
        params={"api-version": "2022-04-01"},
        operation="read what you may do",
    )
    permissions = read_permissions(rows)
    return tuple(_rights(scope.rpartition("/")[2], [(one, permissions.gives(one)) for one in rights]))


def _rights(place: str, judged: Sequence[tuple[Right, bool | None]]) -> Iterator[Check]:
    if granted := [right.what for right, ok in judged if ok]:
        yield Check("Rights", True, f"on {place}: {', '.join(granted)}")
    for right, ok in judged:
        if ok:
            continue
        words = "is not granted" if ok is False else "cannot be told: wildcards or a condition decide it"
        hint = f"Ask the owner for the role {right.role} on {place}, then wait some minutes."
        yield Check(f"Right to {right.what}", ok, f"{right.action} on {place} {words}", hint)
