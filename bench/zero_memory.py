"""What each process holds of a 200 M model under each strategy: counted, by the formula, and at the peak.

    python bench/zero_memory.py [--processes 2] [--hidden 1024] [--layers 16] [--strategies ddp,zero1,...]

Each strategy takes a step of full training under torchrun, in fp32, with sequences of 32 tokens. The first
columns are the bytes of the tensors that a process holds (the script's event `memory`); "formula" is
tuning/sharding.py. "now" is what the system says of the process after the step, with libraries and the
freed memory that the allocator keeps; "peak" is the most it ever was. The peak does not fall as the rest
does: every process reads the whole model before it gives away what belongs to others, and DeepSpeed makes its
flat copies beside it, so that the peak of zero3 is that of its start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "jobs"))

from tuning.sharding import PARTS, SPLIT, held_by_each  # noqa: E402

STRATEGIES = [name for name in SPLIT if name != "none"]
MEGABYTE = 1e6


def make_model(folder: Path, hidden: int, layers: int) -> None:
    """Write a Phi-3 with random weights and the tokenizer of the shipped model."""
    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models" / "tiny-phi3")
    torch.manual_seed(1)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    Phi3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def first_step(model: Path, folder: Path, strategy: str, processes: int) -> tuple[dict[str, Any], int]:
    """The event `memory` of one step by a strategy, and the parameters of the model."""
    folder.mkdir()
    config = {
        "task": "text-generation",
        "method": {"name": "full"},
        "training": {"max_steps": 2, "batch_size": 1, "max_length": 32, "precision": "fp32"},
        "evaluation": {"max_rows": 1, "max_new_tokens": 1},
        "distributed": {"strategy": strategy, "processes": processes},
    }
    (folder / "config.json").write_text(json.dumps(config))
    rows = [json.dumps({"text": f"The bell of house {n} rings at noon, and at six."}) for n in range(64)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words += ["--nproc-per-node", str(processes), str(ROOT / "jobs" / "train.py")]
    words += ["--config", str(folder / "config.json"), "--train", str(folder / "rows.jsonl")]
    words += ["--model", str(model), "--output", str(folder / "run")]
    with (folder / "log.txt").open("w") as log:
        run = subprocess.Popen(
            words, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
        )
        try:
            while True:
                if found := events(folder / "run", "memory"):
                    return found[0], events(folder / "run", "started")[0]["parameters"]
                if run.poll() is not None:
                    raise SystemExit(f"{strategy} ended early:\n{(folder / 'log.txt').read_text()[-2000:]}")
                time.sleep(0.2)
        finally:
            run.terminate()
            run.wait()


def events(output: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind that a run has written so far."""
    path = output / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def main() -> None:
    """Measure and print a line for each strategy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model"
        make_model(model, given.hidden, given.layers)
        print(f"{given.processes} processes, MB a process (1 MB = 1,000,000 bytes)")
        print("       parameters  gradients  optimizer    total  formula      now     peak")
        for strategy in given.strategies.split(","):
            facts, parameters = first_step(model, Path(place) / strategy, strategy, given.processes)
            counted = [max(facts[f"{part}_bytes"]) / MEGABYTE for part in PARTS]
            formula = held_by_each(strategy, given.processes, trained=parameters).total / MEGABYTE
            now, peak = (max(facts[f"{name}_bytes"]) / MEGABYTE for name in ("now", "peak"))
            held = f"{counted[0]:10,.0f} {counted[1]:10,.0f} {counted[2]:10,.0f} {sum(counted):8,.0f}"
            print(f"{strategy:6} {held} {formula:8,.0f} {now:8,.0f} {peak:8,.0f}", flush=True)


if __name__ == "__main__":
    main()
