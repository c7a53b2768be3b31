"""Every recorded request and answer holds against the published contract of its operation and api-version.

What no contract describes is named in `held.py` with the reason, and held here against what the live service
said where a recording of that is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from urllib.parse import urlsplit

import pytest

from tests.recordings.tape import BROKEN
from tests.recordings.test_cassettes import FILES, read
from tests.simulator.armcontracts import FOLDERS, ML, NEAREST, find_operation
from tests.simulator.held import (
    ODD,
    UNDESCRIBED,
    Said,
    all_differences,
    differences,
    operation_words,
    reason,
)
from tests.transport.recorded import Exchange, conversations

pytestmark = pytest.mark.skipif(not ML.is_dir(), reason="the published contracts are not here")


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


def described() -> list[Said]:
    return [one for one in said() if not reason(one)]


@pytest.mark.parametrize("name", FILES)
def test_every_request_and_answer_holds(name: str) -> None:
    ours = [one for one in described() if one.at.startswith(f"{name}[")]
    assert len(ours) >= 10
    assert [each for one in ours for each in differences(one)] == []


MUST_BE_THERE = """
PUT jobs NAME
POST jobs NAME cancel
PUT computes NAME
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
