"""What does not work together is refused with a reason; what is allowed on a quantized base trains there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_stage import JOBS

from tuning.combinations import refusal
from tuning.config import parse_config
from tuning.errors import InputError
from tuning.methods import METHODS
from tuning.models import load_model
from tuning.quantization import unpack
from tuning.sharding import OFFLOADS

IDS = torch.arange(5, 45).reshape(2, 20)


def refused(method: dict[str, Any], **more: Any) -> str | None:
    return refusal(parse_config({"task": "chat", "method": method, **more}))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_alone_works(name: str) -> None:
    assert refused({"name": name}) is None


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (
            {"name": "ia3", "rank": 8},
            "method.rank is not read by ia3; leave it out (ia3 reads target_modules",
        ),
        ({"name": "prompt", "target_modules": ["o_proj"]}, "method.target_modules is not read by prompt"),
        ({"name": "loha", "dropout": 0.1}, "method.dropout is not read by loha"),
        ({"name": "full", "rank": 8}, "full reads freeze_layers"),
        ({"name": "lora", "virtual_tokens": 8}, "method.virtual_tokens is not read by lora"),
        ({"name": "lora", "freeze_layers": 1}, "method.freeze_layers is not read by lora"),
        ({"name": "full", "quantization": "nf4"}, "packed weights cannot be changed; take qlora"),
        ({"name": "pissa", "quantization": "int8"}, "out of the base"),
        ({"name": "dora", "quantization": "int8"}, "does not train beside 8-bit layers; take nf4"),
        ({"name": "loha", "quantization": "nf4"}, "take int8 or qlora"),
        ({"name": "lokr", "quantization": "nf4"}, "take int8 or qlora"),
        ({"name": "qlora", "quantization": "int8"}, "for another format take lora"),
    ],
)
def test_what_is_refused(method: dict[str, Any], words: str) -> None:
    assert words in (refused(method) or "")


def test_recomputed_layers_would_read_a_prefix_twice() -> None:
    training = {"gradient_checkpointing": True}
    assert "gradient_checkpointing" in (refused({"name": "prefix"}, training=training) or "")
    assert refused({"name": "prompt"}, training=training) is None


@pytest.mark.parametrize(
    ("method", "strategy", "words"),
    [
        ({"name": "qlora"}, "zero3", "zero3 does not work with qlora: bitsandbytes keeps each weight"),
        ({"name": "lora", "quantization": "nf4"}, "zero3", "method.quantization nf4: bitsandbytes keeps"),
        ({"name": "lora", "quantization": "int8"}, "zero3", "would hold the whole base again; take zero2"),
        ({"name": "lora", "quantization": "int8"}, "fsdp", "are lost where they are split"),
        ({"name": "adalora"}, "zero1", "take none or ddp"),
        ({"name": "prompt"}, "zero3", "which no process has; take zero2 or ddp"),
        ({"name": "prefix"}, "fsdp", "which no process has"),
        ({"name": "p-tuning"}, "fsdp", "which no process has"),
    ],
)
def test_what_is_refused_of_strategies(method: dict[str, Any], strategy: str, words: str) -> None:
    assert words in (refused(method, distributed={"strategy": strategy}) or "")
    for whole in ("none", "ddp"):
        assert refused(method, distributed={"strategy": whole}) is None


@pytest.mark.parametrize("strategy", OFFLOADS)
@pytest.mark.parametrize("offload", ["optimizer", "all"])
def test_only_some_strategies_offload(strategy: str, offload: str) -> None:
    reason = refused({"name": "lora"}, distributed={"strategy": strategy, "offload": offload})
    assert (reason is None) == (offload in OFFLOADS[strategy])
    if reason:
        assert f"with strategy {strategy}; accepted: none" in reason


def evaluate_and_train_twice(model: Any) -> None:
    """An evaluation must not cost the gradients, nor the first step the second one."""
    for _ in range(2):
        with torch.no_grad():
            model.eval()(input_ids=IDS)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].is_adapter])
def test_quantized_bases_are_taken_where_they_work_and_only_there(
    mini_model: Path, name: str, quantization: str
) -> None:
    method = {"name": name, "quantization": quantization}
    config = parse_config({"task": "chat", "method": method}).method
    base = load_model(str(mini_model), torch.float32, quantization)
    if refused(method):
        assert quantization not in METHODS[name].takes_quantized
        if name != "qlora":  # whose other formats are lora's
            with pytest.raises((RuntimeError, TypeError, AttributeError)):
                evaluate_and_train_twice(METHODS[name].prepare(base, config, 10))
        return
    model = METHODS[name].prepare(base, config, 10)
    evaluate_and_train_twice(model)
    gradients = [value.grad for value in model.parameters() if value.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.norm()) for gradient in gradients if gradient is not None) > 0


def test_unpacked_weights_compute_what_packed_ones_did(mini_model: Path) -> None:
    for quantization, limit in (("nf4", 1e-5), ("int8", 0.1)):
        packed = load_model(str(mini_model), torch.float32, quantization).eval()
        with torch.no_grad():
            expected = packed(input_ids=IDS).logits
            plain = unpack(load_model(str(mini_model), torch.float32, quantization), torch.float32).eval()
            assert (plain(input_ids=IDS).logits - expected).abs().max() <= limit
            original = load_model(str(mini_model), torch.float32).eval()(input_ids=IDS).logits
        assert (original - expected).abs().max() > 1e-3
        assert "quantization_config" not in plain.config.to_dict()


def test_a_missing_bitsandbytes_is_one_sentence(mini_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"pip install 'maas-client\[quantized\]'") as missing:
        load_model(str(mini_model), torch.float32, "nf4")
    assert "\n" not in str(missing.value)


@pytest.mark.slow
def test_an_unquantized_run_does_not_import_bitsandbytes(mini_model: Path) -> None:
    code = (
        "import sys, torch; from tuning.methods import METHODS; from tuning.models import load_model; "
        "from tuning.config import MethodConfig; base = load_model(sys.argv[1], torch.float32); "
        "METHODS['lora'].prepare(base, MethodConfig()); assert 'peft' in sys.modules; "
        "assert 'bitsandbytes' not in sys.modules"
    )
    words = [sys.executable, "-c", code, str(mini_model)]
    done = subprocess.run(words, cwd=JOBS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
