"""Runs the training scripts as processes, and reads what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOBS = Path(__file__).parents[2] / "jobs"
TINY_PHI3 = JOBS.parent / "models" / "tiny-phi3"


def make_phi3(folder: Path, **sizes: int) -> Path:
    """Write a Phi-3 with random weights and tiny-phi3's tokenizer; `sizes` go into its config."""
    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(TINY_PHI3)
    torch.manual_seed(1)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **sizes,
    )
    Phi3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


MINI = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def script(name: str, *arguments: object) -> list[str]:
    """The command line of a script of jobs/."""
    return [sys.executable, str(JOBS / name), *map(str, arguments)]


def run_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script of jobs/ to its end, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        script(name, *arguments), capture_output=True, text=True, env=environment, timeout=200, check=False
    )


def read_events(output: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The events of a run, or those of one kind."""
    lines = (output / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if kind in (None, event["event"])]


def losses(output: Path) -> list[float]:
    """The loss of each step, the last word on each step counting."""
    by_step = {event["step"]: event["loss"] for event in read_events(output, "step")}
    return [by_step[step] for step in sorted(by_step)]


def start_and_wait_for_step(words: list[str], output: Path, step: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (output / "events.jsonl").exists() and len(losses_so_far(output)) >= step:
            return process
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"step {step} was never reached")


def losses_so_far(output: Path) -> list[str]:
    lines = (output / "events.jsonl").read_text().splitlines()
    return [line for line in lines if '"event": "step"' in line]


@dataclass
class Done:
    """How a call of the script's main function ended."""

    returncode: int
    stderr: str
