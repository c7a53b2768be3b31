"""The catalog's files: every fact has a source and a date, and what is unknown says so."""

from __future__ import annotations

import json
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from maas_client import catalog
from maas_client.bundled import model_folder

FILES = ("models.json", "gpus.json", "prices.json")
SIZES = Path(__file__).parents[3] / "shared" / "azure" / "vm-sizes" / "gpu_sizes.json"


def read(name: str) -> Any:
    return json.loads(files("maas_client.catalog").joinpath(name).read_bytes())


@pytest.mark.parametrize("name", FILES)
def test_every_source_has_a_title_a_place_and_iso_dates(name: str) -> None:
    sources = read(name)["sources"]
    assert sources
    for key, source in sources.items():
        assert set(source) == {"title", "url", "dated", "read"}, key
        assert source["title"], key
        assert source["url"].startswith(("https://", "docs/", "models/")), key
        read_on = date.fromisoformat(source["read"])
        if source["dated"] is not None:
            assert date.fromisoformat(source["dated"]) <= read_on, key


@pytest.mark.parametrize("name", FILES)
def test_every_source_is_used(name: str) -> None:
    data = read(name)
    rest = json.dumps({key: value for key, value in data.items() if key != "sources"})
    assert [key for key in data["sources"] if f'"{key}"' not in rest] == []


@pytest.mark.parametrize("row", read("models.json")["models"], ids=lambda row: row["name"])
def test_every_fact_of_a_model_is_sourced_or_explicitly_unknown(row: dict[str, Any]) -> None:
    assert tuple(row["facts"]) == catalog.FACT_NAMES
    for name, fact in row["facts"].items():
        assert set(fact) - {"note"} == {"value", "source"}, name
        assert (fact["value"] is None) == (fact["source"] is None), name
        assert fact["value"] not in ("", [], "unknown"), name


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.name)
def test_every_model_has_a_life_and_a_route(model: catalog.Model) -> None:
    assert model.stages[0].since is None
    begun = [stage.since for stage in model.stages[1:]]
    assert all(begun)
    assert begun == sorted(begun)  # type: ignore[type-var]
    assert model.routes
    assert len({route.name for route in model.routes}) == len(model.routes)
    for route in model.routes:
        assert route.name in catalog.ROUTES
        assert route.offered or (route.closes is None and route.regions is None)
        assert (route.closes is None) == (route.closes_source is None)
        days = [route.opens, route.closes, route.existing_customers_until, route.deployments_until]
        known = [day for day in days if day]
        assert known == sorted(known)


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.name)
def test_weights_that_are_not_public_stay_on_the_service(model: catalog.Model) -> None:
    own_compute = {"azureml", "local"} & {route.name for route in model.routes}
    assert bool(own_compute) == bool(model.open_weights.value)


def test_a_replacement_is_a_known_model_or_newer_than_the_catalog() -> None:
    newer = {"gpt-5.1"}
    replacements = {stage.replacement for model in catalog.models() for stage in model.stages} - {None}
    assert {name for name in replacements if name and catalog.lookup(name) is None} == newer


def test_no_two_models_share_a_name() -> None:
    owners: dict[str, str] = {}
    for model in catalog.models():
        for name in model.names:
            assert owners.setdefault(name.lower(), model.name) == model.name


def computed_parameters(model: catalog.Model) -> int:
    """Weights of the fused Phi-3 layout with separate embedding and head, norms left out."""
    hidden, layers, heads, shared, inner, words = (
        fact.value or 0
        for fact in (
            model.hidden_size,
            model.layers,
            model.attention_heads,
            model.key_value_heads,
            model.intermediate_size,
            model.vocabulary_size,
        )
    )
    head = hidden // heads
    attention = hidden * (hidden + 2 * shared * head) + hidden * hidden
    return layers * (attention + 3 * hidden * inner) + 2 * words * hidden


@pytest.mark.parametrize(
    "name", ["Phi-3-mini-4k-instruct", "Phi-3-mini-128k-instruct", "Phi-3-medium-4k-instruct", "Phi-4"]
)
def test_sizes_and_parameters_tell_the_same_story(name: str) -> None:
    model = catalog.find_model(name)
    assert model.parameters.value == pytest.approx(computed_parameters(model), rel=0.03)


def test_fused_layers_are_named_for_the_phi_3_layout_and_not_for_the_others() -> None:
    fused = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    for model in catalog.models():
        if model.architecture.value == "Phi3ForCausalLM":
            assert model.linear_modules.value == fused, model.name
    assert catalog.find_model("Phi-3-small-8k").linear_modules.value == (
        "query_key_value",
        "dense",
        "up_proj",
        "down_proj",
    )
    assert "gate_up_proj" not in (catalog.find_model("Phi-3.5-MoE").linear_modules.value or ())


@pytest.mark.skipif(model_folder("tiny-phi3") is None, reason="the bundled model is not built yet")
def test_the_bundled_model_is_what_its_own_config_says() -> None:
    model = catalog.find_model("tiny-phi3")
    assert model.folder is not None
    config = json.loads((model.folder / "config.json").read_text())
    assert [model.architecture.value] == config["architectures"]
    assert model.hidden_size.value == config["hidden_size"]
    assert model.layers.value == config["num_hidden_layers"]
    assert model.attention_heads.value == config["num_attention_heads"]
    assert model.key_value_heads.value == config["num_key_value_heads"]
    assert model.intermediate_size.value == config["intermediate_size"]
    assert model.vocabulary_size.value == config["vocab_size"]
    assert model.context_tokens.value == config["max_position_embeddings"]
    assert model.parameters.value == weights_in(model.folder / "model.safetensors")


def weights_in(file: Path) -> int:
    """Numbers in a safetensors file, from its header alone."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    header.pop("__metadata__", None)
    total = 0
    for tensor in header.values():
        count = 1
        for side in tensor["shape"]:
            count *= side
        total += count
    return total


def test_there_are_twenty_gpu_sizes_with_sources() -> None:
    assert len({gpu.name for gpu in catalog.gpus()}) == 20
    for gpu in catalog.gpus():
        assert gpu.sources, gpu.name
        assert gpu.gpu_memory_gib % gpu.gpus == 0, gpu.name


@pytest.mark.skipif(not SIZES.is_file(), reason="the reference list of GPU sizes is not here")
def test_the_gpu_sizes_equal_the_reference_list() -> None:
    reference = {
        row["name"]: (
            row["gpu_model"],
            row["gpus"],
            row["gpu_memory_gib_total"],
            row["vcpus"],
            row["ram_gib"],
            row.get("quota_family"),
        )
        for row in json.loads(SIZES.read_text())["sizes"]
    }
    shipped = {
        gpu.name: (gpu.gpu_model, gpu.gpus, gpu.gpu_memory_gib, gpu.vcpus, gpu.ram_gib, gpu.quota_family)
        for gpu in catalog.gpus()
    }
    assert shipped == reference


def test_every_gpu_size_has_a_price_or_says_that_it_is_unknown() -> None:
    rows = {row["name"]: row for row in read("prices.json")["prices"]}
    assert set(rows) >= {gpu.name for gpu in catalog.gpus()}
    for name, row in rows.items():
        assert (row["usd_per_hour"] is None) == (row["source"] is None), name
        is_free = row.get("note", "").startswith("no hourly fee")
        assert row["usd_per_hour"] is None or row["usd_per_hour"] > 0 or is_free, name
