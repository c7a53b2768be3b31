"""One exchange on the wire, held against the published contract of its operation and api-version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.simulator import openapi
from tests.simulator.armcontracts import (
    NEAREST,
    body_schema,
    find_operation,
    query_problems,
    request_problems,
    status_problems,
    unknown_keys,
)
from tests.simulator.test_openai_contract import unexpected

AZURE_AI = openapi.FOLDER / "AI-Gateway-specs/AIFoundryAzureAI.json"
UNDESCRIBED: Mapping[str, str] = {
    r"/history/v1\.0/": "run history has no published contract",
    r"/metric/v2\.0/": "the metric service has no published contract",
    r"/discovery$": "discovery has no published contract",
    r"/registrymanagement/v1\.0/": "nor have registries, at the address that azure-ai-ml asks",
    r"/mferp/managementfrontend/": "nor have registries' assets",
    r"/(maassimulator|azureml-blobstore)": "blob storage: the real Azurite, asked by azure-storage-blob",
    r"/inference/[^/]+/score$": "the answer of a scoring script is its own",
    r"/serverless/[^/]+/info$": "it is only asked whether it answers",
    r"^/subscriptions/[^/]+$": "Resource Manager's own; its contract is not here",
    r"^/subscriptions/[^/]+/providers/[^/]+$": "Resource Manager's own; its contract is not here",
    r"/providers/Microsoft\.Authorization/": "Microsoft.Authorization's contract is not here",
    r"/providers/Microsoft\.Storage/": "Microsoft.Storage's contract is not here",
    r"/(operationResults|mfeOperations\w+|computeOperations\w+)/": "looks at operations are in no contract",
}
"""Paths that no contract at hand describes, and why."""
ODD: Mapping[str, str] = {
    r"codes/.*hash_version: int where string stands": "azure-ai-ml sends a number, and the service takes it",
    r"taskType: 'chatCompletion' is not one of": "azure-ai-ml lowers the first letter; recorded with 201",
    r"GET /openai/v1/files: : '(first|last)_id' is missing": "of a list without files",
    r"request messages: ": "a contract of chat completions that takes an empty list only",
    r"error/type: 'invalid_request_error' is not one of \['error'\]": "refusals on record have other words",
}
"""Differences that are known, and why they may be."""


@dataclass(frozen=True)
class Said:
    """One recorded exchange."""

    at: str
    method: str
    url: str
    asked: Any
    status: int
    answered: Any

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def version(self) -> str:
        return parse_qs(urlsplit(self.url).query).get("api-version", [""])[0]


def reason(one: Said) -> str:
    """Why no contract describes it; "" where one should."""
    return next((why for shape, why in UNDESCRIBED.items() if re.search(shape, one.path)), "")


def in_arm(one: Said) -> list[str]:
    """Where an exchange with Resource Manager differs."""
    found = find_operation(one.method, one.path, one.version)
    if found is None:
        return [f"{one.at}: no contract of {one.version} has it"]
    name, operation = found
    differs = query_problems(name, operation, one.url)
    if one.asked is not None:
        differs += request_problems(name, operation, one.asked, "request")
        if one.version not in NEAREST:  # what a newer or older version has besides cannot be told
            differs += unknown_keys(name, body_schema(name, operation) or {}, one.asked, "request")
    differs += status_problems(name, operation, one.status, one.answered, "answer")
    return [f"{one.at}: {each}" for each in differs]


def in_openapi(file: Any, path: str, one: Said) -> list[str]:
    """Where an exchange with an inference or tuning API differs, other than as the live service does."""
    operation = openapi.operation(file, one.method, path)
    differs = set()
    if isinstance(one.asked, dict):
        differs |= {
            f"request {each}"
            for each in openapi.differences(file, openapi.request_schema(operation), one.asked)
        }
    schema = openapi.answer_schema(operation, one.status)
    if schema is not None and isinstance(one.answered, dict):
        differs |= unexpected(openapi.differences(file, schema, one.answered))
    return sorted(f"{one.at}: {each}" for each in differs)


def all_differences(one: Said) -> list[str]:
    """Where an exchange differs from its contract."""
    if one.path.startswith("/openai/v1/"):
        return in_openapi(openapi.OPENAI, one.path.removeprefix("/openai/v1"), one)
    if one.path.endswith("/chat/completions"):
        return in_openapi(AZURE_AI, "/chat/completions", one)
    return in_arm(one)


def differences(one: Said) -> list[str]:
    """The same without what is known."""
    return [each for each in all_differences(one) if not any(re.search(shape, each) for shape in ODD)]


class Listener:
    """Hears what goes over a wire in memory, and keeps where it differs from its contract."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.heard: set[str] = set()

    def __call__(self, request: httpx.Request, answer: httpx.Response) -> None:
        url = str(request.url)
        at = f"{request.method} {urlsplit(url).path}"
        one = Said(at, request.method, url, _json(request.read()), answer.status_code, _json(answer.read()))
        if not reason(one):
            self.heard.add(operation_words(one))
            self.found += differences(one)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content.decode(errors="replace")


def operation_words(one: Said) -> str:
    """A request in the words of its contract, such as `PUT onlineEndpoints NAME deployments NAME`."""
    start = r".*(?:/workspaces/[^/]+|/Microsoft\.\w+|/openai/v1|/serverless/[^/]+)/"
    parts = re.sub(start, "", one.path).split("/")
    is_arm = one.path.startswith("/subscriptions/")
    return " ".join(
        [one.method, *("NAME" if is_arm and number % 2 else part for number, part in enumerate(parts))]
    )
