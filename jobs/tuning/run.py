"""A training run: all that its loop works with, made from the config and the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from tuning import outcome
from tuning.batches import Plan
from tuning.checkpoints import Checkpoints, Progress
from tuning.combinations import refusal
from tuning.config import Config
from tuning.data import Data, load_data
from tuning.device import choose_precision, needs_checkpointing
from tuning.distributed import Processes
from tuning.errors import InputError
from tuning.evaluation import Scorer, hold
from tuning.events import EventLog, write_json
from tuning.lean import make_lean
from tuning.loss import SupervisedLoss
from tuning.methods import METHODS, AroundStep, NothingMore, count_parameters, quantization_of
from tuning.models import DTYPES, check_fit, hidden_size, load_model, load_tokenizer
from tuning.optimization import make_optimizer
from tuning.stopping import StopRequest
from tuning.templates import use_template


@dataclass(frozen=True)
class Files:
    """Where a run reads and writes; `model` is a folder or a Hugging Face id."""

    train: Path
    validation: Path | None
    model: str
    output: Path
    chat_template: Path | None = None

    @property
    def sources(self) -> dict[str, Path]:
        """The files that decide what is learned, by name."""
        named = {"train": self.train, "validation": self.validation, "chat_template": self.chat_template}
        return {name: path for name, path in named.items() if path is not None}


@dataclass
class Run:
    """All that training works with. `loss` holds the model; `progress` says how far it has come."""

    config: Config
    files: Files
    processes: Processes
    precision: str
    checkpointing: bool
    tokenizer: Any
    data: Data
    loss: SupervisedLoss
    optimizer: torch.optim.Optimizer
    plan: Plan
    stop: StopRequest
    events: EventLog
    progress: Progress
    checkpoints: Checkpoints

    def __post_init__(self) -> None:
        self.model: Any = self.loss.model
        self.trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.around_step: AroundStep = NothingMore()
        self.parallel_loss: Any = self.loss
        if self.processes.count > 1:
            self.parallel_loss = DistributedDataParallel(self.loss, broadcast_buffers=False)
        held_out = self.data.validation_sample(self.config.evaluation.max_rows, self.config.training.seed)
        source = self.files.validation or self.files.train
        self.held_out = hold(held_out, source, self.tokenizer, self.config)
        self.scorer = Scorer(
            config=self.config,
            loss=self.loss,
            tokenizer=self.tokenizer,
            processes=self.processes,
            labels=self.data.labels,
            autocast=self.autocast,
            check=lambda: self.stop.raise_if_asked(self.progress.step),
        )

    def autocast(self) -> torch.autocast:
        """The number format of forward passes."""
        return torch.autocast(self.processes.device.type, DTYPES["bf16"], enabled=self.precision == "bf16")

    def describe(self) -> dict[str, Any]:
        """What the `started` event says."""
        parameters, trainable = count_parameters(self.model)
        return {
            "steps_total": self.plan.steps,
            "epochs": self.config.training.epochs,
            "device": str(self.processes.device),
            "processes": self.processes.count,
            "precision": self.precision,
            "gradient_checkpointing": self.checkpointing,
            "method": self.config.method.name,
            "quantization": quantization_of(self.config.method),
            "parameters": parameters,
            "trainable_parameters": trainable,
            "trainable_share": round(trainable / parameters, 6),
            "resumed_from_step": self.progress.step,
            "train_rows": len(self.data.train),
            "validation_rows": len(self.held_out),
            "truncated_rows": self.data.truncated,
        }


def prepare(config: Config, files: Files, processes: Processes, stop: StopRequest, events: EventLog) -> Run:
    """Load data and model, and set up the method and its optimizer. Raises InputError."""
    training = config.training
    if reason := refusal(config):
        raise InputError(reason)
    tokenizer = load_tokenizer(files.model)
    if files.chat_template is not None:
        use_template(tokenizer, files.chat_template)
    data = load_data(files.train, files.validation, config, tokenizer)
    precision = _claim_output(config, files, processes)
    plan = Plan(data.train, training, processes.count)
    method = METHODS[config.method.name]
    dtype, packed = DTYPES["fp32" if method.fp32_base else precision], quantization_of(config.method)
    model: Any = load_model(files.model, dtype, packed, processes.device)
    torch.manual_seed(training.seed)
    model = method.prepare(model, config.method, plan.steps).to(processes.device)
    check_fit(model, tokenizer, training.max_length)
    if processes.device.type == "cpu" and precision == "fp32":
        make_lean(model)
    checkpointing = method.recomputes and needs_checkpointing(model, training, processes.device)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Run(
        config=config,
        files=files,
        processes=processes,
        precision=precision,
        checkpointing=checkpointing,
        tokenizer=tokenizer,
        data=data,
        loss=SupervisedLoss(model.train()),
        optimizer=make_optimizer(model, training),
        plan=plan,
        stop=stop,
        events=events,
        progress=Progress(),
        checkpoints=Checkpoints(files.output / "checkpoints", training.keep_checkpoints),
    )


def _claim_output(config: Config, files: Files, processes: Processes) -> str:
    """Make the output folder this run's; returns its precision: an earlier start's, or a new choice."""
    earlier = outcome.earlier_run(files.output)
    if earlier:
        precision = str(earlier["chosen"]["precision"])
    else:
        width = hidden_size(files.model)
        precision = choose_precision(config.training.precision, processes.device, width)
    (bf16,) = processes.sum(precision == "bf16" and processes.is_first)  # the first process decides for all
    now = outcome.describe(config, files.sources, "bf16" if bf16 else "fp32")
    if earlier:
        outcome.check_same_run(earlier, now, files.output)
    processes.wait()
    if processes.is_first:
        write_json(files.output / outcome.CONFIG, now)
    return str(now["chosen"]["precision"])
