"""LoRA and QLoRA of a Phi-3-mini on one GPU: share of the card's peak, and beside TRL's defaults.

    python bench/gpu_phi3.py           # on a machine with a CUDA device; about ten minutes on a Hopper GPU
    python bench/gpu_phi3.py --tiny    # the same path on a CPU with a tiny model: proves this file, no figure

Needs this repository with maas-client[local,gpu,quantized], trl and datasets. Without a CUDA device it says
"no CUDA device: not measured" and ends with 3, as it does where something else is missing that it needs.

The model has the shape of Phi-3-mini (3.8 B weights) and random weights; rows are 4,096 tokens long and all
tokens carry loss; bf16; LoRA r 16 on every linear layer; 8 rows a step. Ours takes them one by one
(gradient_accumulation 8) and leaves the rest to what the script picks for the card; TRL's SFTTrainer takes
its defaults: 8 rows at once, with gradient checkpointing. Each trains in a process of its own, in turns,
twice.

What is counted: 4 floating-point operations a token for each weight of the linear layers and the output head
(2 forward, 2 for the gradient of its input; a frozen weight has none of its own), and for causal attention
6 x layers x hidden size x length a token (4 x 3, halved since a token sees half of its row). What adapters
add and what is computed twice is not counted. The share of the peak is that rate by the card's dense bf16
peak as its maker states it. Memory is what PyTorch had allocated at most, model included. QLoRA is configured
for the least memory (gradient_checkpointing true); beside the bounded ratio stands that to LoRA configured
the same. Exits 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "jobs"))
TOKENIZER = ROOT / "models" / "tiny-phi3"
NOT_MEASURED = 3
SHARE_BOUND, SPEED_BOUND, MEMORY_BOUND, QLORA_BOUND, LOSS_BOUND = 0.50, 1.3, 1.0, 0.45, 0.01
PEAKS = {  # dense bf16 FLOP/s, from NVIDIA's data sheets; the longer name first
    "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12,
    "A100": 312e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12, "L4": 121e12,
}  # fmt: skip
HOPPER_PEAK = 989e12
CONTENDERS = ("ours", "trl", "qlora", "ours-recomputed")


@dataclass(frozen=True)
class Size:
    """A model's shape, and how it is trained."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    length: int
    batch: int
    warm_up: int
    steps: int
    rounds: int

    def flops_a_token(self) -> float:
        """As the head of this file says."""
        weights = self.layers * self.hidden * (4 * self.hidden + 3 * self.inner)
        head = self.vocabulary * self.hidden
        return 4.0 * (weights + head) + 6.0 * self.layers * self.hidden * self.length


MINI = Size(3072, 8192, 32, 32, 32064, length=4096, batch=8, warm_up=3, steps=10, rounds=2)
TINY = Size(64, 128, 2, 4, 2048, length=64, batch=4, warm_up=1, steps=2, rounds=1)


def write_inputs(size: Size, folder: Path) -> None:
    """A model of random weights, and rows of `length` tokens, in a folder."""
    import random

    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    from tuning.models import save_whole

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    config = Phi3Config(
        vocab_size=size.vocabulary, hidden_size=size.hidden, intermediate_size=size.inner,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads,
        max_position_embeddings=size.length, original_max_position_embeddings=size.length, **ends,
    )  # fmt: skip
    torch.manual_seed(7)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Phi3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    (folder / "model").mkdir()
    save_whole(folder / "model", model)
    tokenizer.save_pretrained(folder / "model")
    words = [f"word{number}" for number in range(500)]
    rows = size.batch * (size.warm_up + size.steps)
    for name, tokens in (("train.jsonl", (rows + 1) * size.length), ("test.jsonl", 2 * size.length)):
        text = " ".join(random.Random(name).choices(words, k=tokens // 2))  # a word is two tokens at least
        (folder / name).write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")


def config_of(size: Size, contender: str) -> Any:
    """The job."""
    from tuning.config import parse_config

    training: dict[str, Any] = {
        "batch_size": 1, "gradient_accumulation": size.batch, "packing": False, "precision": "bf16",
        "max_length": size.length, "max_steps": size.warm_up + size.steps, "schedule": "constant",
        "warmup_ratio": 0.0, "learning_rate": 1e-4, "max_grad_norm": 1.0,
    }  # fmt: skip
    if contender in ("qlora", "ours-recomputed"):
        training["gradient_checkpointing"] = True
    method = {"name": "qlora" if contender == "qlora" else "lora"}
    return parse_config({"task": "domain", "method": method, "training": training})


class Clock:
    """Seconds of each step after the warm-up, the loss of each step, and the most memory that was held."""

    def __init__(self, size: Size) -> None:
        import torch

        self.size = size
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self._step, self._start = 0, 0.0

    def begin(self) -> None:
        """A step begins."""
        if self._cuda:
            self._cuda.synchronize()
        self._start = time.perf_counter()

    def end(self) -> None:
        """A step has ended."""
        if self._cuda:
            self._cuda.synchronize()
        if self._step >= self.size.warm_up:
            self.seconds.append(time.perf_counter() - self._start)
        self._step += 1

    def report(self, **more: Any) -> dict[str, Any]:
        """What was measured."""
        import torch

        from tuning.device import memory_used_bytes

        peak = memory_used_bytes(torch.device("cuda", 0) if self._cuda else torch.device("cpu"))
        seconds = statistics.median(self.seconds)
        return {"step_s": seconds, "peak_gb": peak / 1e9, "losses": self.losses, **more}


def train_ours(size: Size, contender: str, folder: Path) -> dict[str, Any]:
    """The bundled script's own step function."""
    import train
    from tuning.distributed import join
    from tuning.events import EventLog
    from tuning.run import Files, prepare
    from tuning.stopping import StopRequest

    config, clock = config_of(size, contender), Clock(size)
    with tempfile.TemporaryDirectory() as output:
        rows, held_out = (folder / name for name in ("train.jsonl", "test.jsonl"))
        files = Files(rows, held_out, str(folder / "model"), Path(output))
        log = EventLog(Path(output) / "events.jsonl")
        run = prepare(config, files, join(config.distributed), StopRequest(), log)
        for step in range(size.warm_up + size.steps):
            clock.begin()
            loss, _, _ = train.take_step(run, step)
            clock.end()
            clock.losses.append(loss)
    picked = {name: choice.what for name, choice in run.picked.items()}
    return clock.report(picked=picked, recomputes=run.checkpointing)


def train_trl(size: Size, folder: Path) -> dict[str, Any]:
    """SFTTrainer at its defaults on the same rows, already encoded, in the same order."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig

    from tuning.config import MethodConfig
    from tuning.methods import METHODS
    from tuning.models import load_model, load_tokenizer

    rows, clock = rows_in_order(size, folder), Clock(size)
    tokenizer = load_tokenizer(str(folder / "model"))
    base = load_model(str(folder / "model"), torch.bfloat16)
    torch.manual_seed(7)
    model = METHODS["lora"].prepare(base, MethodConfig())
    with tempfile.TemporaryDirectory() as output:
        settings = SFTConfig(
            output_dir=output, max_steps=size.warm_up + size.steps, per_device_train_batch_size=size.batch,
            learning_rate=1e-4, lr_scheduler_type="constant", max_length=size.length, report_to=[],
            save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        columns = {"input_ids": [row.ids.tolist() for row in rows]}
        columns["labels"] = [row.labels.tolist() for row in rows]
        trainer = trainer_in_order()(
            model=model, args=settings, train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer, callbacks=[callback(clock.begin, clock.end)],
        )  # fmt: skip
        trainer.train()
    clock.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return clock.report(recomputes=settings.gradient_checkpointing)


def rows_in_order(size: Size, folder: Path) -> list[Any]:
    """The training rows in the order in which the bundled script takes them."""
    from tuning.batches import Plan
    from tuning.data import encode_row, load_rows
    from tuning.models import load_tokenizer

    config, path = config_of(size, "ours"), folder / "train.jsonl"
    tokenizer = load_tokenizer(str(folder / "model"))
    encoded = [encode_row(row, path, tokenizer, config)[0] for row in load_rows(path, config.task)]
    rows = [part for parts in encoded for part in parts]
    plan = Plan(rows, config.training, processes=1)
    return [rows[row] for step in range(plan.steps) for unit in plan.rows_of_step(step) for row in unit]


def trainer_in_order() -> Any:
    """An SFTTrainer that takes the rows as they come."""
    from torch.utils.data import SequentialSampler
    from trl import SFTTrainer

    class InOrder(SFTTrainer):  # type: ignore[misc]
        """Does not shuffle."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    return InOrder


def callback(begin: Callable[[], None], end: Callable[[], None]) -> Any:
    """What lets a Trainer call something before and after each step."""
    from transformers import TrainerCallback

    class Steps(TrainerCallback):  # type: ignore[misc]
        """Knows when a step begins and ends."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            end()

    return Steps()


def ask(contender: str, folder: Path, *, tiny: bool) -> dict[str, Any]:
    """Measure one contender in a process of its own."""
    words = [sys.executable, __file__, "--contender", contender, "--folder", str(folder)]
    from tuning.startup import BRIEF_SPIN, ENVIRONMENT

    environment = {**os.environ, "GOMP_SPINCOUNT": BRIEF_SPIN, "HF_HUB_OFFLINE": "1", **ENVIRONMENT}
    done = subprocess.run(
        words + ["--tiny"] * tiny, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr[-3000:]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in facts.items()}
    print(f"{contender}: {shown}", flush=True)
    return facts


def judge(size: Size, heard: dict[str, list[dict[str, Any]]], peak: float | None) -> bool:
    """Print what came out; whether the bounds hold. Without a peak (a CPU) only losses are bounded."""
    step_s = {name: statistics.median(one["step_s"] for one in rounds) for name, rounds in heard.items()}
    memory = {name: statistics.median(one["peak_gb"] for one in rounds) for name, rounds in heard.items()}
    tokens = size.batch * size.length
    pairs = zip(heard["ours"], heard["trl"], strict=True)
    rate = size.flops_a_token() * tokens / step_s["ours"]
    ratios = {
        "tokens/s of TRL's defaults": (
            statistics.median(theirs["step_s"] / mine["step_s"] for mine, theirs in pairs), SPEED_BOUND, 1),
        "memory of TRL's defaults": (memory["ours"] / memory["trl"], MEMORY_BOUND, -1),
        "memory, QLoRA by LoRA": (memory["qlora"] / memory["ours"], QLORA_BOUND, -1),
    }  # fmt: skip
    if peak is not None:
        bound = SHARE_BOUND if peak == HOPPER_PEAK else 0.0
        ratios["share of the card's peak"] = (rate / peak, bound, 1)
    good = True
    for what, (ratio, bound, better) in ratios.items():
        print(f"{what}: {ratio:.3f} (bound {bound:.2f})")
        good = good and better * ratio >= better * bound
    recomputed = memory["qlora"] / memory["ours-recomputed"]
    print(f"memory, QLoRA by LoRA, both with gradient checkpointing: {recomputed:.3f}")
    print(f"LoRA: {tokens / step_s['ours']:.0f} tokens/s, {rate / 1e12:.3g} TFLOP/s, {memory['ours']:.2f} GB")
    apart = loss_apart(heard["ours"][0]["losses"], heard["trl"][0]["losses"])
    print(f"losses of LoRA and TRL apart by at most {apart:.2%} in any step (bound {LOSS_BOUND:.0%})")
    return (good or peak is None) and apart <= LOSS_BOUND


def loss_apart(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference of two losses of the same step, as a share."""
    return max(abs(one / other - 1) for one, other in zip(mine, theirs, strict=True))


def peak_of(name: str) -> float | None:
    """The dense bf16 peak of a card, in FLOP/s; None for one that is not in the table."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def missing(*, tiny: bool) -> str | None:
    """Why nothing can be measured here."""
    import torch

    if not (tiny or torch.cuda.is_available()):
        return "no CUDA device"
    needed = ["trl", "datasets", "bitsandbytes", "peft"] + ["liger_kernel"] * (not tiny)
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if not tiny and peak_of(torch.cuda.get_device_name()) is None:
        return f"the peak of {torch.cuda.get_device_name()} is not known"
    return None


def surroundings() -> str:
    """Where this was measured, and what with."""
    from importlib.metadata import version

    import torch

    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU (tiny: figures say nothing)"
    )
    names = ("torch", "transformers", "peft", "trl", "bitsandbytes")
    return f"commit {commit}; {device}; {', '.join(f'{name} {version(name)}' for name in names)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and judge, or with --contender be one of the measured; returns the exit code."""
    parser = argparse.ArgumentParser(description="LoRA and QLoRA of a Phi-3-mini on one GPU.")
    parser.add_argument("--tiny", action="store_true", help="the same path on a CPU with a tiny model")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    size = TINY if given.tiny else MINI
    if given.contender:
        is_trl = given.contender == "trl"
        facts = train_trl(size, given.folder) if is_trl else train_ours(size, given.contender, given.folder)
        print(json.dumps(facts))
        return 0
    if reason := missing(tiny=given.tiny):
        print(f"{reason}: not measured")
        return NOT_MEASURED
    print(surroundings())
    heard: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(size, Path(folder))
        for _ in range(size.rounds):
            for name in CONTENDERS:
                heard[name].append(ask(name, Path(folder), tiny=given.tiny))
    import torch

    peak = None if given.tiny else peak_of(torch.cuda.get_device_name())
    return 0 if judge(size, heard, peak) else 1


if __name__ == "__main__":
    sys.exit(main())
