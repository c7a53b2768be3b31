"""What a plan says of memory, time and sizes: numbers that can be checked by hand, or why there are none."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from maas_client import catalog
from maas_client.backends.azureml.planning import plan_run
from maas_client.backends.duration import BYTES_A_TOKEN, SHARE_OF_PEAK, flops_a_token, tokens_of_steps
from maas_client.backends.modelfiles import check_model
from maas_client.backends.sizing import USABLE, memory_warnings, size_up_gpus, size_up_here
from maas_client.backends.trainables import check_method
from maas_client.bundled import model_folder, tuning_module
from maas_client.cli.views import plan_view
from maas_client.errors import PlanError
from maas_client.estimate import Estimate, Memory, Time, dollars_between
from maas_client.spec import JobSpec
from maas_client.transport.workspace import Target

A100, T4, A10 = "Standard_NC24ads_A100_v4", "Standard_NC4as_T4_v3", "Standard_NV36ads_A10_v5"
EIGHT_A100 = "Standard_ND96amsr_A100_v4"
ROW = {"text": "x" * 346, "label": "late"}  # 350 bytes with its label, and 14 for the marks of each turn


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(ROW) + "\n" for _ in range(100)))
    return path


class Planned:
    """Sizes up jobs over the same rows."""

    def __init__(self, rows: Path) -> None:
        self.rows = rows

    def spec(
        self, *, model: str = "Phi-3-mini-4k-instruct", size: str | None = A100, **parts: Any
    ) -> JobSpec:
        compute = {"size": size, **parts.pop("compute", {})}
        data = {"train": str(self.rows), "validation": {"split": 0.5}}
        words = {"name": "any-job", "task": "classification", "model": model, "backend": "azureml"}
        return JobSpec.model_validate({**words, "data": data, "compute": compute, **parts})

    def on_gpus(self, **parts: Any) -> Estimate:
        spec = self.spec(**parts)
        gpu = catalog.find_gpu(spec.compute.size) if spec.compute.size else None
        return size_up_gpus(spec, None, check_method(spec, None), gpu)

    def memory(self, **parts: Any) -> Memory:
        found = self.on_gpus(**parts).memory
        assert isinstance(found, Memory)
        return found

    def time(self, **parts: Any) -> Time:
        found = self.on_gpus(**parts).time
        assert isinstance(found, Time), found
        return found


@pytest.fixture
def planned(rows: Path) -> Planned:
    return Planned(rows)


def test_lora_of_phi_3_mini_on_an_a100(planned: Planned) -> None:
    memory = planned.memory()
    assert memory.parts["parameters"] == 2 * 3_821_079_552 + 4 * 25_165_824
    assert memory.parts["optimizer"] == 2 * memory.parts["gradients"] == 8 * 25_165_824
    assert (memory.precision, memory.recomputes, memory.fits) == ("bf16", False, True)
    assert memory.available == 80 << 30
    assert memory.smallest == A10


def test_what_does_not_fit_is_cut_into_parts_then_recomputed(planned: Planned) -> None:
    whole, cut = planned.memory(), planned.memory(size=A10)
    assert (whole.micro_batch_parts, cut.micro_batch_parts, cut.recomputes, cut.fits) == (1, 4, False, True)
    assert cut.parts["activations"] == pytest.approx(whole.parts["activations"] / 4)
    long = planned.memory(size=A10, training={"max_length": 8192})
    assert (long.recomputes, long.fits) == (True, True)
    asked = planned.memory(size=A10, training={"gradient_checkpointing": False})
    assert (asked.micro_batch_parts, asked.recomputes, asked.fits) == (1, False, False)


def test_a_gpu_without_bf16_computes_in_fp32(planned: Planned) -> None:
    memory = planned.memory(size=T4, method={"name": "qlora"})
    assert memory.precision == "fp32"
    assert memory.smallest == T4


def test_a_size_that_never_fits_is_refused_with_one_that_does(planned: Planned) -> None:
    with pytest.raises(PlanError) as raised:
        planned.on_gpus(size=T4, method={"name": "full"})
    assert "Standard_NC4as_T4_v3 is too small: a GPU has 16.0 GiB" in raised.value.message
    assert "parameters, gradients and optimizer of this job alone take 56.9 GiB" in raised.value.message
    assert raised.value.hint.startswith(f"One way out: take {A100}, the smallest size for this job; or take ")


def test_a_batch_that_does_not_fit_is_a_warning_with_a_size_that_does(planned: Planned) -> None:
    estimate = planned.on_gpus(size=A10, training={"batch_size": 4, "max_length": 65536})
    assert isinstance(estimate.memory, Memory)
    (sentence,) = memory_warnings(estimate, USABLE * (24 << 30), "a GPU has 24.0 GiB")
    assert "and a GPU has 24.0 GiB: the run may end for want of memory" in sentence
    assert f"the smallest size of Azure for it is {estimate.memory.smallest}." in sentence
    assert list(memory_warnings(planned.on_gpus(), USABLE * (80 << 30), "")) == []


def test_the_smallest_size_has_a_gpu_for_each_process(planned: Planned) -> None:
    ddp = {"strategy": "ddp", "processes": 4}
    named = planned.memory(size=EIGHT_A100, distributed=ddp).smallest
    assert named is not None
    assert catalog.find_gpu(named).gpus >= 4


def test_zero_splits_over_the_processes_of_all_machines(planned: Planned) -> None:
    full = {"name": "full"}
    zero3 = {"strategy": "zero3", "processes": 8}
    one = planned.memory(size=EIGHT_A100, method=full, distributed=zero3)
    two = planned.memory(size=EIGHT_A100, method=full, distributed=zero3, compute={"instances": 2})
    assert one.parts["parameters"] == -(-4 * 3_821_079_552 // 8)
    assert two.parts["parameters"] == -(-4 * 3_821_079_552 // 16)
    away = {**zero3, "offload": "optimizer"}
    offloaded = planned.memory(size=EIGHT_A100, method=full, distributed=away)
    assert offloaded.parts["optimizer"] == 0
    assert offloaded.offloaded == 16 * 3_821_079_552 // 8
    assert offloaded.peak < one.peak


def test_without_widths_only_what_lies_between_steps_is_said(planned: Planned) -> None:
    estimate = planned.on_gpus(model="Phi-3.5-MoE-instruct", size="Standard_ND96isr_H200_v5")
    assert isinstance(estimate.memory, Memory)
    assert set(estimate.memory.parts) == {"parameters", "gradients", "optimizer"}
    assert (estimate.memory.at_least, estimate.memory.smallest) == (True, None)
    assert str(estimate.memory).startswith("at least ")
    assert isinstance(estimate.time, str)


@pytest.mark.parametrize("model", ["somebody/some-model", "Phi-3-small-8k-instruct"])
def test_a_model_that_nobody_knows_is_said_to_be_unknown(planned: Planned, model: str) -> None:
    lines = dict(planned.on_gpus(model=model).lines())
    assert lines["memory"].startswith("unknown: ")
    assert lines["time"].startswith("unknown: ")


def test_a_cluster_of_unknown_size_has_memory_but_no_time(planned: Planned) -> None:
    estimate = planned.on_gpus(size=None, compute={"name": "gpus"})
    assert isinstance(estimate.memory, Memory)
    assert (estimate.memory.available, estimate.memory.smallest) == (None, A10)
    assert estimate.time == "no size of machines is named that the catalog knows"


@pytest.mark.parametrize("model", [one.name for one in catalog.models() if one.parameters.known])
def test_every_model_of_the_catalog_can_be_sized_up(planned: Planned, model: str) -> None:
    estimate = planned.on_gpus(model=model, size="Standard_ND96isr_H200_v5", method={"name": "qlora"})
    assert [heading for heading, _ in estimate.lines()] == ["memory", "time"]
    assert json.loads(json.dumps(estimate.to_dict())).keys() == {"memory", "time"}


def test_tokens_lie_between_what_bytes_allow(planned: Planned) -> None:
    """100 rows of 378 bytes, half of them held out, three times."""
    found = tokens_of_steps(planned.spec())
    assert found is not None
    assert found == pytest.approx(
        (3 * 50 * 378 / BYTES_A_TOKEN[1], 3 * 50 * 378 / BYTES_A_TOKEN[0]), rel=0.02
    )
    few = {"max_steps": 1, "batch_size": 1, "max_length": 64}
    assert tokens_of_steps(planned.spec(training=few)) == (64, 64)


def test_long_files_are_reckoned_from_their_first_rows(planned: Planned) -> None:
    short = tokens_of_steps(planned.spec())
    planned.rows.write_text(planned.rows.read_text() * 50)
    long = tokens_of_steps(planned.spec())
    assert short is not None
    assert long == pytest.approx((50 * short[0], 50 * short[1]))


def test_rows_that_cannot_be_read_leave_the_time_unknown(planned: Planned) -> None:
    planned.rows.write_text('{"no": "row"}\n')
    assert planned.on_gpus().time == "the rows cannot be read"


def test_the_time_is_arithmetic_over_speed(planned: Planned) -> None:
    time = planned.time()
    spec = planned.spec()
    shape = tuning_module("footprint").Shape.of(
        {
            "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 8192, "vocab_size": 32064,
        }
    )  # fmt: skip
    linear, head, attention = 3_623_878_656, 32064 * 3072, 1024 * 3072 * 32
    assert flops_a_token(spec, shape, recomputes=False) == 2 * (2 * linear + 2 * attention + 2 * head)
    full = planned.spec(method={"name": "full"})
    assert flops_a_token(full, shape, recomputes=False) == 3 * (2 * linear + 2 * attention + 2 * head)
    least, most = (share * 312e12 / (4 * (linear + attention + head)) for share in SHARE_OF_PEAK)
    assert time.tokens_a_second == pytest.approx((least, most))
    assert time.hours == pytest.approx((time.tokens[0] / most / 3600, time.tokens[1] / least / 3600))
    assert time.dollars == pytest.approx(tuple(3.673 * each for each in time.hours))
    assert "(assumed) of 312 TFLOP/s" in str(time)
    assert "NVIDIA" in time.source


def test_more_machines_are_faster_and_cost_no_less(planned: Planned) -> None:
    ddp = {"strategy": "ddp"}
    one, two = (planned.time(distributed=ddp, compute={"instances": count}) for count in (1, 2))
    assert two.tokens_a_second[0] == pytest.approx(2 * one.tokens_a_second[0])
    assert two.dollars == pytest.approx(one.dollars)


@pytest.mark.parametrize("compute", [{"priority": "low"}, {"size": A10}])
def test_an_unknown_price_gives_no_dollars(planned: Planned, compute: dict[str, Any]) -> None:
    assert planned.time(compute=compute).dollars is None


def test_a_narrow_model_has_no_speed_beforehand(planned: Planned) -> None:
    folder = model_folder("tiny-phi3")
    assert folder is not None
    spec = planned.spec(model="tiny-phi3")
    weights = check_model(folder)
    found = size_up_gpus(spec, weights, check_method(spec, weights), catalog.find_gpu(A100))
    assert isinstance(found.memory, Memory)
    assert "leaves a GPU waiting" in str(found.time)


def test_this_machine_has_memory_but_no_speed_beforehand(planned: Planned) -> None:
    spec = planned.spec(distributed={"strategy": "ddp", "processes": 2})
    found = size_up_here(spec, None, check_method(spec, None), 64 << 30)
    assert isinstance(found.memory, Memory)
    assert (found.memory.available, found.memory.device, found.memory.precision) == (
        32 << 30,
        "process",
        "fp32",
    )
    assert found.memory.parts["runtime"] == 430 << 20
    assert isinstance(found.time, str)


def test_every_gpu_of_the_catalog_has_a_peak_with_its_source() -> None:
    for gpu in catalog.gpus():
        known = catalog.peak(gpu.gpu_model)
        assert known is not None, gpu.name
        assert known.fp32_tflops <= (known.bf16_tflops or known.fp32_tflops)
        assert known.source.url.startswith("https://")
    assert catalog.peak("Z80") is None


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((4.1, 11.02), "$4.10 to $11.02"),
        ((0.001, 0.02), "$0.00 to $0.02"),
        ((1e-9, 0.004), "less than $0.01"),
    ],
)
def test_dollars_in_words(interval: tuple[float, float], words: str) -> None:
    assert dollars_between(interval) == words


def test_time_in_words(planned: Planned) -> None:
    time = dataclasses.replace(planned.time(), hours=(0.5, 0.91), tokens=(1e6, 2.26e6))
    assert str(time).startswith("30 to 55 minutes for 1 to 2.3 M tokens at ")
    assert str(dataclasses.replace(time, hours=(1.0, 12.3))).startswith("1 to 12 hours ")


def test_a_plan_shows_memory_time_and_what_they_cost(planned: Planned) -> None:
    plan = plan_run(planned.spec(), Target("sub", "rg", "ws"), on=date(2026, 11, 26))
    lines = plan_view(plan).plain().splitlines()
    assert any(line.startswith("memory    about 33.1 GiB of 80.0 GiB a GPU (bf16") for line in lines)
    assert any(line.startswith("time      ") and "tokens/s" in line for line in lines)
    assert "for the steps, as estimated" in plan.cost
    shown = plan.to_dict()["estimate"]
    assert shown["memory"]["smallest"] == A10
    assert shown["time"]["hours"][0] < shown["time"]["hours"][1]
    assert plan.warnings == ()


def test_a_plan_warns_or_refuses_with_a_size_that_fits(planned: Planned) -> None:
    target, day = Target("sub", "rg", "ws"), date(2026, 11, 26)
    long = planned.spec(size=A10, training={"max_length": 65536})
    (sentence,) = plan_run(long, target, on=day).warnings
    assert sentence.endswith(f"the smallest size of Azure for it is {A100}.")
    with pytest.raises(PlanError, match="Standard_NC4as_T4_v3 is too small"):
        plan_run(planned.spec(size=T4), target, on=day)
