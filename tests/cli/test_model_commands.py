"""`maas models`: what people see at 80 columns and what programs read."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from maas_client import catalog
from maas_client.cli.models import RouteChoice, app
from maas_client.errors import PlanError, UsageError

Run = Callable[..., str]
TODAY = ("--date", "2026-11-24")


@pytest.fixture
def maas_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `maas models WORDS` in an 80-column terminal and gives what it printed."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: str) -> str:
        app(list(words), standalone_mode=False)
        printed = capsys.readouterr()
        assert printed.err == ""
        return "\n".join(line.rstrip() for line in printed.out.splitlines())

    return run


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("list", "--route", "foundry-classic"),
        ("show", "Phi-3-mini-4k"),
        ("show", "phi-4"),
        ("show", "gpt-4o"),
        ("show", "tiny-phi3"),
        ("show", "Phi-3-small-8k"),
    ],
    ids=" ".join,
)
def test_pages_for_people_fit_80_columns(
    maas_models: Run, snapshot: SnapshotAssertion, words: tuple[str, ...]
) -> None:
    page = maas_models(*words, *TODAY)
    assert max(map(len, page.splitlines())) <= 80
    assert page == snapshot


def test_gpu_sizes_fit_80_columns(maas_models: Run, snapshot: SnapshotAssertion) -> None:
    page = maas_models("gpus")
    assert max(map(len, page.splitlines())) <= 80
    assert page == snapshot


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.name)
def test_every_model_can_be_shown(maas_models: Run, model: catalog.Model) -> None:
    page = maas_models("show", model.name, *TODAY)
    assert max(map(len, page.splitlines())) <= 80
    for fact in model.facts.values():
        assert fact.source is None or str(fact.source.date) in page
    assert ("unknown" in page) == any(not fact.known for fact in model.facts.values())


def test_before_its_retirement_a_model_shows_the_day(maas_models: Run) -> None:
    page = maas_models("show", "Phi-3-mini-4k", "--date", "2025-08-29")
    assert "GA until 2025-08-30" in page
    assert "open until 2025-08-30" in page


def test_the_list_leaves_out_what_no_route_takes_unless_told(maas_models: Run) -> None:
    later = ("--date", "2028-01-01", "-o", "json")
    shown = [row["name"] for row in json.loads(maas_models("list", *later))]
    everything = [row["name"] for row in json.loads(maas_models("list", "--all", *later))]
    assert "gpt-4o" not in shown
    assert "Phi-3-mini-4k-instruct" in shown
    assert everything == [model.name for model in catalog.models()]


def test_programs_read_json_and_yaml(maas_models: Run) -> None:
    shown = json.loads(maas_models("show", "Phi-3-mini-4k", *TODAY, "-o", "json"))
    assert shown["lifecycle"]["state"] == "retired"
    assert shown["lifecycle"]["replacement"] == "Phi-4-mini-instruct"
    assert shown["facts"]["context_tokens"]["value"] == 4096
    assert shown["facts"]["context_tokens"]["source"]["read"] == "2026-11-24"
    assert {route["route"]: route["access"] for route in shown["routes"]} == {
        "foundry-classic": "closed",
        "azureml": "open",
        "local": "open",
    }
    assert yaml.safe_load(maas_models("show", "Phi-3-mini-4k", *TODAY, "-o", "yaml")) == shown
    assert len(json.loads(maas_models("gpus", "-o", "json"))) == 20


def test_unknown_values_stay_null_for_programs(maas_models: Run) -> None:
    shown = json.loads(maas_models("show", "Qwen-32B", *TODAY, "-o", "json"))
    assert shown["facts"]["parameters"] == {"value": None, "source": None, "note": ""}


def test_a_wrong_name_or_day_is_one_clear_sentence(maas_models: Run) -> None:
    with pytest.raises(PlanError, match="no model named"):
        maas_models("show", "Phi-9")
    with pytest.raises(UsageError, match="'yesterday' is not a day") as caught:
        maas_models("list", "--date", "yesterday")
    assert caught.value.hint == "Write it as 2026-11-24."


def test_the_choices_of_route_are_the_routes_of_the_catalog() -> None:
    assert tuple(RouteChoice) == catalog.ROUTES
