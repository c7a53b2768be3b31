"""The losses of TRL's DPOTrainer on the same pairs in the same order, by an adapter and by all weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_preferences import pair_rows, write_rows

import train as training_script
from tuning.batches import IGNORED
from tuning.config import Config, MethodConfig, parse_config
from tuning.distributed import join
from tuning.events import EventLog
from tuning.methods import METHODS
from tuning.models import load_model
from tuning.optimization import learning_rate, set_learning_rate
from tuning.preferences import Pair
from tuning.run import Files, Run, prepare
from tuning.stopping import StopRequest

pytestmark = pytest.mark.slow
STEPS, BATCH, RATE, BETA = 4, 6, 5e-3, 0.2
METHOD = {
    "lora": {"name": "lora", "rank": 4, "alpha": 8},
    "full": {"name": "full"},
}


@pytest.fixture
def float32_alone() -> Iterator[None]:
    """One thread, so that nothing but the two loops differs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(method: str) -> Config:
    training = {
        "objective": "dpo", "beta": BETA, "max_steps": STEPS, "batch_size": BATCH, "learning_rate": RATE,
        "schedule": "constant", "warmup_ratio": 0.0, "packing": False, "max_length": 128, "precision": "fp32",
    }  # fmt: skip
    return parse_config({"task": "chat", "method": METHOD[method], "training": training})


def our_losses(run: Run) -> list[float]:
    run.objective.get_ready(run)
    losses = []
    for step in range(STEPS):
        set_learning_rate(run.optimizer, learning_rate(step, STEPS, run.config.training))
        losses.append(training_script.take_step(run, step)[0])
    return losses


def tokens_of(pair: Pair) -> dict[str, list[int]]:
    """A pair as TRL's collator takes it."""
    prompt = int((pair.chosen.labels != IGNORED).int().argmax())
    ids = {"prompt_ids": pair.chosen.ids[:prompt], "chosen_ids": pair.chosen.ids[prompt:]}
    return {name: part.tolist() for name, part in {**ids, "rejected_ids": pair.rejected.ids[prompt:]}.items()}


def their_losses(model: Any, pairs: list[Pair], folder: Path) -> list[float]:
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):  # type: ignore[misc]
        """Takes tokens as they are, in their order."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    arguments = DPOConfig(
        output_dir=str(folder), beta=BETA, per_device_train_batch_size=BATCH, max_steps=STEPS,
        learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=1.0, logging_steps=1, bf16=False,
        use_cpu=True, report_to=[], save_strategy="no", max_length=None, gradient_checkpointing=False,
        disable_dropout=True, optim="adamw_torch",
    )  # fmt: skip
    rows = Dataset.from_list([tokens_of(pair) for pair in pairs])
    tokenizer = AutoTokenizer.from_pretrained(model.config._name_or_path)
    trainer = InOrder(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("method", METHOD)
def test_the_losses_of_trl(float32_alone: None, mini_model: Path, tmp_path: Path, method: str) -> None:
    pytest.importorskip("trl")
    rows = write_rows(tmp_path / "rows.jsonl", pair_rows(32))
    config = config_of(method)
    files = Files(rows, None, str(mini_model), tmp_path / "run")
    files.output.mkdir()
    with EventLog(files.output / "events.jsonl") as events:
        run = prepare(config, files, join(config.distributed), StopRequest(), events)
        ours = our_losses(run)
    order = [row for step in range(STEPS) for unit in run.plan.rows_of_step(step) for row in unit]
    torch.manual_seed(config.training.seed)
    model = METHODS[method].prepare(
        load_model(str(mini_model), torch.float32), MethodConfig(**METHOD[method])
    )
    theirs = their_losses(model, [run.data.train[row] for row in order], tmp_path / "theirs")
    assert ours[0] == pytest.approx(0.693147, abs=1e-5)
    assert ours[-1] < ours[0]
    assert theirs == pytest.approx(ours, abs=1e-4)
    kept = json.loads((files.output / "reference.json").read_text())
    assert kept[0] == [run.data.train[row].margin for row in sorted(run.plan.rows_used())]
