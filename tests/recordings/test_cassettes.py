"""The journeys as they are on record, played without a network, to the last request."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx
import pytest
import yaml
from vcr.errors import CannotOverwriteExistingCassetteException

from tests.recordings.journeys import JOURNEYS
from tests.recordings.play import NetworkUsedError, no_network, play
from tests.recordings.provenance import SOURCES, api_versions, entries
from tests.recordings.record import CASSETTES, PACKAGES
from tests.recordings.scrubbing import leaks
from tests.recordings.tape import BROKEN, REQUEST_HEADERS, RESPONSE_HEADERS

FILES = sorted(path.name for path in CASSETTES.glob("*.yaml"))
MOST_BYTES, MOST_BYTES_IN_ALL = 256 << 10, 1 << 20
QUICK = "trouble"
"""The journey whose cassette is short and needs no azure-ai-ml."""


def read(name: str) -> dict[str, list[dict[str, dict[str, object]]]]:
    found: dict[str, list[dict[str, dict[str, object]]]] = yaml.load(
        (CASSETTES / name).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader
    )
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_journey_goes_as_it_is_on_record(name: str) -> None:
    play(JOURNEYS[name.partition(".")[0]], CASSETTES / name)


def test_every_journey_is_on_record() -> None:
    assert {name.partition(".")[0] for name in FILES} == set(JOURNEYS)


# -- what fails


@pytest.mark.parametrize(
    "use",
    [
        lambda: httpx.get("http://127.0.0.1:9"),
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
        lambda: socket.getaddrinfo("example.com", 443),
    ],
)
def test_no_network_is_none(use: object) -> None:
    assert callable(use)
    with no_network() as tried, pytest.raises(NetworkUsedError):
        use()
    assert len(tried) == 1


def changed(tmp_path: Path, old: str, new: str, *, count: int = -1) -> Path:
    text = (CASSETTES / f"{QUICK}.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace(old, new, count), encoding="utf-8")
    return path


def test_a_request_that_nobody_makes_any_more_fails(tmp_path: Path) -> None:
    last = re.split(r"^- request:", (CASSETTES / f"{QUICK}.yaml").read_text(encoding="utf-8"), flags=re.M)[-1]
    path = changed(tmp_path, last, f"{last}- request:{last}")
    with pytest.raises(AssertionError, match="holds requests that nobody makes any more"):
        play(JOURNEYS[QUICK], path)


def test_a_request_that_says_something_else_fails(tmp_path: Path) -> None:
    path = changed(tmp_path, "      trainingType: ", "      trainingType: other ")
    with pytest.raises(CannotOverwriteExistingCassetteException, match="differ in same_words"):
        play(JOURNEYS[QUICK], path)


def test_an_answer_that_is_missing_fails(tmp_path: Path) -> None:
    path = changed(tmp_path, "/openai/v1/fine_tuning/jobs/", "/openai/v1/fine_tuning/elsewhere/", count=1)
    with pytest.raises((CannotOverwriteExistingCassetteException, AssertionError)):
        play(JOURNEYS[QUICK], path)


# -- what stands in them


def test_each_says_where_it_comes_from() -> None:
    known = entries()
    assert sorted(known) == FILES
    for name, facts in known.items():
        assert set(facts) == {"source", "date", "command", "api_versions", "packages"}
        assert facts["source"] in SOURCES
        assert (facts["source"] == "live") == name.endswith(".live.yaml")
        assert facts["api_versions"] == api_versions((CASSETTES / name).read_text(encoding="utf-8"))
        assert set(facts["packages"]) == set(PACKAGES)


@pytest.mark.parametrize("name", FILES)
def test_nothing_private_stands_in_them(name: str) -> None:
    assert leaks((CASSETTES / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", FILES)
def test_only_some_headers_and_no_weights_stand_in_them(name: str) -> None:
    assert (CASSETTES / name).stat().st_size < MOST_BYTES
    for each in read(name)["interactions"]:
        assert set(each["request"].get("headers", {})) <= REQUEST_HEADERS
        assert set(each["response"].get("headers", {})) <= RESPONSE_HEADERS | {BROKEN}
        body = each["response"].get("body")
        assert not isinstance(body, str) or not body.startswith(("{", "[")) or is_file(each["request"])


def is_file(request: dict[str, object]) -> bool:
    """Whether a request is for a file, whose bytes stay as they are; everything else is parsed."""
    return "/maassimulator/" in str(request["uri"]) or ".blob." in str(request["uri"])


def test_all_together_they_are_small() -> None:
    assert sum((CASSETTES / name).stat().st_size for name in FILES) < MOST_BYTES_IN_ALL


def test_the_lost_answer_and_the_refusals_are_on_record() -> None:
    said = [
        (each["request"]["method"], each["response"]["status"])
        for each in read(f"{QUICK}.yaml")["interactions"]
    ]
    assert said.count(("POST", 599)) == 1
    assert said.count(("GET", 429)) == 2
    jobs = [
        each
        for each in read(f"{QUICK}.yaml")["interactions"]
        if each["request"]["method"] == "POST" and str(each["request"]["uri"]).endswith("/fine_tuning/jobs")
    ]
    assert len(jobs) == 1  # it was never sent again


def test_what_follows_from_our_files_is_not_on_record() -> None:
    text = (CASSETTES / "azureml.yaml").read_text(encoding="utf-8")
    assert "/jobs/<run>?" in text
    assert "maas-fingerprint: <fingerprint>" in text
    assert "/environments/maas-training/versions/<version of training>" in text
