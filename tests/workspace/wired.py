"""A workspace whose wire is in memory: jobs, run details, log files in blobs, and trouble when asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import httpx

from maas_client.transport.cloud import PUBLIC
from maas_client.transport.credential import AzureCredential
from maas_client.transport.rest import Rest
from maas_client.transport.workspace import Target
from maas_client.workspace.history import History
from maas_client.workspace.jobs import Jobs
from maas_client.workspace.session import Workspace

TARGET = Target("sub", "rg", "ws")
API = "https://eastus2.api.azureml.ms"
STORE = "https://store.blob.core.windows.net"
NOW = 1_800_000_000.0

Trouble = Callable[[httpx.Request], httpx.Response | None]


class Source:
    """Signs in without asking anybody."""

    def get_token(self, *scopes: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(token="t", expires_on=NOW * 2)


@dataclass
class Wired:
    """The other side of the wire. `trouble` is asked first; `signature` is what signed URLs must have now."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] | None = field(default_factory=lambda: {"status": "Running"})
    files: dict[str, bytes] = field(default_factory=dict)
    metrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    trouble: Trouble | None = None
    signature: int = 1
    page_size: int = 50
    ignores_ranges: bool = False
    now: float = NOW
    asked: list[str] = field(default_factory=list)
    fetched_bytes: int = 0

    def __post_init__(self) -> None:
        transport = httpx.MockTransport(self.answer)
        credential = AzureCredential(open_source=Source)
        self.workspace = Workspace(
            TARGET, credential, lambda: PUBLIC, clock=self.clock, sleep=self.sleep, transport=transport
        )
        storage = Rest(STORE, clock=self.clock, sleep=self.sleep, transport=transport)
        self.history = History(self.workspace, storage=storage)
        self.client = Jobs(self.workspace)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def count(self, pattern: str) -> int:
        return sum(1 for one in self.asked if re.search(pattern, one))

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = unquote(request.url.path)
        self.asked.append(f"{request.method} {path}")
        if self.trouble is not None and (reply := self.trouble(request)) is not None:
            return reply
        if request.url.host == "store.blob.core.windows.net":
            assert "authorization" not in request.headers
            return self.blob(request, path.lstrip("/"))
        assert request.headers.get("authorization") == "Bearer t" or path == "/discovery"
        for pattern, route in (
            (r"/discovery$", lambda _: {"api": API}),
            (r"/runs/[^/]+/details$", self.run_details),
            (r"/metric/v2\.0.*/(list|full)$", self.metric),
            (r"/workspaces/ws$", lambda _: {"properties": {"discoveryUrl": f"{API}/discovery"}}),
            (r"/jobs$", self.job_list),
            (r"/jobs/[^/]+$", self.job),
        ):
            if re.search(pattern, path):
                found = route(request)
                return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)
        raise AssertionError(f"nobody answers {request.method} {path}")

    def run_details(self, request: httpx.Request) -> Any:
        if self.details is None:
            return refusal(404, "UserError", "Run was not found")
        urls = {name: f"{STORE}/{name}?sig={self.signature}" for name in self.files}
        return {"logFiles": urls, **self.details}

    def job_list(self, request: httpx.Request) -> Any:
        start, tag = int(request.url.params.get("$skip", "0")), request.url.params.get("tag")
        chosen = [one for one in self.jobs if not tag or tag in one["properties"]["tags"]]
        page = {"value": chosen[start : start + self.page_size]}
        if start + self.page_size < len(chosen):
            page["nextLink"] = str(request.url.copy_set_param("$skip", str(start + self.page_size)))
        return page

    def job(self, request: httpx.Request) -> Any:
        name = unquote(request.url.path.rpartition("/")[2])
        found = next((one for one in self.jobs if one["name"] == name), None)
        return found or refusal(404, "UserError", f"Job {name} not found.", "JobNotFound")

    def blob(self, request: httpx.Request, name: str) -> httpx.Response:
        if request.url.params.get("sig") != str(self.signature):
            text = (
                "<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code><Message>No.</Message></Error>"
            )
            return httpx.Response(403, text=text)
        if name not in self.files:
            return httpx.Response(404, text="<Error><Code>BlobNotFound</Code><Message>No.</Message></Error>")
        data = self.files[name]
        if self.ignores_ranges:
            return httpx.Response(200, content=data)
        first, last = (int(part) for part in request.headers["range"].removeprefix("bytes=").split("-"))
        if first >= len(data):
            return httpx.Response(416, headers={"content-range": f"bytes */{len(data)}"})
        piece = data[first : last + 1]
        self.fetched_bytes += len(piece)
        told = f"bytes {first}-{first + len(piece) - 1}/{len(data)}"
        return httpx.Response(206, headers={"content-range": told}, content=piece)

    def metric(self, request: httpx.Request) -> Any:
        asked = json.loads(request.content)
        if request.url.path.endswith("/list"):
            return {"value": [{"name": name} for name in self.metrics], "continuationToken": None}
        rows = self.metrics.get(asked["metricName"])
        if rows is None:
            return refusal(404, "UserError", "Metric was not found")
        rows = [row for row in rows if (row.get("createdUtc") or "") >= asked.get("startTime", "")]
        start = int(asked.get("continuationToken") or 0)
        end = start + self.page_size
        return {"value": rows[start:end], "continuationToken": str(end) if end < len(rows) else None}


def refusal(status: int, code: str, message: str, inner: str = "") -> httpx.Response:
    """An error as Azure ML writes it."""
    info = [{"type": "InnerError", "info": {"value": {"code": "NotFound", "innerError": {"code": inner}}}}]
    error = {"code": code, "message": message, "details": [], "additionalInfo": info if inner else []}
    return httpx.Response(status, json={"error": error})


def job_body(name: str, status: str | None = "Running", *, run: str = "", made: int = 0) -> dict[str, Any]:
    """A job's body; `made` counts minutes."""
    moment = f"2026-11-{1 + made // 1440:02d}T{made // 60 % 24:02d}:{made % 60:02d}:00.1234567+00:00"
    tags = {"maas-run": run} if run else {}
    return {
        "name": name,
        "properties": {"status": status, "tags": tags},
        "systemData": {"createdAt": moment},
    }
