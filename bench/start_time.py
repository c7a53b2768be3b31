"""Seconds from the start of jobs/train.py to the end of its first step, in a fresh process with a warm cache.

    python bench/start_time.py [--quick]

The job is jobs/examples/card-support with tiny-phi3, as `maas run` would start it; the base model is scored
on 100 held-out rows before the first step, which is part of the time. Beside it, in turns: importing TRL's
SFTTrainer with Phi-3 and PEFT, without which no step with TRL begins. One start of each warms the file cache
and is not counted. Exits 1 if the median of the starts is above the bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOUND_S = 15.0
ROWS = ROOT / "jobs" / "examples" / "card-support"
RIVAL = "from trl import SFTTrainer; from transformers import Phi3ForCausalLM; from peft import LoraConfig"
CONFIG = {"task": "classification", "training": {"max_steps": 2}, "evaluation": {"max_rows": 100}}


def seconds_to_first_step(folder: Path) -> tuple[float, float]:
    """Start a training, wait until its events tell of a step, end it: (seconds, of processor time)."""
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    output = folder / "run"
    words = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", str(folder / "config.json")]
    words += ["--train", str(ROWS / "train.jsonl"), "--validation", str(ROWS / "test.jsonl")]
    words += ["--model", str(ROOT / "models" / "tiny-phi3"), "--output", str(output)]
    began = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        while not has_taken_a_step(output / "events.jsonl"):
            if process.poll() is not None:
                raise SystemExit(f"train.py ended early:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)
        return time.perf_counter() - began, processor_seconds(process.pid)
    finally:
        process.kill()
        process.wait()


def processor_seconds(process: int) -> float:
    """The time that a running process has computed so far: what it takes whatever else the machine does."""
    facts = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


def has_taken_a_step(events: Path) -> bool:
    """Whether the events of a run tell of a step."""
    return events.exists() and '"event": "step"' in events.read_text(encoding="utf-8")


def seconds_to_import() -> float:
    """Load what TRL needs before it can begin."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", RIVAL], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> int:
    """Measure, print, and say whether the bound holds."""
    parser = argparse.ArgumentParser(description="Start to first step.")
    parser.add_argument("--quick", action="store_true", help="2 starts instead of 5")
    rounds = 2 if parser.parse_args().quick else 5
    starts, imports = [], []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            starts.append(seconds_to_first_step(Path(folder)))
        imports.append(seconds_to_import())
    (first, _), *counted = starts
    median = statistics.median(seconds for seconds, _ in counted)
    computed = statistics.median(seconds for _, seconds in counted)
    ratio = statistics.median(start / other for (start, _), other in zip(counted, imports[1:], strict=True))
    print(f"first, after which files are cached: {first:.1f} s")
    print(
        f"start to first step: median {median:.1f} s of {', '.join(f'{start:.1f}' for start, _ in counted)} "
        f"(bound {BOUND_S:.0f} s); {computed:.1f} s of processor time; "
        f"{ratio:.2f} of importing TRL's SFTTrainer"
    )
    return int(median > BOUND_S)


if __name__ == "__main__":
    sys.exit(main())
