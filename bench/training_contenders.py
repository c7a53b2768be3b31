"""Those who train in bench/training_throughput.py: the bundled script's own step, and TRL's SFTTrainer.

Each runs in a process of its own and takes a step when it is told to, so that two can be measured in turns,
step by step. It reads a line from stdin before each step and writes one of JSON after it: `tokens` (of the
rows, without padding), `seconds`, `computed` (seconds of processor time), `flops` (what the rows ask for:
`Arithmetic`) and `gemm` (`gemm_flops` right after the step). At the end it writes `loss`, that of the trained
weights on held-out rows, by the same code for all, and `peak_mb`, its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuning.batches import TokenRow

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "jobs"))
TINY = ROOT / "models" / "tiny-phi3"
CONTENDERS = ("ours-defaults", "trl-defaults", "ours", "trl-tuned")
DEFAULT_BATCH = 8  # of both; ours counts packed sequences of max_length tokens
RANDOM = {
    "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8,
    "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 1024,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is trained: a model and rows in a folder, in `steps` steps of `batch` rows (tuned)."""

    task: str
    folder: Path
    model: Path
    max_length: int
    batch: int
    rate: float

    @classmethod
    def named(cls, size: str, folder: Path) -> Work:
        """`tiny` is the model and the rows that come with maas; `medium` is in `folder`: `make_medium`."""
        if size == "tiny":
            rows = ROOT / "jobs" / "examples" / "card-support"
            return cls("classification", rows, TINY, max_length=256, batch=16, rate=2e-3)
        return cls("domain", folder, folder / "model", max_length=512, batch=2, rate=2e-4)

    def config(self, steps: int, *, defaults: bool = False) -> Any:
        """The job that everyone does; the learning rate stays, since TRL's schedules end elsewhere."""
        from tuning.config import parse_config

        training = {"learning_rate": self.rate, "schedule": "constant", "warmup_ratio": 0.0, "epochs": 100}
        training |= {"max_steps": steps, "max_length": self.max_length}
        if not defaults:
            training |= {"batch_size": self.batch, "packing": False}
        return parse_config({"task": self.task, "training": training})

    def encoded(self, name: str) -> list[Any]:
        """The rows of a file as tokens."""
        from tuning.data import encode_row, load_rows

        path, config = self.folder / name, self.config(1)
        rows = load_rows(path, self.task)
        return [part for row in rows for part in encode_row(row, path, self.tokenizer, config)[0]]

    def in_order(self, steps: int) -> list[Any]:
        """The training rows in the order in which the bundled script takes them."""
        from tuning.batches import Plan

        rows = self.encoded("train.jsonl")
        plan = Plan(rows, self.config(steps).training, processes=1)
        return [rows[row] for step in range(steps) for unit in plan.rows_of_step(step) for row in unit]

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        from tuning.models import load_tokenizer

        return load_tokenizer(str(self.model))

    def adapted_model(self) -> Any:
        """The model with LoRA in fp32, the same weights for every contender."""
        import torch

        from tuning.config import MethodConfig
        from tuning.methods import METHODS
        from tuning.models import load_model

        torch.manual_seed(7)
        return METHODS["lora"].prepare(load_model(str(self.model), torch.float32), MethodConfig())


def make_medium(folder: Path) -> None:
    """Put a Phi-3 of 108 M random weights and rows of 512 tokens, all of which carry loss, into a folder."""
    import random

    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    from tuning.models import save_whole

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    torch.manual_seed(7)
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    (folder / "model").mkdir()
    save_whole(folder / "model", Phi3ForCausalLM(Phi3Config(**RANDOM, **ends)))
    tokenizer.save_pretrained(folder / "model")
    words = [f"word{number}" for number in range(50)]
    for name, number in (("train.jsonl", 24), ("test.jsonl", 1)):
        chosen = random.Random(name)
        texts = [" ".join(chosen.choices(words, k=4000)) for _ in range(number)]
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (folder / name).write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Arithmetic:
    """What a step of LoRA on a model computes at least; an adapter's own products are left out.

    Forward and backward pass of a frozen weight are 4 floating-point operations a token: in the output head
    where a token carries loss, elsewhere for every token. Causal attention is 6 a pair of hidden unit and
    token seen, of which a token sees half of its row.
    """

    linear: int
    head: int
    hidden_of_all_layers: int

    @classmethod
    def of_model(cls, config: Any) -> Arithmetic:
        """Of a Phi-3."""
        hidden, layers = config.hidden_size, config.num_hidden_layers
        width = hidden // config.num_attention_heads
        kv = width * config.num_key_value_heads
        linear = layers * hidden * (2 * hidden + 2 * kv + 3 * config.intermediate_size)
        return cls(linear, config.vocab_size * hidden, layers * hidden)

    def of(self, rows: Sequence[TokenRow]) -> float:
        """Floating-point operations of a step that takes these rows."""
        products = sum(4.0 * (self.linear * row.length + self.head * row.weight) for row in rows)
        return products + sum(6.0 * self.hidden_of_all_layers * row.length**2 for row in rows)


class Turns:
    """A contender's side of the talk: waits for its turn, and tells what it did."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what libraries print goes elsewhere
        self._start = self._computed = 0.0

    def begin(self) -> None:
        """Wait for the turn, and start the clock."""
        if not sys.stdin.readline():
            raise SystemExit("nobody asks for a step any more")
        self._start, self._computed = time.perf_counter(), time.process_time()

    def end(self, rows: Sequence[Any], arithmetic: Arithmetic) -> None:
        """Stop the clock, and tell of the step that took these rows."""
        seconds, computed = time.perf_counter() - self._start, time.process_time() - self._computed
        tokens = sum(len(row.ids) for row in rows)
        told = {"tokens": tokens, "seconds": seconds, "computed": computed, "flops": arithmetic.of(rows)}
        self.tell(**told, gemm=gemm_flops())

    def tell(self, **facts: float) -> None:
        """Write a line."""
        print(json.dumps(facts), file=self._out, flush=True)


def gemm_flops(size: int = 1024) -> float:
    """Floating-point operations a second of a product of two square matrices; the best of six."""
    import torch

    best = float("inf")
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        for _ in range(3):
            start = time.perf_counter()
            left @ right
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def train_ours(work: Work, steps: int, turns: Turns, *, defaults: bool) -> Any:
    """The bundled script's own step function; returns the trained model."""
    import train
    from tuning.distributed import join
    from tuning.events import EventLog
    from tuning.run import Files, prepare
    from tuning.stopping import StopRequest

    config = work.config(steps, defaults=defaults)
    with tempfile.TemporaryDirectory() as folder:
        rows, held_out = (work.folder / name for name in ("train.jsonl", "test.jsonl"))
        files = Files(rows, held_out, str(work.model), Path(folder))
        log = EventLog(Path(folder) / "events.jsonl")
        run = prepare(config, files, join(config.distributed), StopRequest(), log)
        arithmetic = Arithmetic.of_model(run.model.config)
        for step in range(steps):
            turns.begin()
            train.take_step(run, step)
            numbers = [number for unit in run.plan.rows_of_step(step) for number in unit]
            turns.end([run.data.train[number] for number in numbers], arithmetic)
    return run.model


def train_trl(work: Work, steps: int, turns: Turns, *, tuned: bool) -> Any:
    """SFTTrainer on the same rows, already encoded, in the same order; returns the trained model."""
    from datasets import Dataset
    from trl import SFTConfig

    batch = work.batch if tuned else DEFAULT_BATCH
    rows = work.in_order(-(-steps * batch // work.batch))[: steps * batch]
    taken = (rows[place : place + batch] for place in range(0, len(rows), batch))
    model = work.adapted_model()
    arithmetic = Arithmetic.of_model(model.config)
    own = {"bf16": False, "gradient_checkpointing": False, "optim": "adamw_torch_fused"} if tuned else {}
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=work.rate,
            lr_scheduler_type="constant", max_length=work.max_length, report_to=[], save_strategy="no",
            use_cpu=True, logging_steps=1000, disable_tqdm=True, weight_decay=0.0, **own,
        )  # fmt: skip
        columns = {
            "input_ids": [row.ids.tolist() for row in rows],
            "labels": [row.labels.tolist() for row in rows],
        }
        trainer = trainer_in_order()(
            model=model, args=settings, train_dataset=Dataset.from_dict(columns),
            processing_class=work.tokenizer,
            callbacks=[callback(turns.begin, lambda: turns.end(next(taken), arithmetic))],
        )  # fmt: skip
        trainer.train()
    return trainer.model


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

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Knows when a step begins and ends."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            end()

    return Clock()


def tell_result(work: Work, model: Any, turns: Turns) -> None:
    """The peak memory of training, and the loss on up to 200 held-out rows."""
    import torch

    from tuning.batches import lay_out
    from tuning.device import memory_used_bytes
    from tuning.loss import SupervisedLoss

    peak = memory_used_bytes(torch.device("cpu"))
    held_out = work.encoded("test.jsonl")[: 200 if work.model == TINY else 4]
    batch = lay_out(held_out, work.tokenizer.pad_token_id)
    with torch.no_grad():
        loss = SupervisedLoss(model.float().eval())(batch) / len(batch.targets)
    turns.tell(loss=float(loss), peak_mb=peak / 1e6)


def main() -> None:
    """Be one of them."""
    parser = argparse.ArgumentParser(description="One contender of bench/training_throughput.py.")
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("size", choices=("tiny", "medium"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    given = parser.parse_args()
    work, turns = Work.named(given.size, given.folder), Turns()
    if given.contender.startswith("ours"):
        from tuning.startup import prepare_process

        prepare_process()  # as the script does when it is started
        model = train_ours(work, given.steps, turns, defaults=given.contender == "ours-defaults")
    else:
        model = train_trl(work, given.steps, turns, tuned=given.contender == "trl-tuned")
    tell_result(work, model, turns)


if __name__ == "__main__":
    main()
