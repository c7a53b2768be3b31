"""How a request becomes a call of a plain function, and what the function needs to know of it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from maas_client.simulator.replies import Refusal, Reply, user_error
from maas_client.simulator.state import Resource
from maas_client.simulator.world import PROVIDER, World

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = SUBSCRIPTION + "/resourceGroups/{group}"
WORKSPACE = f"{GROUP}/providers/{PROVIDER}/workspaces/{{workspace}}"
LOCATION = f"{SUBSCRIPTION}/providers/{PROVIDER}/locations/{{location}}"


@dataclass(frozen=True)
class Call:
    """One request: method, path as sent, path parameters, query, body (JSON or None) and headers."""

    world: World
    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    raw: bytes = b""

    @property
    def form(self) -> dict[str, str]:
        """The body as a filled-in form."""
        return dict(parse_qsl(self.raw.decode(errors="replace")))

    @property
    def workspace_id(self) -> str:
        """ARM id of the workspace as it was made. Raises Refusal 404 where there is none."""
        return str(self.workspace["id"])

    @property
    def workspace(self) -> Resource:
        """The workspace that the path names. Raises Refusal 404 where there is none."""
        values = self.params
        wanted = WORKSPACE.format(**{key: values[key] for key in ("subscription", "group", "workspace")})
        found = self.world.store.get(wanted)
        if found is None:
            raise missing_workspace(self.world, wanted, values)
        return found

    @property
    def properties(self) -> dict[str, Any]:
        """`properties` of the body. Raises Refusal 400 where there are none."""
        if not isinstance(self.body, dict) or not isinstance(self.body.get("properties"), dict):
            raise user_error(
                "The request is invalid: properties is required.", "BadArgument", "ArgumentInvalid"
            )
        properties: dict[str, Any] = self.body["properties"]
        return properties

    def child_id(self, collection: str, name: str) -> str:
        """ARM id of something in the workspace, such as child_id("jobs", "card-1")."""
        return f"{self.workspace_id}/{collection}/{name}"


def missing_workspace(world: World, wanted: str, values: Mapping[str, str]) -> Refusal:
    """What ARM says: whichever of subscription, group and workspace is the first that is not there."""
    names = world.names
    if values["subscription"].lower() != names.subscription.lower():
        text = f"The subscription '{values['subscription']}' could not be found."
        return Refusal(404, "SubscriptionNotFound", text, inner=None)
    groups = {each["id"].lower().split("/")[4] for each in all_workspaces(world)} | {
        names.resource_group.lower()
    }
    if values["group"].lower() not in groups:
        text = f"Resource group '{values['group']}' could not be found."
        return Refusal(404, "ResourceGroupNotFound", text, inner=None)
    kind = f"{PROVIDER}/workspaces/{wanted.rpartition('/')[2]}"
    text = f"The Resource '{kind}' under resource group '{values['group']}' was not found. "
    text += "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    return Refusal(404, "ResourceNotFound", text, inner=None)


def all_workspaces(world: World) -> list[Resource]:
    """Every workspace of the subscription."""
    start = f"/subscriptions/{world.names.subscription}/resourceGroups"
    ids = [f"{start}/{group}/providers/{PROVIDER}/workspaces" for group in world.store.names(start)]
    return [each for collection in ids for each in world.store.members(collection)]


Handler = Callable[[Call], Reply | Response | Awaitable[Reply | Response]]


@dataclass(frozen=True)
class Operation:
    """A method and a path, and the function that answers. `blocking`: it waits for storage or a process."""

    method: str
    path: str
    answer: Handler
    blocking: bool = False

    def route(self, world: World) -> Route:
        """The operation as a route of the web application."""

        async def endpoint(request: Request) -> Response:
            call = await _call(world, request)
            if self.blocking:
                return as_response(await run_in_threadpool(self.answer, call))
            answered = self.answer(call)
            return as_response(answered if isinstance(answered, Reply | Response) else await answered)

        return Route(self.path, endpoint, methods=[self.method])


def as_response(answer: Any) -> Response:
    """A reply as what the web framework sends."""
    if isinstance(answer, Response):
        return answer
    if answer.text is not None:
        return Response(answer.text, answer.status, answer.headers, "text/plain")
    if answer.body is None:
        return Response(b"", answer.status, answer.headers)
    return JSONResponse(answer.body, answer.status, answer.headers)


async def _call(world: World, request: Request) -> Call:
    raw = await request.body()
    body: Any = None
    if raw and "json" in request.headers.get("content-type", "json"):
        try:
            body = json.loads(raw)
        except ValueError:
            raise user_error("The request body is not valid JSON.", "BadArgument") from None
    path = request.scope["path"]
    headers = {key.lower(): value for key, value in request.headers.items()}
    return Call(
        world, request.method, path, request.path_params, dict(request.query_params), body, headers, raw
    )


def page(call: Call, items: list[Any], *, size: int | None = None) -> Reply:
    """One page of a list, with nextLink where there is more. `$skip` and `$skipToken` are opaque tokens."""
    size = size or call.world.timing.page_size
    if (top := call.query.get("$top", call.query.get("count", ""))).isdigit():
        size = min(size, max(1, int(top)))
    start = _place(call.query.get("$skipToken") or call.query.get("$skip") or "", items)
    body: dict[str, Any] = {"value": items[start : start + size]}
    if start + size < len(items) and "$top" not in call.query:
        token = json.dumps([start + size, items[start + size - 1].get("name")])
        query = {key: value for key, value in call.query.items() if key not in {"$skip", "$skipToken"}}
        query["$skipToken"] = base64.urlsafe_b64encode(token.encode()).decode()
        body["nextLink"] = f"{call.world.base_url}{call.path}?{urlencode(query)}"
    return Reply(200, body)


def _place(token: str, items: list[Any]) -> int:
    """Where the next page starts: after the item that ended the last one, also when others came before it."""
    if not token:
        return 0
    try:
        at, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        raise user_error("The continuation token is invalid.", "BadArgument") from None
    for index, item in enumerate(items[max(0, at - 1) :], max(0, at - 1)):
        if item.get("name") == name:
            return index + 1
    return int(at)


def seconds_of(duration: str | None) -> float | None:
    """Seconds of an ISO 8601 duration such as PT2H or PT1M30S; None for none."""
    match = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", duration or "")
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
