"""Rights as Azure Resource Manager tells them, and the orders that take them away."""

from __future__ import annotations

import re

from maas_client.simulator.arm import check_subscription
from maas_client.simulator.grants import OWNER
from maas_client.simulator.replies import Reply, user_error
from maas_client.simulator.routing import GROUP, SUBSCRIPTION, Call, Operation

_KEYS = frozenset({*OWNER, "condition", "conditionVersion"})
_DEFINITIONS = "/providers/Microsoft.Authorization/roleDefinitions"


def permissions(call: Call) -> Reply:
    """GET of what the caller may do at a place: as an owner, unless orders say otherwise."""
    check_subscription(call)
    return Reply(200, {"value": call.world.grants.caller})


def role_assignments(call: Call) -> Reply:
    """GET of the roles that `$filter=assignedTo('PRINCIPAL')` has at a place."""
    check_subscription(call)
    scope = call.path.partition("/providers/Microsoft.Authorization/")[0]
    found = re.search(r"assignedTo\('([^']*)'\)", call.query.get("$filter", ""))
    principal = found.group(1) if found else ""
    rows = [
        {
            "id": f"{scope}/providers/Microsoft.Authorization/roleAssignments/{number}",
            "name": str(number),
            "type": "Microsoft.Authorization/roleAssignments",
            "properties": {
                "roleDefinitionId": f"/subscriptions/{call.params['subscription']}{_DEFINITIONS}/{role}",
                "principalId": principal,
                "principalType": "ServicePrincipal",
                "scope": scope,
            },
        }
        for number, role in enumerate(call.world.grants.assignments.get((scope.lower(), principal), ()))
    ]
    return Reply(200, {"value": rows})


def get_provider(call: Call) -> Reply:
    """GET of a resource provider's registration."""
    check_subscription(call)
    namespace = call.params["namespace"]
    return Reply(
        200,
        {
            "id": f"/subscriptions/{call.params['subscription']}/providers/{namespace}",
            "namespace": namespace,
            "registrationState": call.world.grants.providers.get(namespace.lower(), "Registered"),
            "resourceTypes": [],
        },
    )


def order_permissions(call: Call) -> Reply:
    """POST of one grant or a list of them, instead of everything; DELETE grants everything again."""
    if call.method == "DELETE":
        call.world.grants.caller = [dict(OWNER)]
        return Reply(204)
    grants = call.body if isinstance(call.body, list) else [call.body]
    if not all(isinstance(each, dict) and set(each) <= _KEYS for each in grants):
        raise user_error(f"A grant has the keys {', '.join(sorted(_KEYS))}.")
    call.world.grants.caller = [{**{key: [] for key in OWNER}, **each} for each in grants]
    return Reply(200, {"value": call.world.grants.caller})


def order_roles(call: Call) -> Reply:
    """POST {"scope", "principal", "roles": [GUID, ...]}: roles of an identity at a place."""
    body = call.body or {}
    try:
        key = (str(body["scope"]).lower(), str(body["principal"]))
        call.world.grants.assignments[key] = [str(each) for each in body["roles"]]
    except (KeyError, TypeError):
        raise user_error("scope, principal and roles are needed.") from None
    return Reply(204)


def order_providers(call: Call) -> Reply:
    """POST {NAMESPACE: STATE, ...}, such as NotRegistered."""
    call.world.grants.providers |= {
        str(name).lower(): str(state) for name, state in (call.body or {}).items()
    }
    return Reply(200, dict(call.world.grants.providers))


def order_storage(call: Call) -> Reply:
    """POST {"allowSharedKeyAccess": false, ...}: what the storage account says of itself."""
    call.world.grants.storage = dict(call.body or {})
    return Reply(200, call.world.grants.storage)


OPERATIONS = [
    Operation("GET", SUBSCRIPTION + "/providers/{namespace}", get_provider),
    Operation("GET", GROUP + "/{place:path}/providers/Microsoft.Authorization/permissions", permissions),
    Operation("GET", GROUP + "/providers/Microsoft.Authorization/permissions", permissions),
    Operation(
        "GET", GROUP + "/{place:path}/providers/Microsoft.Authorization/roleAssignments", role_assignments
    ),
    Operation("POST", "/_simulator/permissions", order_permissions),
    Operation("DELETE", "/_simulator/permissions", order_permissions),
    Operation("POST", "/_simulator/roles", order_roles),
    Operation("POST", "/_simulator/providers", order_providers),
    Operation("POST", "/_simulator/storage", order_storage),
]
