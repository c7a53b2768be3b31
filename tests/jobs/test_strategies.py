"""Every strategy with two real processes: the losses of one, whatever is killed, however many go on."""

from __future__ import annotations

import json
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_stage import Ranks, Started
from safetensors.torch import load_file
from training_stage import losses, read_events

from tuning.sharding import PARTS, SPLIT, held_by_each

pytestmark = pytest.mark.slow

SPREAD = [name for name in SPLIT if name != "none"]
TRAINING: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "max_length": 48,
    "learning_rate": 0.01,
    "precision": "fp32",
    "log_every_steps": 1,
    "checkpoint_every_steps": 2,
}
LORA = {"method": {"name": "lora", "rank": 4, "alpha": 8}, "training": {**TRAINING, "packing": True}}
FULL = {
    "method": {"name": "full"},
    "training": {**TRAINING, "packing": False, "max_grad_norm": 0.3, "weight_decay": 0.1},
}
JOBS = {"lora": LORA, "full": FULL}


@pytest.fixture(scope="module")
def nothing_built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where DeepSpeed would put what it compiles; nothing may be there in the end."""
    folder = tmp_path_factory.mktemp("extensions")
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, nothing_built: Path) -> Iterator[Ranks]:
    """Processes without a compiler in reach."""
    bare = {"PATH": "/nowhere", "TORCH_EXTENSIONS_DIR": str(nothing_built)}
    with Ranks(tmp_path_factory.mktemp("logs"), bare) as started:
        yield started


Go = Callable[..., Started]


@pytest.fixture(scope="module")
def go(ranks: Ranks, mini_model: Path, color_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Go:
    """Start a job by a strategy in some processes; the sequences of a step are always four."""

    def start(
        job: str, strategy: str, processes: int, output: Path, *, shares: int = 1, **more: Any
    ) -> Started:
        value = json.loads(json.dumps(JOBS[job]))
        value["training"] |= {
            "batch_size": 4 // processes // shares,
            "gradient_accumulation": shares,
            **more.get("training", {}),
        }
        value["task"] = "classification"
        value["validation"] = {"split": 0.2}
        value["evaluation"] = {"max_rows": 8, "max_new_tokens": 4}
        value["distributed"] = {
            "strategy": strategy,
            "processes": processes,
            "offload": more.get("offload", "none"),
        }
        config = tmp_path_factory.mktemp("config") / "config.json"
        config.write_text(json.dumps(value))
        words = ("--config", config, "--train", color_rows, "--model", mini_model)
        return ranks.start(processes, output, *words)

    return start


Done = Callable[[str, str, int], Path]


@pytest.fixture(scope="module")
def done(go: Go, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The output of an undisturbed run, made once."""

    @cache
    def output(job: str, strategy: str, processes: int) -> Path:
        folder = tmp_path_factory.mktemp(f"{job}-{strategy}-{processes}")
        succeed(go(job, strategy, processes, folder, shares=2 if job == "lora" and processes == 2 else 1))
        return folder

    return output


def succeed(started: Started) -> None:
    assert set(started.wait()) == {0}, started.said()


def result(output: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((output / "result.json").read_text())
    return value


def weights(output: Path) -> dict[str, torch.Tensor]:
    (path,) = (output / "model").glob("*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("strategy", SPREAD)
def test_two_processes_have_the_losses_of_one(done: Done, strategy: str, job: str) -> None:
    """With packing and accumulated micro-batches (lora), and with clipping and weight decay (full)."""
    one, two = done(job, "none", 1), done(job, strategy, 2)
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    norms = [[event["grad_norm"] for event in read_events(output, "step")] for output in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    assert job == "lora" or max(norms[0]) > FULL["training"]["max_grad_norm"]  # type: ignore[index]
    assert result(two)["after"] == pytest.approx(result(one)["after"], abs=1e-3)
    assert result(two)["before"] == pytest.approx(result(one)["before"], abs=1e-3)
    assert (two / "samples.jsonl").read_text() == (one / "samples.jsonl").read_text()


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("strategy", SPREAD)
def test_the_model_is_the_same_folder(done: Done, strategy: str, job: str) -> None:
    one, two = done(job, "none", 1), done(job, strategy, 2)
    names = [sorted(path.name for path in (output / "model").iterdir()) for output in (one, two)]
    assert names[1] == names[0]
    ours, theirs = weights(one), weights(two)
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert theirs[name].dtype == value.dtype
        torch.testing.assert_close(theirs[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("strategy", SPREAD)
def test_bytes_are_those_of_the_formula(done: Done, strategy: str) -> None:
    """Counted in each process from the tensors that it holds; the mini model pads a little."""
    (memory,) = read_events(done("full", strategy, 2), "memory")
    expected = held_by_each(strategy, 2, trained=result(done("full", "none", 1))["parameters"])
    for part in PARTS:
        assert memory[f"{part}_bytes"] == pytest.approx([getattr(expected, part)] * 2, rel=0.02), part


@pytest.mark.parametrize(("strategy", "offload"), [("zero2", "optimizer"), ("zero3", "all"), ("fsdp", "all")])
def test_what_is_offloaded_learns_the_same(
    done: Done, go: Go, strategy: str, offload: str, tmp_path: Path
) -> None:
    succeed(go("full", strategy, 2, tmp_path, offload=offload))
    assert losses(tmp_path) == pytest.approx(losses(done("full", "none", 1)), abs=1e-4)


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp"])
def test_bf16_learns_the_same(go: Go, strategy: str, tmp_path: Path) -> None:
    """A base in bf16, adapters in fp32, and products in bf16."""
    training = {"precision": "bf16", "max_steps": 6}
    succeed(go("lora", "none", 1, tmp_path / "one", training=training))
    succeed(go("lora", strategy, 2, tmp_path / "two", training=training))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-3)


@pytest.mark.parametrize("strategy", ["zero3", "fsdp"])
def test_recomputed_activations_learn_the_same(go: Go, done: Done, strategy: str, tmp_path: Path) -> None:
    succeed(go("full", strategy, 2, tmp_path, training={"gradient_checkpointing": True}))
    assert losses(tmp_path) == pytest.approx(losses(done("full", "none", 1)), abs=1e-4)


def wait_for_step(started: Started, step: int) -> None:
    """Return at a step; meanwhile no checkpoint may be seen that is not whole."""
    while True:
        for folder in (started.output / "checkpoints").glob("step-*"):
            assert (folder / "manifest.json").exists() or not folder.exists()
        if (started.output / "events.jsonl").exists():
            started.wait_for_event("started")
            if len(read_events(started.output, "step")) >= step:
                return
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("strategy", "rank"), [*((name, 1) for name in SPREAD), ("ddp", 0), ("zero3", 0), ("fsdp", 0)]
)
def test_a_killed_process_ends_the_others_and_costs_no_step(
    go: Go, done: Done, strategy: str, rank: int, tmp_path: Path
) -> None:
    """The other ends within a minute and says which one it was; the same command goes on exactly."""
    job = "full" if rank else "lora"
    shares = 2 if job == "lora" else 1
    started = go(job, strategy, 2, tmp_path, shares=shares)
    wait_for_step(started, random.randint(2, 8))
    started.kill(rank)
    killed_at = time.monotonic()
    codes = started.wait()
    assert time.monotonic() - killed_at < 60
    assert codes[rank] == 128 + signal.SIGKILL
    assert codes[1 - rank] == 1, started.said()
    assert f"error: Process {rank} of 2 " in started.logs[1 - rank].read_text()
    assert "Traceback" not in started.said()
    if rank:
        assert read_events(tmp_path, "failed")[-1]["message"].startswith("Process 1 of 2 ")
    succeed(go(job, strategy, 2, tmp_path, shares=shares))
    assert losses(tmp_path) == pytest.approx(losses(done(job, strategy, 2)), abs=1e-5)
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("strategy", SPREAD)
def test_a_stop_signal_to_one_process_saves_all(go: Go, done: Done, strategy: str, tmp_path: Path) -> None:
    started = go("full", strategy, 2, tmp_path)
    wait_for_step(started, 3)
    started.kill(1, signal.SIGTERM)
    asked_at = time.monotonic()
    assert started.wait() == [143, 143], started.said()
    assert time.monotonic() - asked_at < 30
    stopped = read_events(tmp_path)[-1]
    assert stopped["event"] == "stopped"
    folder = tmp_path / "checkpoints" / f"step-{stopped['step']:06d}"
    assert {"manifest.json", "weights-00000.safetensors"} <= {path.name for path in folder.iterdir()}
    succeed(go("full", strategy, 2, tmp_path))
    assert read_events(tmp_path, "started")[-1]["resumed_from_step"] == stopped["step"]
    assert losses(tmp_path) == pytest.approx(losses(done("full", strategy, 2)), abs=1e-5)


@pytest.mark.parametrize(
    ("written_by", "taken_up_by"),
    [
        (("zero2", 2), ("none", 1)),
        (("zero3", 2), ("fsdp", 4)),
        (("fsdp", 4), ("zero1", 2)),
        (("none", 1), ("zero3", 2)),
        (("ddp", 2), ("zero2", 4)),
    ],
)
def test_another_strategy_and_number_of_processes_goes_on(
    go: Go, done: Done, written_by: tuple[str, int], taken_up_by: tuple[str, int], tmp_path: Path
) -> None:
    """All processes of one machine are killed; others, more or fewer, have the losses of one process."""
    started = go("full", *written_by, tmp_path)
    wait_for_step(started, random.randint(3, 8))
    for rank in range(written_by[1]):
        started.kill(rank)
    started.wait()
    succeed(go("full", *taken_up_by, tmp_path))
    assert read_events(tmp_path, "started")[-1]["resumed_from_step"] >= 2
    assert losses(tmp_path) == pytest.approx(losses(done("full", "none", 1)), abs=1e-5)


def test_other_sequences_a_step_are_another_run(go: Go, tmp_path: Path) -> None:
    started = go("full", "ddp", 2, tmp_path)
    wait_for_step(started, 2)
    started.kill(0, signal.SIGTERM)
    started.wait()
    again = go("full", "none", 1, tmp_path, training={"batch_size": 2})
    assert again.wait() == [2]
    assert "batch_size x gradient_accumulation x processes differ" in again.said()


@pytest.mark.parametrize("strategy", ["zero2", "fsdp"])
def test_a_damaged_part_of_a_checkpoint_costs_the_steps_since_the_one_before(
    go: Go, done: Done, strategy: str, tmp_path: Path
) -> None:
    started = go("full", strategy, 2, tmp_path)
    wait_for_step(started, 7)
    started.kill(1)
    started.wait()
    newest, before = sorted((tmp_path / "checkpoints").glob("step-*"), reverse=True)
    part = newest / "optimizer-00001.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    again = go("full", strategy, 2, tmp_path)
    succeed(again)
    assert f"Checkpoint {newest.name} is damaged (optimizer-00001.safetensors has changed)" in again.said()
    assert f"step-{read_events(tmp_path, 'started')[-1]['resumed_from_step']:06d}" == before.name
    assert losses(tmp_path) == pytest.approx(losses(done("full", strategy, 2)), abs=1e-5)


def test_a_disk_that_is_full_for_one_process_ends_all(go: Go, tmp_path: Path) -> None:
    """The second process's part of a checkpoint cannot be written: nothing is left of it."""
    started = go("full", "zero2", 2, tmp_path)
    resource.prlimit(started.pids[1], resource.RLIMIT_FSIZE, (50_000, 50_000))
    assert started.wait() == [1, 1], started.said()
    assert list((tmp_path / "checkpoints").iterdir()) == []
    message = read_events(tmp_path, "failed")[-1]["message"]
    assert message.startswith("Process 1 of 2 failed: ")
    assert "File too large" in message


def test_the_threads_of_a_run_are_taken_up_again(done: Done) -> None:
    output = done("lora", "none", 1)
    chosen = json.loads((output / "config.json").read_text())["chosen"]
    assert (chosen["precision"], chosen["threads"]) == ("fp32", 1)
    assert read_events(output, "started")[0]["threads"] == 1
