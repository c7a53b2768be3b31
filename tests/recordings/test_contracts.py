"""Every recorded request and answer holds against the published contract of its operation and api-version.

What no contract describes is named here with the reason, and held against what the live service said where a
recording of that is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.recordings.tape import BROKEN
from tests.recordings.test_cassettes import FILES, read
from tests.simulator import openapi
from tests.simulator.armcontracts import (
    FOLDERS,
    ML,
    NEAREST,
    body_schema,
    find_operation,
    query_problems,
    request_problems,
    status_problems,
    unknown_keys,
)
from tests.simulator.test_openai_contract import unexpected
from tests.transport.recorded import Exchange, conversations

pytestmark = pytest.mark.skipif(not ML.is_dir(), reason="the published contracts are not here")

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
    r"/(operationResults|mfeOperationsStatus|mfeOperationResults)/": "operations are told in no contract",
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


@cache
def said() -> tuple[Said, ...]:
    return tuple(_said())


def _said() -> Iterator[Said]:
    for name in FILES:
        for number, each in enumerate(read(name)["interactions"]):
            request, response = each["request"], each["response"]
            if BROKEN in response.get("headers", {}):
                continue
            url = str(request["uri"])
            at = f"{name}[{number}] {request['method']} {urlsplit(url).path}"
            yield Said(
                at,
                str(request["method"]),
                url,
                request.get("body"),
                int(str(response["status"])),
                response.get("body"),
            )


def reason(one: Said) -> str:
    """Why no contract describes it; "" where one should."""
    return next((why for shape, why in UNDESCRIBED.items() if re.search(shape, one.path)), "")


def described() -> list[Said]:
    return [one for one in said() if not reason(one)]


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


@pytest.mark.parametrize("name", FILES)
def test_every_request_and_answer_holds(name: str) -> None:
    ours = [one for one in described() if one.at.startswith(f"{name}[")]
    assert len(ours) >= 10
    assert [each for one in ours for each in differences(one)] == []


MUST_BE_THERE = """
PUT jobs NAME
PUT codes NAME versions NAME
POST codes NAME versions NAME startPendingUpload
PUT environments NAME versions NAME
PUT models NAME versions NAME
PUT onlineEndpoints NAME
PUT onlineEndpoints NAME deployments NAME
POST onlineEndpoints NAME listKeys
DELETE onlineEndpoints NAME
PUT serverlessEndpoints NAME
POST serverlessEndpoints NAME listKeys
DELETE serverlessEndpoints NAME
POST datastores NAME listSecrets
PUT accounts NAME deployments NAME
DELETE accounts NAME deployments NAME
POST accounts NAME listKeys
GET locations NAME usages
GET locations NAME vmSizes
POST fine_tuning jobs
POST files
POST chat completions
"""
"""Operations that change something, give a key, or decide whether anything begins."""


def operation_words(one: Said) -> str:
    """A request as in MUST_BE_THERE."""
    start = r".*(?:/workspaces/[^/]+|/Microsoft\.\w+|/openai/v1|/serverless/[^/]+)/"
    path = re.sub(start, "", one.path)
    parts = path.split("/")
    is_arm = one.path.startswith("/subscriptions/")
    return " ".join(
        [one.method, *("NAME" if is_arm and number % 2 else part for number, part in enumerate(parts))]
    )


def test_every_kind_of_request_is_covered() -> None:
    found = {operation_words(one) for one in described()}
    assert {line for line in MUST_BE_THERE.split("\n") if line} - found == set()


def test_every_exception_is_needed() -> None:
    for shape in UNDESCRIBED:
        assert any(re.search(shape, one.path) for one in said()), shape
    found = [each for one in described() for each in all_differences(one)]
    for shape in ODD:
        assert any(re.search(shape, each) for each in found), shape


def test_what_is_not_described_has_no_contract_here() -> None:
    for one in said():
        if reason(one) and one.version in {*FOLDERS, *NEAREST}:
            assert find_operation(one.method, one.path, one.version) is None, one.at


def test_a_wrong_request_and_a_wrong_answer_are_found() -> None:
    job = next(one for one in said() if one.method == "PUT" and "/jobs/" in one.path and "classic" in one.at)
    details = {**job.asked["properties"]["fineTuningDetails"], "taskType": 5, "modelUri": "x"}
    asked = {"properties": {**job.asked["properties"], "fineTuningDetails": details}}
    wrong = Said(job.at, job.method, f"{job.url}&who=me", asked, 299, job.answered)
    found = "\n".join(differences(wrong))
    assert "query who is not in the contract" in found
    assert "request.properties.fineTuningDetails.taskType: int where string stands" in found
    assert "request.properties.fineTuningDetails.modelUri is not in the contract" in found
    assert "status 299 is not declared" in found


# -- what has no contract: as the live service said it


def live(shape: str) -> list[Exchange]:
    return [
        one
        for exchanges in conversations().values()
        for one in exchanges
        if re.search(shape, urlsplit(one.url).path) and one.status == 200 and isinstance(one.body, dict)
    ]


@pytest.mark.parametrize(
    "shape",
    [
        r"/history/v1\.0/.*/runs/[^/]+/details$",
        r"^/discovery$",
        r"/registrymanagement/v1\.0/registries/[^/]+/discovery$",
    ],
    ids=["run details", "discovery", "registry"],
)
def test_what_has_no_contract_is_as_the_live_service_says_it(shape: str) -> None:
    """What live answers always have is there, and of a kind that was seen where it was not null."""
    theirs, ours = live(shape), [one for one in said() if re.search(shape, one.path)]
    assert theirs
    assert ours
    always = set.intersection(*(set(one.body) for one in theirs))
    seen = {key: {type(one.body[key]) for one in theirs} - {type(None)} for key in always}
    for mine in ours:
        assert always - set(mine.answered) == set(), mine.at
        kinds = {key: type(mine.answered[key]) for key in always if mine.answered[key] is not None}
        assert {key: kind for key, kind in kinds.items() if seen[key] and kind not in seen[key]} == {}, (
            mine.at
        )
