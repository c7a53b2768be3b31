"""Where memory ends micro-batches are halved, in every process, and losses are what they would have been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_stage import JOBS, TINY_PHI3, losses, read_events

pytestmark = pytest.mark.slow
Write = Callable[..., Path]

# Lets a process take only so many MB more in a step than it has before: a limit on the address space, as
# `ulimit -v` sets it, of a process that gives back what it frees. PyTorch's allocator then says that it can't
# allocate memory.
TIGHT = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {jobs!r})
import train
from tuning.allocator import give_back_freed_memory
give_back_freed_memory()
take = train.take_step
def with_limit(run, step):
    if step < {step} or {rank} not in (-1, run.processes.rank):
        return take(run, step)
    in_gaps = [bytearray(50_000) for _ in range(4_000)]  # what was freed below the heap's top is no reserve
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + {spare_mb} * (1 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return take(run, step)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
train.take_step = with_limit
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Phi-3 of hidden size 128 with four layers: 16 texts take some 150 MB."""
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("phi3"), AutoTokenizer.from_pretrained(TINY_PHI3)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 320}
    heads = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = Phi3Config(**sizes, **heads, max_position_embeddings=256, pad_token_id=0, eos_token_id=0)
    torch.manual_seed(2)
    Phi3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def long_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of up to 255 tokens, so that 16 of them at a time take much more memory than one."""
    path = tmp_path_factory.mktemp("long") / "rows.jsonl"
    words = [" ".join(f"the {n} balls of box {n + k} are red" for k in range(17)) for n in range(52)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in words), encoding="utf-8")
    return path


def config_of(write_config: Write, **training: Any) -> Path:
    given = {"epochs": 1, "max_steps": 3, "batch_size": 16, "max_length": 256, **training}
    return write_config(task="text-generation", method={"name": "full"}, **given)


def run_tight(
    words: list[object], spare_mb: int, *, step: int = 1, rank: int = -1, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Train with little memory from a step on."""
    script = TIGHT.format(jobs=str(JOBS), step=step, spare_mb=spare_mb, rank=rank)
    source = ["-c", script]
    if launcher:
        path = Path(str(words[-1])).with_suffix(".py")
        path.write_text(script, encoding="utf-8")
        source = [*launcher, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    return subprocess.run(
        [sys.executable, *source, *map(str, words)],
        capture_output=True, text=True, env=environment, timeout=200, check=False,
    )  # fmt: skip


def words_of(config: Path, rows: Path, model: Path, output: Path) -> list[object]:
    return ["--config", config, "--train", rows, "--model", model, "--output", output]


def test_micro_batches_are_halved_and_the_losses_stay(
    write_config: Write, long_rows: Path, model: Path, tmp_path: Path
) -> None:
    config = config_of(write_config)
    plenty = run_tight(words_of(config, long_rows, model, tmp_path / "plenty"), 4000)
    assert plenty.returncode == 0, plenty.stderr
    tight = run_tight(words_of(config, long_rows, model, tmp_path / "tight"), 60)
    assert tight.returncode == 0, tight.stderr
    assert not read_events(tmp_path / "plenty", "out_of_memory")
    (event, *_) = halvings = read_events(tmp_path / "tight", "out_of_memory")
    assert (event["step"], event["parts"]) == (2, 2)
    assert [one["parts"] for one in halvings] == [2 ** (place + 1) for place in range(len(halvings))]
    assert "not enough memory for step 2; micro-batches are cut into 2 parts from here on" in tight.stderr
    assert losses(tmp_path / "tight") == pytest.approx(losses(tmp_path / "plenty"), abs=2e-5)


def test_one_row_that_does_not_fit_is_one_sentence(
    write_config: Write, long_rows: Path, model: Path, tmp_path: Path
) -> None:
    config = config_of(write_config, batch_size=4, checkpoint_every_steps=1)
    done = run_tight(words_of(config, long_rows, model, tmp_path / "run"), 0)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "not even with one row at a time; lower training.max_length" in done.stderr
    steps = len(losses(tmp_path / "run"))
    assert steps in (1, 2)
    assert (tmp_path / "run" / "checkpoints" / f"step-{steps:06d}").is_dir()
    again = run_tight(words_of(config, long_rows, model, tmp_path / "run"), 4000)
    assert again.returncode == 0, again.stderr
    assert read_events(tmp_path / "run", "started")[-1]["resumed_from_step"] == steps


def test_all_processes_halve_when_one_is_short(
    write_config: Write, long_rows: Path, model: Path, tmp_path: Path
) -> None:
    config = config_of(write_config)
    alone = json.loads(config.read_text())
    shared = {**alone, "distributed": {"strategy": "ddp", "processes": 2}}
    shared["training"] = {**alone["training"], "batch_size": 8}
    config.write_text(json.dumps(shared))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = run_tight(words_of(config, long_rows, model, tmp_path / "two"), 30, rank=1, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert read_events(tmp_path / "two", "out_of_memory")[0]["step"] == 2
    config.write_text(json.dumps(alone))
    whole = run_tight(words_of(config, long_rows, model, tmp_path / "one"), 4000)
    assert whole.returncode == 0, whole.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
