"""What a plan says a method would train is what the script counts, and what cannot be trained is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from maas_client import catalog
from maas_client.backends.modelfiles import Weights, check_model
from maas_client.backends.trainables import Trainables, check_method
from maas_client.bundled import model_folder, tuning_module
from maas_client.errors import PlanError
from maas_client.spec import JobSpec
from maas_client.trainingspec import MethodSpec

METHODS = get_args(MethodSpec.model_fields["name"].annotation)
PHI_3_MINI = "Phi-3-mini-4k-instruct"


def job(model: str = "tiny-phi3", **method: Any) -> JobSpec:
    data = {"train": "rows.jsonl"}
    return JobSpec.model_validate(
        {"name": "any-job", "task": "chat", "model": model, "data": data, "method": method}
    )


@pytest.fixture(scope="module")
def weights() -> Weights:
    folder = model_folder("tiny-phi3")
    assert folder is not None
    return check_model(folder)


def test_the_methods_of_the_job_file_are_those_of_the_script() -> None:
    assert list(METHODS) == list(tuning_module("methods").METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_plan_counts_what_the_script_trains(weights: Weights, name: str) -> None:
    import torch

    methods = tuning_module("methods")
    method = {"name": name} | ({"freeze_layers": 1} if name == "full" else {})
    told = check_method(job(**method), weights)
    assert told is not None
    base = tuning_module("models").load_model(str(weights.folder), torch.float32)
    model = methods.METHODS[name].prepare(base, tuning_module("config").MethodConfig(**method), 10)
    parameters, trained = methods.count_parameters(model)
    scales = sum(
        value.numel() for part, value in model.named_parameters() if ".ranknum." in part
    )  # AdaLoRA's
    assert (told.parameters, told.trained) == (parameters - scales, trained)


def test_the_line_of_the_plan() -> None:
    step = Trainables("qlora", "nf4", 8_912_896, 3_821_079_552).step()
    assert (step.verb, step.what) == ("train", "qlora on an nf4 base")
    assert step.detail == "8,912,896 of 3,821,079,552 parameters, 0.233 %"


def test_a_model_of_the_catalog_is_counted_by_its_facts() -> None:
    told = check_method(job(PHI_3_MINI, name="lora", rank=16), None)
    assert told is not None
    hidden, inner, layers = 3072, 8192, 32
    by_hand = 16 * layers * ((hidden + 3 * hidden) + 2 * hidden + (hidden + 2 * inner) + (inner + hidden))
    assert told.trained == by_hand
    assert told.parameters == (catalog.find_model(PHI_3_MINI).parameters.value or 0) + by_hand
    full = check_method(job(PHI_3_MINI, name="full"), None)
    assert full is not None
    assert full.share == 1
    frozen = check_method(job(PHI_3_MINI, name="full", freeze_layers=31), None)
    assert frozen is not None
    assert 0 < frozen.trained < full.trained / 10
    assert check_method(job("somebody/unknown"), None) is None


def test_names_are_checked_where_shapes_are_unknown() -> None:
    assert check_method(job("Phi-3-small-8k", target_modules=["query_key_value", "dense"]), None) is None
    with pytest.raises(PlanError, match="names qkv_proj, which the model does not have"):
        check_method(job("Phi-3-small-8k", target_modules=["dense", "qkv_proj"]), None)
    assert check_method(job(PHI_3_MINI, target_modules=["model.layers.3.mlp.down_proj"]), None) is None
    with pytest.raises(PlanError, match="names q_proj"):
        check_method(job(PHI_3_MINI, target_modules=["model.layers.3.self_attn.q_proj"]), None)


@pytest.mark.parametrize("model", ["tiny-phi3", PHI_3_MINI])
def test_names_that_match_only_some_of_what_was_asked(weights: Weights, model: str) -> None:
    found = weights if model == "tiny-phi3" else None
    asked = ["q_proj", "k_proj", "v_proj", "o_proj"]
    with pytest.raises(PlanError) as refused:
        check_method(job(model, target_modules=asked), found)
    assert "names q_proj, k_proj, v_proj, which the model does not have" in refused.value.message
    assert "qkv_proj" in refused.value.hint


def test_a_name_that_is_in_some_blocks_only(tmp_path: Path) -> None:
    shapes = {f"layers.{block}.{name}.weight": (8, 8) for block in range(3) for name in ("one", "two")}
    del shapes["layers.0.two.weight"]
    weights = Weights(tmp_path, shapes, {"num_hidden_layers": 3, "hidden_size": 8})
    with pytest.raises(PlanError, match="two, which is in 2 of the model's 3 blocks only"):
        check_method(job(target_modules=["one", "two"]), weights)


@pytest.mark.parametrize(
    ("method", "message", "hint"),
    [
        ({"name": "ia3", "rank": 4}, "method.rank is not read by ia3.", "Leave it out (ia3 reads"),
        ({"name": "dora", "quantization": "int8"}, "int8 does not work with dora", "Take nf4."),
        ({"name": "full", "quantization": "nf4"}, "packed weights cannot be changed", "Take qlora."),
        ({"name": "full", "freeze_layers": 99}, "method.freeze_layers is 99", ""),
        ({"name": "oft", "rank": 7}, "method.rank is 7", "Accepted: 2, "),
    ],
)
def test_what_does_not_work_is_refused(
    weights: Weights, method: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(PlanError) as refused:
        check_method(job(**method), weights)
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_what_no_adapter_is_put_on(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (9, 4),
        "lm_head.weight": (9, 4),
        "model.layers.0.q_proj.weight": (4, 4),
        "model.layers.0.experts.3.w1.weight": (8, 4),
        "model.norm.weight": (4,),
    }
    weights = Weights(tmp_path, shapes, {"tie_word_embeddings": True})
    assert weights.linear_layers() == {"model.layers.0.q_proj": (4, 4)}
    assert weights.parameters == 9 * 4 + 4 * 4 + 8 * 4 + 4


def test_the_page_of_methods_says_what_the_table_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0].strip("`") for row in rows] == list(METHODS)
    for name, row in zip(METHODS, rows, strict=True):
        method = tuning_module("methods").METHODS[name]
        told = check_method(job(PHI_3_MINI, name=name), None)
        assert told is not None
        assert row[1] == f"{100 * told.share:.3g} %"
        assert set(row[2].split(", ")) == method.keys
        assert set(row[3].replace(" always", "").replace(",", "").split()) == method.takes_quantized
        assert row[4] == ("yes" if method.is_mergeable else "no") * method.is_adapter
