"""Finding models, GPU sizes and prices; what holds on which day; why a route refuses."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client import catalog
from maas_client.errors import PlanError

TODAY = date(2026, 11, 24)
RETIRED = date(2025, 8, 30)
DAYS = st.dates(min_value=date(2020, 1, 1), max_value=date(2035, 12, 31))
MODELS = st.sampled_from(catalog.models())


@pytest.mark.parametrize(
    "name",
    [
        "Phi-3-mini-4k-instruct",
        "phi-3-MINI-4k-instruct",
        " microsoft/Phi-3-mini-4k-instruct ",
        "Phi-3-mini-4k",
        "azureml://registries/azureml/models/Phi-3-mini-4k-instruct",
        "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/14",
    ],
)
def test_a_model_is_found_by_every_name_it_has(name: str) -> None:
    assert catalog.find_model(name).name == "Phi-3-mini-4k-instruct"


@given(MODELS)
def test_every_name_of_a_model_finds_it_in_any_case(model: catalog.Model) -> None:
    for name in model.names:
        assert catalog.lookup(name.upper()) is model
        assert catalog.lookup(name.lower()) is model


def test_what_the_catalog_does_not_know_is_none() -> None:
    assert catalog.lookup("someone/else") is None
    assert catalog.lookup("") is None
    assert catalog.price("Standard_NC6s_v3") is None
    assert catalog.price("nothing") is None


def test_an_unknown_model_is_refused_with_close_names() -> None:
    with pytest.raises(PlanError, match="no model named 'Phi-4-mini-instrct'") as caught:
        catalog.find_model("Phi-4-mini-instrct")
    assert "Phi-4-mini-instruct" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_name_like_no_other_is_refused_with_the_command_that_lists_them() -> None:
    with pytest.raises(PlanError) as caught:
        catalog.find_model("zzzzzz")
    assert "maas models list" in caught.value.hint


def test_a_gpu_size_is_found_with_and_without_its_prefix() -> None:
    size = catalog.find_gpu("nc24ads_a100_v4")
    assert size is catalog.find_gpu("Standard_NC24ads_A100_v4")
    assert (size.gpus, size.gpu_memory_gib) == (1, 80)
    with pytest.raises(PlanError) as caught:
        catalog.find_gpu("Standard_NC24ads_A100_v5")
    assert "Standard_NC24ads_A100_v4" in caught.value.hint


def test_a_price_has_its_source() -> None:
    price = catalog.price("standard_nc24ads_a100_v4")
    assert price is not None
    assert price.usd_per_hour == 3.673
    assert "skypilot" in str(price.source)


@given(DAYS)
def test_phi_3_is_retired_on_the_day_and_ever_after(day: date) -> None:
    model = catalog.find_model("Phi-3-mini-4k-instruct")
    stage = model.lifecycle_on(day)
    names = [route.name for route in model.routes_on(day)]
    if day < RETIRED:
        assert stage.state == "ga"
        assert names == ["foundry-classic", "azureml", "local"]
    else:
        assert stage.state == "retired"
        assert stage.replacement == "Phi-4-mini-instruct"
        assert names == ["azureml", "local"]
    assert stage.retires_on == RETIRED


@given(MODELS, DAYS)
def test_a_life_never_runs_backwards(model: catalog.Model, day: date) -> None:
    order = ["ga", "deprecated", "retired"]
    today = model.lifecycle_on(day)
    tomorrow = model.lifecycle_on(day + timedelta(days=1))
    assert order.index(today.state) <= order.index(tomorrow.state)
    assert (today.state == "retired") == (today.retires_on is not None and day >= today.retires_on)


@given(MODELS, DAYS, st.sampled_from(catalog.ROUTES))
def test_a_route_is_refused_exactly_when_it_does_not_take_the_model(
    model: catalog.Model, day: date, route: catalog.RouteName
) -> None:
    taken = route in [open_route.name for open_route in model.routes_on(day)]
    refusal = model.refusal(route, day)
    assert (refusal is None) == taken
    if refusal:
        assert model.name in refusal.message
        assert refusal.hint.endswith(".")
        assert route not in refusal.other_routes


def test_the_refusal_of_a_retired_model_names_source_date_replacement_and_other_routes() -> None:
    refusal = catalog.find_model("Phi-3-mini-4k-instruct").refusal("foundry-classic", TODAY)
    assert refusal is not None
    assert refusal.message == (
        "Phi-3-mini-4k-instruct is no longer taken on foundry-classic since 2025-08-30 "
        "(Microsoft Foundry: retired models, 2026-04-23)"
    )
    assert refusal.hint == (
        "Use Phi-4-mini-instruct on the same route, or Phi-3-mini-4k-instruct on azureml or local."
    )
    assert refusal.source is not None
    assert refusal.source.date == date(2026, 4, 23)
    assert refusal.replacement == "Phi-4-mini-instruct"
    assert refusal.other_routes == ("azureml", "local")


@pytest.mark.parametrize(
    ("day", "access"),
    [
        (date(2026, 9, 30), "open"),
        (date(2026, 10, 1), "existing-customers"),
        (date(2027, 3, 31), "existing-customers"),
        (date(2027, 4, 1), "closed"),
    ],
)
def test_gpt_4o_closes_for_new_customers_first(day: date, access: catalog.Access) -> None:
    model = catalog.find_model("gpt-4o")
    route = model.route("foundry-openai-v1")
    assert route is not None
    assert route.access_on(day) == access
    assert (model.refusal("foundry-openai-v1", day) is None) == (access != "closed")


def test_a_wrong_region_is_refused_with_the_right_ones() -> None:
    model = catalog.find_model("Phi-4")
    assert model.refusal("foundry-classic", TODAY, "East US 2") is None
    assert model.refusal("foundry-classic", TODAY, "eastus2") is None
    refusal = model.refusal("foundry-classic", TODAY, "westeurope")
    assert refusal is not None
    assert "in westeurope" in refusal.message
    assert "eastus2" in refusal.hint


def test_a_route_that_a_source_rules_out_is_refused_on_every_day() -> None:
    model = catalog.find_model("Phi-4-reasoning")
    refusal = model.refusal("foundry-classic", date(2025, 1, 1))
    assert refusal is not None
    assert "is not offered on foundry-classic" in refusal.message
    unknown = model.refusal("foundry-openai-v1", TODAY)
    assert unknown is not None
    assert "is not known to be offered" in unknown.message


def test_a_route_that_opens_later_is_refused_until_then() -> None:
    route = catalog.Route("local", catalog.models()[0].stages[0].source, opens=date(2027, 1, 1))
    assert route.access_on(date(2026, 12, 31)) == "not-yet"
    assert route.access_on(date(2027, 1, 1)) == "open"


def test_reading_the_catalog_is_quick() -> None:
    script = (
        "import time; from maas_client import catalog; t = time.perf_counter();"
        "catalog.models(); catalog.gpus(); catalog.price('x'); print(time.perf_counter() - t)"
    )
    seconds = []
    for _ in range(5):
        shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        seconds.append(float(shown.stdout))
    assert min(seconds) < 0.010


def test_reading_twice_costs_nothing() -> None:
    catalog.models()
    start = time.perf_counter()
    for _ in range(1000):
        catalog.lookup("Phi-4")
    assert time.perf_counter() - start < 0.1
    assert catalog.models() is catalog.models()


def test_the_catalog_imports_nothing_heavy() -> None:
    script = (
        "import sys; from maas_client import catalog; catalog.models();"
        "print(sorted({'azure', 'torch', 'pydantic', 'httpx', 'rich', 'typer', 'yaml'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
