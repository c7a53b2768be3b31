"""Merging: the same answers from full weights, and nothing half-done."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import merge
from tests.jobs.server_stage import ROOT, environment, make_adapter, make_model
from tuning.errors import FailedError, InputError
from tuning.models import load_adapter, load_model, load_tokenizer

PROMPT = "Which card was charged twice?"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return make_adapter(make_model(folder / "base"), folder / "adapter")


def logits(model: torch.nn.Module, tokenizer_folder: Path) -> torch.Tensor:
    ids = load_tokenizer(str(tokenizer_folder))(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found


def test_the_merged_model_says_the_same(adapter: Path, tmp_path: Path) -> None:
    result = merge.merge(str(adapter), tmp_path)
    base = adapter.parent / "base"
    tuned = logits(load_adapter(load_model(str(base), torch.float32), adapter), base)
    merged = logits(load_model(str(tmp_path / "model"), torch.float32), tmp_path / "model")
    plain = logits(load_model(str(base), torch.float32), base)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result is not None
    assert 0 < result["max_logit_difference"] < 1e-3
    assert result["top1_agreement"] == 1.0
    assert (merged - tuned).abs().max() < 1e-3 < (merged - plain).abs().max()
    assert not list(tmp_path.glob(".*"))


def test_the_format_of_the_base_is_kept(adapter: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    model = load_model(str(adapter.parent / "base"), torch.bfloat16)
    model.save_pretrained(str(half))
    load_tokenizer(str(adapter.parent / "base")).save_pretrained(str(half))
    result = merge.merge(str(adapter), tmp_path / "out", base=str(half), max_difference=50)
    assert result is not None
    assert result["number_format"] == "bfloat16"
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_finished_merge_is_left_alone(adapter: Path, tmp_path: Path) -> None:
    merge.merge(str(adapter), tmp_path)
    before = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert merge.merge(str(adapter), tmp_path) is None
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_too_large_a_difference_keeps_nothing(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="differs from base"):
        merge.merge(str(adapter), tmp_path, max_difference=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_merged_is_refused(adapter: Path, tmp_path: Path) -> None:
    base = adapter.parent / "base"
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        merge.merge(str(base), tmp_path / "out")
    with pytest.raises(InputError, match="pass --base"):
        merge.merge(str(adapter), tmp_path / "out", base=str(tmp_path / "gone"))
    with pytest.raises(InputError, match="another --output"):
        merge.merge(str(adapter), adapter)
    other = make_model(tmp_path / "other", hidden_size=48, num_attention_heads=4)
    with pytest.raises(InputError, match="Cannot load the adapter"):
        merge.merge(str(adapter), tmp_path / "out", base=str(other))
    torn = Path(shutil.copytree(adapter, tmp_path / "torn"))
    (torn / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="save it as safetensors"):
        merge.merge(str(torn), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_prompt_tuning_cannot_be_merged(adapter: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    base = adapter.parent / "base"
    shape = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    get_peft_model(load_model(str(base), torch.float32), shape).save_pretrained(str(tmp_path / "prompt"))
    with pytest.raises(InputError, match="PROMPT_TUNING cannot be merged"):
        merge.merge(str(tmp_path / "prompt"), tmp_path / "out", base=str(base))


@pytest.mark.slow
def test_a_killed_merge_is_done_by_the_next_one(adapter: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(ROOT / "jobs" / "merge.py"),
        "--model",
        str(adapter),
        "--output",
        str(tmp_path),
    ]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while not (tmp_path / ".model.partial").exists() and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "model").exists()
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "equal first choices 100%" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "result.json"]
