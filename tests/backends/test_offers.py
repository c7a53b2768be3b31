"""Which model is taken on which route, when and where: every Phi, on dates and in regions."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from maas_client.backends.offers import require_offer, today
from maas_client.errors import PlanError

BEFORE, LAST, RETIRED, NOW = date(2025, 6, 1), date(2025, 8, 29), date(2025, 8, 30), date(2026, 11, 26)
SIX = ("eastus", "eastus2", "northcentralus", "southcentralus", "westus", "westus3")
TUNED_UNTIL_2025 = (
    "Phi-3-mini-4k-instruct",
    "Phi-3-mini-128k-instruct",
    "Phi-3-medium-4k-instruct",
    "Phi-3-medium-128k-instruct",
    "Phi-3.5-mini-instruct",
    "Phi-3.5-MoE-instruct",
)
NEVER_TUNED = (
    "Phi-3-small-8k-instruct",
    "Phi-3-small-128k-instruct",
    "Phi-3.5-vision-instruct",
    "Phi-4-mini-reasoning",
    "Phi-4-reasoning",
)
TUNED_NOW = ("Phi-4", "Phi-4-mini-instruct", "Phi-4-multimodal-instruct")
REPLACEMENTS = {"Phi-3-medium-4k-instruct": "Phi-4", "Phi-3-medium-128k-instruct": "Phi-4"}


def refusal(name: str, day: date, region: str | None = None) -> PlanError | None:
    try:
        require_offer(name, "foundry-classic", on=day, region=region)
    except PlanError as error:
        return error
    return None


@pytest.mark.parametrize("name", TUNED_UNTIL_2025)
@pytest.mark.parametrize(("day", "taken"), [(BEFORE, True), (LAST, True), (RETIRED, False), (NOW, False)])
def test_phi_3_and_3_5_are_tuned_until_their_retirement(name: str, day: date, taken: bool) -> None:
    assert (refusal(name, day, "eastus2") is None) is taken


@pytest.mark.parametrize("name", TUNED_UNTIL_2025)
def test_a_retired_model_is_refused_with_date_source_replacement_and_other_routes(name: str) -> None:
    error = refusal(name, NOW)
    assert error is not None
    assert "2025-08-30" in error.message
    assert "retired models, 2026-04-23" in error.message
    assert f"{REPLACEMENTS.get(name, 'Phi-4-mini-instruct')} on the same route" in error.hint
    assert f"{name} on azureml or local" in error.hint
    assert "as of 2026-11-26; --date" in error.hint
    assert error.exit_code == 2


@pytest.mark.parametrize("name", TUNED_UNTIL_2025)
@pytest.mark.parametrize("region", SIX)
def test_before_that_they_were_tuned_in_one_region(name: str, region: str) -> None:
    assert (refusal(name, BEFORE, region) is None) is (region == "eastus2")


@pytest.mark.parametrize("name", NEVER_TUNED)
@pytest.mark.parametrize("day", [BEFORE, NOW])
def test_some_were_never_tuned(name: str, day: date) -> None:
    error = refusal(name, day)
    assert error is not None
    assert f"{name} is not offered on foundry-classic" in error.message
    assert f"{name} on azureml or local" in error.hint
    assert "--date" not in error.hint


@pytest.mark.parametrize("name", TUNED_NOW)
@pytest.mark.parametrize("region", [*SIX, "East US 2", "West US 3", None])
@pytest.mark.parametrize("day", [BEFORE, NOW])
def test_phi_4_is_tuned_in_six_regions(name: str, region: str | None, day: date) -> None:
    assert refusal(name, day, region) is None


@pytest.mark.parametrize("name", TUNED_NOW)
@pytest.mark.parametrize("region", ["westeurope", "Sweden Central", "eastus3", "japaneast"])
def test_elsewhere_it_is_refused_with_the_regions(name: str, region: str) -> None:
    error = refusal(name, NOW, region)
    assert error is not None
    assert region in error.message
    assert "serverless regions, 2026-02-17" in error.message
    assert all(each in error.hint for each in SIX)
    assert "service's own catalog" in error.hint


@pytest.mark.parametrize("name", [*TUNED_UNTIL_2025, *NEVER_TUNED, *TUNED_NOW])
@pytest.mark.parametrize("route", ["azureml", "local"])
def test_open_weights_outlive_the_service(name: str, route: str) -> None:
    model, cautions = require_offer(name, route, on=NOW)  # type: ignore[arg-type]
    assert model is not None
    assert cautions == ()


@pytest.mark.parametrize("name", [*TUNED_UNTIL_2025, *NEVER_TUNED, *TUNED_NOW])
def test_no_phi_is_tuned_by_a_foundry_resource(name: str) -> None:
    with pytest.raises(PlanError, match="foundry-openai-v1"):
        require_offer(name, "foundry-openai-v1", on=NOW)


@pytest.mark.parametrize(
    "name",
    [
        "microsoft/Phi-3-mini-4k-instruct",
        "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/13",
    ],
)
def test_other_names_of_a_retired_model_are_refused_too(name: str) -> None:
    with pytest.raises(PlanError, match="no longer taken"):
        require_offer(name, "foundry-classic", on=NOW)


def test_a_model_for_existing_customers_is_taken_with_a_caution() -> None:
    _, cautions = require_offer("gpt-4o-mini", "foundry-openai-v1", on=NOW)
    assert len(cautions) == 1
    assert "closed to new customers" in cautions[0]
    assert "2027-04-01" in cautions[0]


def test_a_closing_date_and_an_invitation_are_said() -> None:
    _, cautions = require_offer("gpt-5", "foundry-openai-v1", on=NOW)
    assert "until 2027-02-06" in cautions[0]
    assert "by invitation" in cautions[1]


def test_a_deprecated_model_is_taken_with_a_caution() -> None:
    _, cautions = require_offer("gpt-4o-mini", "foundry-openai-v1", on=date(2026, 8, 1))
    assert any("deprecated; gpt-4.1-mini replaces it" in one for one in cautions)


def test_what_the_catalog_does_not_know_is_not_refused() -> None:
    assert require_offer("org/some-model", "azureml", on=NOW) == (None, ())


def test_a_route_that_never_knew_the_model_gets_no_replacement_for_it() -> None:
    with pytest.raises(PlanError) as caught:
        require_offer("gpt-4o-mini", "azureml", on=NOW)
    assert "gpt-4.1-mini" not in caught.value.hint
    assert "foundry-openai-v1" in caught.value.hint


def test_the_day_is_that_of_the_clock_in_utc() -> None:
    almost_midnight = datetime(2026, 11, 26, 23, 59, 59, tzinfo=UTC).timestamp()
    assert today(lambda: almost_midnight) == NOW
    assert today(lambda: almost_midnight + 1) == date(2026, 11, 27)
