"""maas endpoints, deploy and reap where nothing runs yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maas_client.cli.endpoints import time_left
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from tests.cli.shell import maas, on_a_terminal

pytestmark = pytest.mark.usefixtures("empty_home")


def test_no_endpoints() -> None:
    assert maas("endpoints", "list").stdout == "No endpoints.\n"
    assert maas("endpoints", "list", "-o", "json").stdout == "[]\n"


@pytest.mark.parametrize(
    "words", [["endpoints", "show", "x"], ["endpoints", "delete", "x", "-y"], ["chat", "x", "-m", "a"]]
)
def test_an_endpoint_that_is_not_there(words: list[str]) -> None:
    ended = maas(*words)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("error: ")
    assert "'x'" in ended.stderr or " x" in ended.stderr


def test_leaving_a_question_leaves_the_cursor_on_a_line_of_its_own(empty_home: Path) -> None:
    record = {"model": "card:1", "created_at": 1.0, "expires_at": 9e9, "port": 0, "ttl": "4h"}
    folder = empty_home / "home" / "endpoints" / "card"
    folder.mkdir(parents=True)
    (folder / "endpoint.json").write_text(json.dumps(record))
    shown = on_a_terminal("endpoints", "delete", "card", typed="\x04", MAAS_HOME=str(empty_home / "home"))
    assert "Delete endpoint card, which serves card:1?" in shown
    assert shown.endswith("\n")
    assert folder.is_dir()


@pytest.mark.parametrize("words", [["reap"], ["reap", "--dry-run"]])
def test_nothing_to_reap(words: list[str]) -> None:
    ended = maas(*words, "-o", "json")
    assert (ended.returncode, json.loads(ended.stdout)) == (0, [])
    assert "0 endpoints" in ended.stderr
    assert maas(*words).stdout == ""


@pytest.mark.parametrize("words", [["deploy", "nothing"], ["deploy", "nothing:2"]])
def test_a_model_that_is_not_there(words: list[str]) -> None:
    ended = maas(*words)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "nothing" in ended.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-5, "0m 00s"), (0, "0m 00s"), (59.9, "0m 59s"), (3599, "59m 59s"), (7380, "2h 03m")],
)
def test_time_left(seconds: float | None, text: str) -> None:
    end = None if seconds is None else 1000.0 + seconds
    ref = EndpointRef("local", "x")
    status = EndpointStatus(ref, EndpointState.READY, "ready", 1.0, "m:1", Billing.FREE, expires_at=end)
    assert time_left(status, 1000.0) == text
