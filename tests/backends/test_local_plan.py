"""What is refused before anything starts, in which words, and what is only warned of."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.local.jobs import LocalJobs
from maas_client.bundled import model_folder
from maas_client.errors import DataError, PlanError, UsageError
from maas_client.plan import Plan
from maas_client.spec import JobSpec

Planner = Callable[..., Plan]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n')
    return path


@pytest.fixture
def planner(tmp_path: Path, rows: Path) -> Planner:
    def plan(**parts: Any) -> Plan:
        data = {"train": str(rows)}
        wanted = {"name": "card", "task": "classification", "model": "tiny-phi3", "data": data}
        return LocalJobs(tmp_path / "home").plan(JobSpec.model_validate({**wanted, **parts}))

    return plan


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the shipped model, to be spoiled."""
    shipped = model_folder("tiny-phi3")
    assert shipped is not None
    return Path(shutil.copytree(shipped, tmp_path / "model"))


def refused(planner: Planner, error: type[UsageError] = PlanError, **parts: Any) -> UsageError:
    with pytest.raises(error) as raised:
        planner(**parts)
    assert raised.value.hint
    assert "\n" not in raised.value.message
    return raised.value


def test_a_plan_decides_everything_and_writes_nothing(planner: Planner, tmp_path: Path, rows: Path) -> None:
    plan = planner()
    assert (plan.backend, plan.target, plan.is_free) == ("local", "this machine", True)
    assert [step.verb for step in plan.steps] == ["copy", "write", "copy", "use", "train", "start"]
    assert set(plan.hashes) == {"code", "config", "train", "model"}
    assert plan.warnings == ()
    assert not (tmp_path / "home").exists()
    assert planner().fingerprint == plan.fingerprint
    rows.write_text('{"text": "a", "label": "c"}\n')
    assert planner().fingerprint != plan.fingerprint


def test_data_that_cannot_be_used(planner: Planner, tmp_path: Path, rows: Path) -> None:
    assert "no data file" in refused(planner, DataError, data={"train": str(tmp_path / "none.jsonl")}).message
    assert "is a folder" in refused(planner, DataError, data={"train": str(tmp_path)}).message
    validation = {"train": str(rows), "validation": {"file": str(tmp_path / "held.jsonl")}}
    assert "held.jsonl" in refused(planner, DataError, data=validation).message
    rows.write_text("")
    assert "is empty" in refused(planner, DataError).message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "no weights"),
    ],
)
def test_a_model_folder_that_lacks_something(planner: Planner, model: Path, name: str, words: str) -> None:
    (model / name).unlink()
    assert words in refused(planner, model=str(model)).message


def test_an_adapter_is_no_model(planner: Planner, model: Path) -> None:
    (model / "config.json").rename(model / "adapter_config.json")
    assert "adapter" in refused(planner, model=str(model)).message


def test_a_missing_model_folder(planner: Planner, tmp_path: Path) -> None:
    assert "no model folder" in refused(planner, model=str(tmp_path / "none")).message
    assert "no model folder" in refused(planner, model="./none").message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xff", b"{}"])
def test_a_config_that_is_none(planner: Planner, model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    assert "config.json" in refused(planner, model=str(model)).message


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff" * 64, struct.pack("<Q", 5) + b"[1,2]", struct.pack("<Q", 9) + b'{"a": {}}'],
)
def test_weights_that_are_no_safetensors(planner: Planner, model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "not a safetensors file" in refused(planner, model=str(model)).message


def test_weights_cut_short(planner: Planner, model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "cut short" in refused(planner, model=str(model)).message


def test_an_index_that_names_missing_files(planner: Planner, model: Path) -> None:
    index = {"weight_map": {"a": "model-00001.safetensors", "b": "model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks model-00001.safetensors" in refused(planner, model=str(model)).message


def test_target_modules_must_all_exist(planner: Planner) -> None:
    planner(method={"target_modules": ["qkv_proj", "o_proj"]})
    error = refused(planner, method={"target_modules": ["qkv_proj", "qkv_prj", "v_proj"]})
    assert "names qkv_prj, v_proj, which the model does not have." in error.message
    assert error.hint.startswith("Did you mean qkv_proj")
    assert "gate_up_proj" in error.hint


def test_a_full_path_of_a_layer_is_a_target(planner: Planner) -> None:
    path = "layers.0.self_attn.qkv_proj"
    assert planner(method={"target_modules": [path]}).spec.method.target_modules == [path]


def test_more_processes_than_cores_are_warned_of(planner: Planner) -> None:
    warnings = planner(distributed={"strategy": "ddp", "processes": 64}).warnings
    assert any("64 processes" in warning for warning in warnings)


def test_a_download_is_warned_of(planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    plan = planner(model="some/model")
    assert any("downloaded" in warning for warning in plan.warnings)
    assert "download" in [step.verb for step in plan.steps]
    (tmp_path / "hf/hub/models--some--model/snapshots").mkdir(parents=True)
    assert planner(model="some/model").warnings == ()


def test_a_model_that_nobody_can_download_is_refused(planner: Planner) -> None:
    error = refused(planner, model="gpt-4o-mini")
    assert "gpt-4o-mini is not known to be offered on local" in error.message
    assert "foundry-openai-v1" in error.hint


def test_a_model_that_no_disk_holds_is_refused(planner: Planner, model: Path) -> None:
    side = 1 << 24
    header = {"layers.0.o_proj.weight": {"dtype": "F32", "shape": [side, side], "data_offsets": [0, 0]}}
    raw = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    error = refused(planner, model=str(model), method={"name": "full"})
    assert "are free" in error.message
    lora = planner(model=str(model), method={"name": "lora"})
    assert any("memory" in warning for warning in lora.warnings)


def test_a_quantized_base_needs_its_package(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert planner(method={"name": "lora"})
    error = refused(planner, method={"name": "qlora"})
    assert error.message == "Training on this machine needs bitsandbytes."
    assert error.hint == 'Install it: pip install "maas-client[quantized]"'


def test_zero_needs_deepspeed(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    for strategy in ("ddp", "fsdp"):
        assert planner(distributed={"strategy": strategy, "processes": 2})
    error = refused(planner, distributed={"strategy": "zero2", "processes": 2})
    assert error.message == "Training on this machine needs deepspeed."
    assert error.hint == 'Install it: pip install "maas-client[deepspeed]"'


def test_pairs_that_do_not_work_are_refused_by_the_plan(planner: Planner) -> None:
    error = refused(planner, method={"name": "qlora"}, distributed={"strategy": "zero3", "processes": 2})
    assert "distributed.strategy zero3 does not work with qlora" in str(error)


def test_a_catalog_name_means_its_weights_on_hugging_face(planner: Planner) -> None:
    assert planner(model="Phi-3-mini-4k-instruct").job.inputs["model"] == "microsoft/Phi-3-mini-4k-instruct"
    assert planner(model="some/model").job.inputs["model"] == "some/model"
    assert "Phi-4-mini-instruct" in refused(planner, model="Phi-4-mini-instuct").hint
    assert "not known to be offered on local" in refused(planner, model="gpt-4.1-mini").message
