"""Fine-tune a causal language model: LoRA or full, one process or several, on a CPU or a GPU.

Paste this next to a file of rows (one JSON object a line) and a model folder or Hugging Face id:

    echo '{"task": "chat", "method": {"name": "lora"}, "training": {"epochs": 1, "max_length": 512}}' > config.json
    python train.py --config config.json --train rows.jsonl --model microsoft/Phi-3-mini-4k-instruct --output run

Several processes on one machine: `python -m torch.distributed.run --standalone --nproc-per-node 2 train.py ...` with
`"distributed": {"strategy": "ddp", "processes": 2}` in the config; see tuning/config.py for all that it may hold.
OUTPUT gets events.jsonl (what happens, as it happens), checkpoints/, model/, samples.jsonl and at last result.json.
The same command again goes on from the newest checkpoint, with the same losses as if it had never stopped.
Exit codes: 0 done, 1 failed, 2 bad input, 143 stopped by SIGTERM with a checkpoint, 130 by Ctrl-C.
"""

from __future__ import annotations

if __name__ == "__main__":
    from tuning.stopping import exit_quietly_while_starting

    exit_quietly_while_starting()

import argparse
import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from tuning import distributed, outcome
from tuning.batches import Plan, lay_out, without_loss
from tuning.checkpoints import Checkpoints, Progress
from tuning.config import Config, read_config
from tuning.data import Data, load_data
from tuning.device import choose_precision, needs_checkpointing
from tuning.distributed import Processes
from tuning.errors import FailedError, InputError, StoppedError
from tuning.evaluation import Scorer, Scores, hold
from tuning.events import EventLog, say, write_json
from tuning.failures import explain
from tuning.loss import SupervisedLoss
from tuning.methods import METHODS, count_parameters
from tuning.models import DTYPES, check_fit, load_model, load_tokenizer, save_model
from tuning.optimization import learning_rate, make_optimizer, set_learning_rate
from tuning.steplog import StepLog
from tuning.stopping import StopRequest
from tuning.tasks import TASKS


@dataclass(frozen=True)
class Files:
    """Where a run reads and writes; `model` is a folder or a Hugging Face id."""

    train: Path
    validation: Path | None
    model: str
    output: Path


@dataclass
class Run:
    """All that training works with. `loss` holds the model; `progress` says how far it has come."""

    config: Config
    files: Files
    processes: Processes
    precision: str
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
        self.parallel_loss: Any = self.loss
        if self.processes.count > 1:
            self.parallel_loss = DistributedDataParallel(self.loss, broadcast_buffers=False)
        held_out = self.data.validation_sample(self.config.evaluation.max_rows, self.config.training.seed)
        source = self.files.validation or self.files.train
        self.held_out = hold(held_out, source, self.tokenizer, self.config.training.max_length)
        self.scorer = Scorer(
            loss=self.loss,
            tokenizer=self.tokenizer,
            processes=self.processes,
            max_new_tokens=self.config.evaluation.max_new_tokens,
            labels=self.data.labels,
            autocast=self.autocast,
            check=lambda: self.stop.raise_if_asked(self.progress.step),
        )

    def autocast(self) -> torch.autocast:
        """The number format of forward passes."""
        return torch.autocast(self.processes.device.type, DTYPES["bf16"], enabled=self.precision == "bf16")


def train(config: Config, files: Files) -> None:
    """Train, evaluate and save; returns when OUTPUT/result.json is there.

    Raises InputError for a config, data or model that cannot be used, FailedError when there is no going on, and
    StoppedError after a stop signal, with a checkpoint saved. Call it from the main thread.
    """
    processes = distributed.join(config.distributed)
    try:
        files.output.mkdir(parents=True, exist_ok=True)
        log = EventLog(files.output / "events.jsonl", enabled=processes.is_first)
    except OSError as error:
        raise InputError(f"Cannot write to {files.output}: {error.strerror or error}; try another --output.") from error
    with log as events, StopRequest() as stop:
        try:
            _train(config, files, processes, stop, events)
        except Exception as error:
            raise _tell_end(error, files.output, stop, events) from error
        finally:
            distributed.leave()


def _train(config: Config, files: Files, processes: Processes, stop: StopRequest, events: EventLog) -> None:
    """The whole of a run: prepare or take up, measure, train, measure again, save."""
    if (files.output / outcome.RESULT).exists():
        say(f"{files.output} holds a finished run; give another --output to train again.")
        return
    run = _prepare(config, files, processes, stop, events)
    run.progress = run.checkpoints.load_newest(run.model, run.optimizer)
    _tell_start(run)
    before = outcome.read_scores(files.output / outcome.BEFORE) or _evaluate(run, "before")
    if processes.is_first:
        outcome.write_scores(files.output / outcome.BEFORE, before)
    _run_steps(run)
    after = _evaluate(run, "after")
    if processes.is_first:
        _save_result(run, before, after)
    processes.wait()


def _prepare(config: Config, files: Files, processes: Processes, stop: StopRequest, events: EventLog) -> Run:
    """Load data and model, and set up the method and its optimizer."""
    training = config.training
    tokenizer = load_tokenizer(files.model)
    data = load_data(files.train, files.validation, config, tokenizer)
    precision = _claim_output(config, files, processes)
    method = METHODS[config.method.name]
    model = load_model(files.model, DTYPES[precision if method.is_adapter else "fp32"])
    check_fit(model, tokenizer, training.max_length)
    torch.manual_seed(training.seed)
    model = method.prepare(model, config.method).to(processes.device)
    if needs_checkpointing(model, training, processes.device):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Run(
        config=config,
        files=files,
        processes=processes,
        precision=precision,
        tokenizer=tokenizer,
        data=data,
        loss=SupervisedLoss(model.train()),
        optimizer=make_optimizer(model, training),
        plan=Plan(data.train, training, processes.count),
        stop=stop,
        events=events,
        progress=Progress(),
        checkpoints=Checkpoints(files.output / "checkpoints", training.keep_checkpoints),
    )


def _claim_output(config: Config, files: Files, processes: Processes) -> str:
    """Make sure that the output folder is this run's, and return its precision: an earlier start's, or a fresh choice."""
    earlier = outcome.earlier_run(files.output)
    precision = earlier["chosen"]["precision"] if earlier else choose_precision(config.training.precision, processes.device)
    (is_bf16,) = processes.sum(precision == "bf16" and processes.is_first)  # the first process decides for all
    now = outcome.describe(config, files.train, files.validation, "bf16" if is_bf16 else "fp32")
    if earlier:
        outcome.check_same_run(earlier, now, files.output)
    processes.wait()
    if processes.is_first:
        write_json(files.output / outcome.CONFIG, now)
    return str(now["chosen"]["precision"])


def _run_steps(run: Run) -> None:
    """Train from where `run.progress` is to the last step; ends early, with a checkpoint, when asked to stop."""
    training, plan, progress = run.config.training, run.plan, run.progress
    log = StepLog(
        run.events, run.processes, steps=plan.steps, steps_an_epoch=plan.steps_an_epoch, every=training.log_every_steps
    )
    while progress.step < plan.steps:
        start = time.perf_counter()
        rate = learning_rate(progress.step, plan.steps, training)
        set_learning_rate(run.optimizer, rate)
        loss, norm, asked_to_stop = take_step(run, progress.step)
        tokens = sum(len(run.data.train[row].ids) for unit in plan.rows_of_step(progress.step) for row in unit)
        progress.step += 1
        progress.tokens_seen += tokens
        progress.train_loss = loss
        seconds = time.perf_counter() - start
        progress.train_seconds += seconds
        log.add(progress, seconds=seconds, tokens=tokens, loss=loss, learning_rate=rate, grad_norm=norm)

        ends_epoch = progress.step % plan.steps_an_epoch == 0 or progress.step == plan.steps
        if not asked_to_stop and progress.step < plan.steps and _is_due(ends_epoch, progress.step, training.evaluate_every_steps):
            _validate(run)
        if asked_to_stop or _is_due(ends_epoch, progress.step, training.checkpoint_every_steps):
            _save_checkpoint(run)
        if asked_to_stop:
            raise StoppedError(asked_to_stop, progress.step)


def take_step(run: Run, step: int) -> tuple[float, float, int]:
    """One optimizer step over all processes: (mean loss of a token, gradient norm, stop signal or 0).

    The loss is the mean over all supervised tokens of the step, however they are spread over processes and
    micro-batches. Raises FailedError if loss or gradients are not finite; the weights are then still good.
    """
    rows, processes, plan = run.data.train, run.processes, run.plan
    torch.manual_seed(hash((run.config.training.seed, step, processes.rank)))
    targets = sum(rows[row].supervised for unit in plan.rows_of_step(step) for row in unit)
    shares = list(plan.shares_of_step(step, processes.rank))
    loss_sum = torch.zeros((), device=processes.device)
    for number, share in enumerate(shares, 1):
        batch = lay_out([rows[row] for row in share] or [without_loss(rows[0])], run.tokenizer.pad_token_id)
        waits = processes.count > 1 and number < len(shares)  # gradients are exchanged once, after the last share
        with run.parallel_loss.no_sync() if waits else nullcontext():
            with run.autocast():
                loss = run.parallel_loss(batch.to(processes.device))
            (loss * (processes.count / targets)).backward()  # several processes average their gradients
        loss_sum += loss.detach()
    total, stops = processes.sum(loss_sum, bool(run.stop.signal_number))
    norm = float(clip_grad_norm_(run.trainable, run.config.training.max_grad_norm))
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise FailedError(
            f"Loss {total / targets:.4g} and gradient norm {norm:.4g} at step {step + 1} are not both finite numbers; "
            "lower training.learning_rate or training.max_grad_norm, or give training.precision fp32."
        )
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return total / targets, norm, (run.stop.signal_number or 15) if stops else 0


def _is_due(ends_epoch: bool, step: int, every: int | None) -> bool:
    return ends_epoch or (every is not None and step % every == 0)


def _validate(run: Run) -> None:
    if run.held_out:
        run.progress.validation_loss = run.scorer.losses(run.held_out)["loss"]
        run.events.write("validation", step=run.progress.step, loss=run.progress.validation_loss)


def _evaluate(run: Run, when: str) -> Scores:
    """Score the held-out rows with the task's own metrics; the scores after training hold the last validation loss."""
    if not run.held_out:
        return Scores({}, [])
    scores = TASKS[run.config.task].score(run.scorer, run.held_out)
    if when == "after":
        run.progress.validation_loss = scores.metrics["loss"]
        run.events.write("validation", step=run.progress.step, loss=scores.metrics["loss"])
    run.events.write("evaluation", when=when, metrics=scores.metrics, rows=len(run.held_out))
    return scores


def _save_checkpoint(run: Run) -> None:
    if run.processes.is_first:
        path = run.checkpoints.save(run.progress, run.model, run.optimizer)
        run.events.write("checkpoint", step=run.progress.step, path=str(path.relative_to(run.files.output)))
    run.processes.wait()


def _save_result(run: Run, before: Scores, after: Scores) -> None:
    """Write the model, the samples and at last result.json."""
    output, config, task = run.files.output, run.config, TASKS[run.config.task]
    is_adapter = METHODS[config.method.name].is_adapter
    hashes = outcome.fill_folder_atomically(
        output / outcome.MODEL,
        lambda folder: save_model(folder, run.model, run.tokenizer, run.data.labels, is_adapter),
    )
    outcome.write_samples(output / outcome.SAMPLES, run.held_out, before=before.answers, after=after.answers)
    parameters, trainable = count_parameters(run.model)
    result = {
        "task": config.task,
        "method": config.method.name,
        "base_model": run.files.model,
        "adapter": is_adapter,
        "metric": task.metric,
        "direction": task.direction,
        "before": before.metrics,
        "after": after.metrics,
        "rows": {"train": len(run.data.train), "validation": len(run.held_out), "truncated": run.data.truncated},
        "steps": run.progress.step,
        "tokens_seen": run.progress.tokens_seen,
        "train_loss": run.progress.train_loss,
        "validation_loss": run.progress.validation_loss,
        "train_seconds": round(run.progress.train_seconds, 3),
        "parameters": parameters,
        "trainable_parameters": trainable,
        "hashes": {**outcome.describe(config, run.files.train, run.files.validation, "")["hashes"], "model": hashes},
    }
    run.events.write("finished", steps=run.progress.step, metrics=after.metrics)
    write_json(output / outcome.RESULT, result)


def _tell_start(run: Run) -> None:
    """The `started` event, and the same for people."""
    parameters, trainable = count_parameters(run.model)
    facts = {
        "steps_total": run.plan.steps,
        "epochs": run.config.training.epochs,
        "device": str(run.processes.device),
        "processes": run.processes.count,
        "precision": run.precision,
        "gradient_checkpointing": bool(getattr(run.model, "is_gradient_checkpointing", False)),
        "parameters": parameters,
        "trainable_parameters": trainable,
        "resumed_from_step": run.progress.step,
        "train_rows": len(run.data.train),
        "validation_rows": len(run.held_out),
        "truncated_rows": run.data.truncated,
    }
    run.events.write("started", **facts)
    if run.processes.is_first:
        say(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))


def _tell_end(error: Exception, output: Path, stop: StopRequest, events: EventLog) -> Exception:
    """Write what ended the run to the events, if that is still possible; returns the error to raise."""
    if stop.signal_number and not isinstance(error, StoppedError):
        error = StoppedError(stop.signal_number, 0)  # the other processes were faster to leave
    if not isinstance(error, InputError | FailedError | StoppedError) and (sentence := explain(error, output)):
        error = FailedError(sentence)
    try:
        if isinstance(error, StoppedError):
            events.write("stopped", reason=error.reason, step=error.step)
        else:
            events.write("failed", message=str(error))
    except OSError as full:
        say(f"The event log could not be written: {full.strerror or full}.")
    return error


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and train; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fine-tune a causal language model.", allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True, help="JSON file: task, method, training, ...")
    parser.add_argument("--train", type=Path, required=True, help="training rows: JSON Lines, or CSV for classification")
    parser.add_argument("--validation", type=Path, help="held-out rows; without it a share of the training rows")
    parser.add_argument("--model", required=True, help="model folder or Hugging Face id")
    parser.add_argument("--output", type=Path, required=True, help="folder to fill; an unfinished run there goes on")
    given = parser.parse_args(argv)
    try:
        train(read_config(given.config), Files(given.train, given.validation, given.model, given.output))
    except (InputError, FailedError, StoppedError) as error:
        say(f"error: {error}" if not isinstance(error, StoppedError) else str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
