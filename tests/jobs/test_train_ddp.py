"""Two processes train as one does on the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from training_stage import JOBS, losses, run_script

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("packing", [False, True])
def test_two_processes_have_the_losses_of_one(
    mini_model: Path, color_rows: Path, write_config: Callable[..., Path], tmp_path: Path, packing: bool
) -> None:
    config = write_config(packing=packing, batch_size=6, max_length=48)
    files = ["--train", str(color_rows), "--model", str(mini_model)]
    done = run_script("train.py", "--config", config, *files, "--output", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    value = json.loads(config.read_text())
    value["training"] |= {"batch_size": 1, "gradient_accumulation": 3}
    value["distributed"] = {"strategy": "ddp", "processes": 2}
    config.write_text(json.dumps(value))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += [str(JOBS / "train.py"), "--config", str(config), *files, "--output", str(tmp_path / "two")]
    shared = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
        check=False,
    )
    assert shared.returncode == 0, shared.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[1]["after"] == pytest.approx(results[0]["after"], abs=1e-3)
    samples = [(tmp_path / name / "samples.jsonl").read_text() for name in ("one", "two")]
    assert samples[0] == samples[1]


def test_processes_that_were_not_started_are_missed(
    mini_model: Path, color_rows: Path, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config()
    value = json.loads(config.read_text()) | {"distributed": {"strategy": "ddp", "processes": 2}}
    config.write_text(json.dumps(value))
    done = run_script(
        "train.py",
        "--config",
        config,
        "--train",
        color_rows,
        "--model",
        mini_model,
        "--output",
        tmp_path / "run",
    )
    assert done.returncode == 2
    assert "torch.distributed.run --standalone --nproc-per-node 2" in done.stderr
