"""The Foundry resource as its own addresses show it: who may come in, and how its OpenAI API refuses."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from maas_client.simulator.provisioning import keys_of
from maas_client.simulator.replies import Refusal, Reply
from maas_client.simulator.routing import Call, Handler, Operation
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

_STARTS = ("/openai/v1", "/api/projects/{project}/openai/v1")
"""The address of the resource, and that of a project in it."""
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_NAME = re.compile(rb'[; ]name="([^"]*)"')
_FILE_NAME = re.compile(rb'[; ]filename="([^"]*)"')


def operations(method: str, path: str, answer: Handler, *, blocking: bool = False) -> list[Operation]:
    """An operation of the OpenAI API at both addresses; whoever has no right to come in is refused."""

    def guarded(call: Call) -> Reply | Response | Awaitable[Reply | Response]:
        let_in(call)
        answered = answer(call)
        if isinstance(answered, Reply):
            return replace(answered, headers={"apim-request-id": str(uuid.uuid4()), **answered.headers})
        return answered

    return [Operation(method, start + path, guarded, blocking) for start in _STARTS]


def let_in(call: Call) -> None:
    """Accept a key of the account (as api-key or bearer) or a token of the directory. Raises Refusal 401."""
    account = account_of(call.world)
    bearer = call.headers.get("authorization", "").removeprefix("Bearer ").strip()
    given = call.headers.get("api-key") or bearer
    if any(secrets.compare_digest(given.encode(), key.encode()) for key in account_keys(call.world).values()):
        if account["properties"]["disableLocalAuth"]:
            text = "Key based authentication is disabled for this resource."
            raise refusal(403, "AuthenticationTypeDisabled", text)
        return
    if "api-key" in call.headers or bearer.count(".") != 2:
        text = "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
        text += (
            "valid key for an active subscription and use a correct regional API endpoint for your resource."
        )
        raise refusal(401, "401", text)
    call.world.tokens.check(call.headers["authorization"])


def refusal(
    status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Refusal:
    """An error of the OpenAI API; `more` are further members of it (param, type, innererror)."""
    found = _OpenAIRefusal(status, code, message, inner=None, headers=headers)
    found.more = more
    return found


class _OpenAIRefusal(Refusal):
    more: dict[str, Any]

    def body(self, *, location: str, at: str) -> dict[str, Any]:
        """The error as JSON."""
        found = super().body(location=location, at=at)
        return {"error": {**found["error"], **self.more}}


def make_account(world: World) -> Resource:
    """The account, if it is not there yet; its addresses change with every start."""
    path, name = world.names.foundry_id, world.names.foundry
    there = world.store.get(path)
    address = f"{world.base_url}/"
    properties = {
        "endpoint": address,
        "endpoints": {"OpenAI Language Model Instance API": address, "AI Foundry API": address},
        "customSubDomainName": name,
        "provisioningState": "Succeeded",
        "publicNetworkAccess": "Enabled",
        "disableLocalAuth": bool(there and there["properties"]["disableLocalAuth"]),
        "dateCreated": there["properties"]["dateCreated"] if there else world.now(),
        "capabilities": [{"name": "MaxFineTuneCount", "value": "100"}],
    }
    account = {
        "id": path,
        "name": name,
        "type": "Microsoft.CognitiveServices/accounts",
        "kind": "AIServices",
        "location": world.names.location,
        "sku": {"name": "S0"},
        "identity": {"type": "SystemAssigned", "tenantId": world.names.tenant},
        "tags": {},
        "etag": f'"{uuid.uuid4()}"',
        "systemData": world.system_data(there),
        "properties": properties,
    }
    return world.store.put(path, account)


def account_of(world: World) -> Resource:
    """The account, made when it is first needed."""
    return world.store.get(world.names.foundry_id) or make_account(world)


def account_keys(world: World) -> dict[str, str]:
    """key1 and key2 of the account."""
    found = keys_of(world, world.names.foundry_id)
    return {"key1": found["primaryKey"], "key2": found["secondaryKey"]}


def parts_of(call: Call) -> dict[str, tuple[str, bytes]]:
    """The parts of a multipart form: name -> (file name, content). Raises Refusal 400."""
    found = _BOUNDARY.search(call.headers.get("content-type", ""))
    if found is None:
        raise refusal(400, "invalidPayload", "The request is no multipart form.")
    parts = {}
    for piece in call.raw.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        name, file_name = _NAME.search(head), _FILE_NAME.search(head)
        if name is not None:
            shown = file_name[1].decode(errors="replace") if file_name else ""
            parts[name[1].decode()] = (shown, content.removesuffix(b"\r\n"))
    return parts


def page(call: Call, items: list[dict[str, Any]], *, size: int) -> Reply:
    """A page of a list as OpenAI cuts it: `limit` items after the id `after`."""
    limit = call.query.get("limit", "")
    size = max(1, int(limit)) if limit.isdigit() else size
    start = 0
    if after := call.query.get("after"):
        start = next((n + 1 for n, item in enumerate(items) if item["id"] == after), len(items))
    found = items[start : start + size]
    body: dict[str, Any] = {"object": "list", "data": found, "has_more": start + size < len(items)}
    if found:
        body |= {"first_id": found[0]["id"], "last_id": found[-1]["id"]}
    return Reply(200, body)
