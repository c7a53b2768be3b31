"""Training throughput beside TRL's SFTTrainer: the same model, rows, order, batches and steps, in turns, in
one run.

    python bench/training_throughput.py            # five rounds, about four minutes
    python bench/training_throughput.py --quick    # one short round

Two pairs, each contender in a process of its own, so that each has its own peak memory. Both at their
defaults: `ours-defaults` packs rows into 8 sequences of 256 tokens, `trl-defaults` pads 8 rows, in bf16 with
gradient checkpointing. And both tuned for a CPU on exactly the same batches of 16 rows: `ours`, and
`trl-tuned` in fp32 without checkpointing and with fused AdamW. All train LoRA r 16 on every linear layer with
the loss on the answer alone. Tokens are those of the rows, without padding; tokens/s are those of the least
disturbed quarter of the steps, since other programs disturb some. The two of a pair run one right after the
other, in turned order in each next round; their ratio is taken in each round, and its median is bounded. The
loss compared is that of the trained weights of the second pair on the same held-out rows, by the same code.
Exits 1 if a bound is missed.
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
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "jobs"))
MODEL = ROOT / "models" / "tiny-phi3"
ROWS = ROOT / "jobs" / "examples" / "card-support"
BATCH, RATE = 16, 2e-3
PAIRS = (("ours-defaults", "trl-defaults", 3.0), ("ours", "trl-tuned", 1.2))
CONTENDERS = tuple(name for mine, theirs, _ in PAIRS for name in (mine, theirs))
DEFAULT_BATCH = 8  # of both; ours counts packed sequences of max_length tokens
LOSS_TOLERANCE = 0.02


def config_of(steps: int, *, defaults: bool = False) -> Any:
    """The job that everyone does; the learning rate stays, since TRL's schedules end elsewhere."""
    from tuning.config import parse_config

    training = {"learning_rate": RATE, "schedule": "constant", "warmup_ratio": 0.0, "max_steps": steps}
    training |= {"max_length": 256, "epochs": 100}
    if not defaults:
        training |= {"batch_size": BATCH, "packing": False}
    return parse_config({"task": "classification", "training": training})


def encoded_rows(name: str) -> tuple[list[Any], Any]:
    """(rows of a file as tokens, tokenizer)."""
    from tuning.data import encode_row, load_rows
    from tuning.models import load_tokenizer

    tokenizer = load_tokenizer(str(MODEL))
    path = ROWS / name
    rows = load_rows(path, "classification")
    return [part for row in rows for part in encode_row(row, path, tokenizer, config_of(1))[0]], tokenizer


def rows_in_order(steps: int) -> list[Any]:
    """The training rows in the order in which the bundled script takes them."""
    from tuning.batches import Plan

    rows, _ = encoded_rows("train.jsonl")
    plan = Plan(rows, config_of(steps).training, processes=1)
    return [rows[row] for step in range(steps) for unit in plan.rows_of_step(step) for row in unit]


def adapted_model(dtype: str) -> Any:
    """tiny-phi3 with LoRA, the same weights for every contender."""
    import torch

    from tuning.config import MethodConfig
    from tuning.methods import METHODS
    from tuning.models import DTYPES, load_model

    torch.manual_seed(7)
    return METHODS["lora"].prepare(load_model(str(MODEL), DTYPES[dtype]), MethodConfig())


def train_ours(steps: int, *, defaults: bool) -> dict[str, float]:
    """The bundled script's own step function."""
    import train
    from tuning.distributed import join
    from tuning.events import EventLog
    from tuning.run import Files, prepare
    from tuning.stopping import StopRequest

    config = config_of(steps, defaults=defaults)
    with tempfile.TemporaryDirectory() as folder:
        files = Files(ROWS / "train.jsonl", ROWS / "test.jsonl", str(MODEL), Path(folder))
        log = EventLog(Path(folder) / "events.jsonl")
        run = prepare(config, files, join(config.distributed), StopRequest(), log)
        seconds = []
        for step in range(steps):
            start = time.perf_counter()
            train.take_step(run, step)
            seconds.append(time.perf_counter() - start)
        return report(run.model, [run.plan.tokens_of_step(step) for step in range(steps)], seconds)


def trainer_in_order(seconds: list[float]) -> tuple[Any, Any]:
    """(an SFTTrainer that takes the rows as they come, a callback that appends the seconds of each step)."""
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import SFTTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Times the steps."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    class InOrder(SFTTrainer):  # type: ignore[misc]
        """Does not shuffle."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    return InOrder, Clock()


def train_trl(steps: int, *, tuned: bool) -> dict[str, float]:
    """SFTTrainer on the same rows, already encoded, in the same order."""
    from datasets import Dataset
    from trl import SFTConfig

    (_, tokenizer), rows = encoded_rows("test.jsonl"), rows_in_order(steps)
    seconds: list[float] = []
    trainer_class, clock = trainer_in_order(seconds)
    batch = BATCH if tuned else DEFAULT_BATCH
    steps = steps * BATCH // batch  # the same rows
    own = {"bf16": False, "gradient_checkpointing": False, "optim": "adamw_torch_fused"} if tuned else {}
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=RATE,
            lr_scheduler_type="constant", max_length=256, report_to=[], save_strategy="no", use_cpu=True,
            logging_steps=1000, disable_tqdm=True, weight_decay=0.0, **own,
        )  # fmt: skip
        columns = {
            "input_ids": [row.ids.tolist() for row in rows],
            "labels": [row.labels.tolist() for row in rows],
        }
        trainer = trainer_class(
            model=adapted_model("fp32"), args=settings, train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer, callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    tokens = [
        sum(len(row.ids) for row in rows[place : place + batch]) for place in range(0, len(rows), batch)
    ]
    return report(trainer.model, tokens, seconds)


def report(model: Any, tokens: list[int], seconds: list[float]) -> dict[str, float]:
    """Tokens/s in the least disturbed quarter of the steps, peak memory of training, and the held-out
    loss.
    """
    import torch

    from tuning.batches import lay_out
    from tuning.device import memory_used_bytes
    from tuning.loss import SupervisedLoss

    peak = memory_used_bytes(torch.device("cpu"))
    rates = sorted(count / second for count, second in zip(tokens, seconds, strict=True))
    best = rates[-max(3, len(rates) // 4) :]
    held_out, tokenizer = encoded_rows("test.jsonl")
    batch = lay_out(held_out, tokenizer.pad_token_id)
    with torch.no_grad():
        loss = SupervisedLoss(model.float().eval())(batch) / len(batch.targets)
    return {"tokens_per_s": statistics.median(best), "loss": float(loss), "peak_mb": peak / 1e6}


def measure(contender: str, steps: int) -> dict[str, float]:
    """Run one contender in a process of its own."""
    words = [sys.executable, str(Path(__file__)), "--contender", contender, "--steps", str(steps)]
    from tuning.startup import BRIEF_SPIN, ENVIRONMENT

    own = ENVIRONMENT if contender.startswith("ours") else {}  # what the script sets when it is started
    environment = {**os.environ, "GOMP_SPINCOUNT": BRIEF_SPIN, "HF_HUB_OFFLINE": "1", **own}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr[-2000:]}")
    facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return facts


def compare(rounds: int, steps: int) -> bool:
    """Run the pairs in turns, print each round and the medians; whether every bound holds."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for mine, theirs, _ in PAIRS:
            for name in (mine, theirs) if number % 2 == 0 else (theirs, mine):
                results[name].append(measure(name, steps))
                facts = {key: round(value, 4) for key, value in results[name][-1].items()}
                print(f"round {number + 1} {name}: {facts}", flush=True)
            ratio = ratios(results[mine], results[theirs], "tokens_per_s")[-1]
            print(f"round {number + 1} tokens/s {mine} / {theirs}: {ratio:.2f}", flush=True)
    good = True
    for mine, theirs, bound in PAIRS:
        speed = ratios(results[mine], results[theirs], "tokens_per_s")
        memory = statistics.median(ratios(results[mine], results[theirs], "peak_mb"))
        median, rounded = statistics.median(speed), ", ".join(f"{ratio:.2f}" for ratio in speed)
        print(
            f"tokens/s {mine} / {theirs}: median {median:.2f} of {rounded} (bound {bound}); "
            f"peak memory {memory:.2f} (bound 1.00)"
        )
        good = good and median >= bound and memory <= 1.0
    apart = max(abs(ratio - 1) for ratio in ratios(results["ours"], results["trl-tuned"], "loss"))
    print(f"held-out loss of ours and trl-tuned apart by {apart:.2%} (bound {LOSS_TOLERANCE:.0%})")
    return good and apart <= LOSS_TOLERANCE


def ratios(mine: list[dict[str, float]], theirs: list[dict[str, float]], key: str) -> list[float]:
    """What the one has for each of the other, round by round."""
    return [one[key] / other[key] for one, other in zip(mine, theirs, strict=True)]


def main() -> int:
    """Compare, or with --contender be one of the compared."""
    parser = argparse.ArgumentParser(description="Training throughput beside TRL.")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help="steps of each contender")
    given = parser.parse_args()
    steps = given.steps or (15 if given.quick else 40)
    if given.contender is None:
        return 0 if compare(1 if given.quick else 5, steps) else 1
    if given.contender.startswith("ours"):
        facts = train_ours(steps, defaults=given.contender == "ours-defaults")
    else:
        facts = train_trl(steps, tuned=given.contender == "trl-tuned")
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
