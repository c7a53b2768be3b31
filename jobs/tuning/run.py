"""A training run: all that its loop works with, made from the config and the files."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from tuning import outcome
from tuning.accumulation import MicroBatches, parts_from_here
from tuning.allocator import give_back_freed_memory
from tuning.batches import Batch, Plan
from tuning.checkpoints import Checkpoints, Progress
from tuning.combinations import refusal
from tuning.config import Config
from tuning.data import Data, load_data
from tuning.device import choose_precision, memory_free_bytes
from tuning.distributed import Processes
from tuning.errors import InputError, StoppedError
from tuning.evaluation import Scorer, hold
from tuning.events import EventLog, say, write_json
from tuning.fitting import fit_run
from tuning.holdings import Holdings
from tuning.kernels import Choice, choose, facts_of, install
from tuning.loss import SupervisedLoss
from tuning.methods import METHODS, AroundStep, NothingMore, count_parameters, quantization_of
from tuning.models import DTYPES, check_fit, hidden_size, load_model, load_tokenizer
from tuning.objectives import OBJECTIVES, Objective
from tuning.sharding import SHARDS_MODEL
from tuning.stopping import StopRequest
from tuning.strategies import STRATEGIES, Strategy
from tuning.tasks import TASKS
from tuning.templates import use_template
from tuning.virtualtokens import count_virtual_tokens


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
    """All that training works with. `loss` holds the model; `progress` says how far it has come.

    `sizes` are the model's parameters, all and trained ones, counted before a strategy splits it.
    """

    config: Config
    files: Files
    processes: Processes
    precision: str
    checkpointing: bool
    tokenizer: Any
    data: Data
    loss: SupervisedLoss
    sizes: tuple[int, int]
    strategy: Strategy
    plan: Plan
    batches: MicroBatches
    picked: Mapping[str, Choice]
    stop: StopRequest
    events: EventLog
    progress: Progress
    checkpoints: Checkpoints

    def __post_init__(self) -> None:
        self.model: Any = self.strategy.model
        self.optimizer = self.strategy.optimizer
        self.around_step: AroundStep = NothingMore()
        self.model_step: int | None = None  # where the model is not that of the last step
        self.warnings: list[str] = []
        self.objective = OBJECTIVES[self.config.training.objective]
        self.task = self.objective.measured(TASKS[self.config.task])
        self.holdings = Holdings(self.strategy)
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
            check=self._stop_if_asked,
            in_step=self.config.distributed.strategy in SHARDS_MODEL,
        )

    def warn(self, sentence: str) -> None:
        """Say what speaks against trusting the result: to people, to the events, and in the result."""
        self.warnings.append(sentence)
        self.events.write("warning", message=sentence)
        if self.processes.is_first:
            say(f"warning: {sentence}")

    def is_over(self) -> bool:
        """Whether no step is left to take."""
        return self.progress.step >= self.plan.steps or self.is_out_of_patience()

    def is_out_of_patience(self) -> bool:
        """Whether the validation loss has not fallen for as long as the config waits for it."""
        patience = self.config.training.early_stopping_patience
        return patience is not None and self.progress.without_improvement >= patience

    def owes_validation(self) -> bool:
        """Whether the validation of this step is due and has not been made.

        After the last step the evaluation does it, unless the best model is wanted.
        """
        step, training = self.progress.step, self.config.training
        if not self.held_out or step in (0, self.progress.validated_step):
            return False
        if step == self.plan.steps:
            return training.keep_best
        return self._ends_epoch() or _is_due(step, training.evaluate_every_steps)

    def is_checkpoint_due(self, *, is_best: bool) -> bool:
        """Whether a checkpoint of this step, which may have the best validation so far, is to be saved."""
        training = self.config.training
        return (
            self._ends_epoch()
            or self.is_over()
            or (is_best and training.keep_best)
            or _is_due(self.progress.step, training.checkpoint_every_steps)
        )

    def facts_of_step(self, step: int) -> dict[str, Any]:
        """What the event of a step says besides the usual; every process must call it."""
        return {"rows": self.batches.rows_of_step(step)} if self.config.training.log_rows else {}

    def _ends_epoch(self) -> bool:
        step = self.progress.step
        return step == self.plan.steps or step % self.plan.steps_an_epoch == 0

    def _stop_if_asked(self) -> None:
        """Raise StoppedError after a stop signal; where processes must keep in step, all stop together."""
        number = self.stop.signal_number
        if self.scorer.in_step:
            (stops,) = self.processes.sum(bool(number))
            number = number or (signal.SIGTERM if stops else 0)
        if number:
            raise StoppedError(number, self.progress.step)

    def autocast(self) -> torch.autocast:
        """The number format of forward passes."""
        return autocast_in(self.precision, self.processes.device)

    def describe(self) -> dict[str, Any]:
        """What the `started` event says."""
        parameters, trainable = self.sizes
        return {
            "steps_total": self.plan.steps,
            "epochs": self.config.training.epochs,
            "device": str(self.processes.device),
            "processes": self.processes.count,
            "strategy": self.config.distributed.strategy,
            "threads": torch.get_num_threads(),
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
            "picked": {name: vars(choice) for name, choice in self.picked.items()},
        }

    def in_words(self) -> str:
        """The same for people: what is trained, then what was picked for this device and why."""
        facts = [f"{key.replace('_', ' ')} {value}" for key, value in self.describe().items()]
        picked = [f"{name.replace('_', ' ')} {one.what} ({one.why})" for name, one in self.picked.items()]
        return f"{', '.join(facts[:-1])}\npicked: {'; '.join(picked)}"


def autocast_in(precision: str, device: torch.device) -> torch.autocast:
    """Forward passes in a number format."""
    return torch.autocast(device.type, DTYPES["bf16"], enabled=precision == "bf16")


def _lay_out(objective: Objective, rows: Sequence[Any], pad_id: int, numbers: Sequence[int]) -> Batch:
    """Rows by their numbers as a batch; without any, a row without loss keeps the processes in step."""
    return objective.lay_out([rows[number] for number in numbers], pad_id, rows[0])


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def prepare(config: Config, files: Files, processes: Processes, stop: StopRequest, events: EventLog) -> Run:
    """Load data and model, set up the method and spread it over the processes. Raises InputError."""
    training = config.training
    if reason := refusal(config):
        raise InputError(reason)
    tokenizer = load_tokenizer(files.model)
    if files.chat_template is not None:
        use_template(tokenizer, files.chat_template)
    objective = OBJECTIVES[training.objective]
    data = load_data(files.train, files.validation, config, tokenizer, objective.encode)
    number_format = _claim_output(config, files, processes)
    precision = number_format.what
    decided = replace(config, training=replace(training, precision=cast("Any", precision)))
    plan = Plan(data.train, training, processes.count, objective.sequences)
    method = METHODS[config.method.name]
    dtype, packed = DTYPES["fp32" if method.fp32_base else precision], quantization_of(config.method)
    model: Any = load_model(files.model, dtype, packed, processes.device)
    torch.manual_seed(training.seed)
    model = method.prepare(model, config.method, plan.steps)
    strategy = config.distributed.strategy
    if strategy not in SHARDS_MODEL:  # what is split goes to its device part by part
        model.to(processes.device)
    check_fit(model, tokenizer, training.max_length)
    is_virtual = count_virtual_tokens(model) > 0
    chosen = choose(
        facts_of(processes.device), precision=precision, strategy=strategy, virtual_tokens=is_virtual
    )
    autocast = partial(autocast_in, precision, processes.device)
    installed = install(model, chosen, processes.device, autocast, virtual_tokens=is_virtual)
    free = memory_free_bytes(processes.device)
    fits = fit_run(model, config, plan, precision=precision, processes=processes, free=free)
    if fits.is_tight:
        give_back_freed_memory()
    if fits.recomputes:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = objective.make_loss(
        model.train(), config, head_loss=installed.head_loss, tells_documents=installed.tells_rows
    )
    batches = MicroBatches(
        plan,
        processes,
        partial(_lay_out, objective, data.train, tokenizer.pad_token_id),
        ahead=installed.choices.loading.what == "ahead",
    )
    batches.parts = parts_from_here(files.output, fits.parts)
    return Run(
        config=config,
        files=files,
        processes=processes,
        precision=precision,
        checkpointing=fits.recomputes,
        tokenizer=tokenizer,
        data=data,
        loss=loss,
        sizes=count_parameters(model),
        strategy=STRATEGIES[strategy](loss, decided, processes),
        plan=plan,
        batches=batches,
        picked={"precision": number_format, "memory": Choice(fits.what, fits.why), **vars(installed.choices)},
        stop=stop,
        events=events,
        progress=Progress(),
        checkpoints=Checkpoints(
            files.output / "checkpoints",
            training.keep_checkpoints,
            processes,
            keep_best=training.keep_best,
        ),
    )


def _claim_output(config: Config, files: Files, processes: Processes) -> Choice:
    """Make the output folder this run's; returns its precision: an earlier start's, or a new choice.

    The number of threads is an earlier start's, too: sums over threads round otherwise with another number.
    """
    earlier = outcome.earlier_run(files.output)
    if earlier:
        chosen = earlier["chosen"]
    else:
        width = hidden_size(files.model)
        precision, why = choose_precision(config.training.precision, processes.device, width)
        chosen = {"precision": precision, "why": why, "threads": torch.get_num_threads()}
    chosen = processes.gather(chosen)[0]  # the first process decides for all
    torch.set_num_threads(int(chosen.get("threads", torch.get_num_threads())))
    now = outcome.describe(config, files.sources, chosen)
    if earlier:
        outcome.check_same_run(earlier, now, files.output)
    processes.wait()
    if processes.is_first:
        write_json(files.output / outcome.CONFIG, now)
    return Choice(str(chosen["precision"]), str(chosen.get("why", "an earlier start chose it")))
