"""Fine-tune a causal language model: fully or by adapters, in one process or several, on a CPU or a GPU.

Paste this next to a file of rows (one JSON object a line) and a model folder or Hugging Face id:

    echo '{"task": "chat", "method": {"name": "lora"}, "training": {"epochs": 1}}' > config.json
    python train.py --config config.json --train rows.jsonl --model microsoft/phi-4 --output run

tuning/config.py shows all that the config may hold. Several processes on one machine, with `"distributed":
{"strategy": "ddp", "processes": 2}` in the config:

    python -m torch.distributed.run --standalone --nproc-per-node 2 train.py --config ...

OUTPUT gets events.jsonl (what happens, as it happens), checkpoints/, model/, samples.jsonl, capsule.json
and at last result.json. The same command again goes on from the newest checkpoint, with the same losses as
if it had never stopped. Exit codes: 0 done, 1 failed, 2 bad input, 143 stopped by SIGTERM with a checkpoint,
130 by Ctrl-C.
"""

from __future__ import annotations

if __name__ == "__main__":
    from tuning.startup import prepare_process

    prepare_process()

import argparse
import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tuning import distributed, outcome
from tuning.accumulation import accumulate
from tuning.config import Config, read_config
from tuning.distributed import Processes
from tuning.errors import FailedError, InputError, StoppedError
from tuning.evaluation import Scores
from tuning.events import EventLog, say
from tuning.failures import diverged, tell_end
from tuning.methods import METHODS
from tuning.optimization import learning_rate, set_learning_rate
from tuning.outputlock import OutputLock
from tuning.results import save_result
from tuning.run import Files, Run, prepare
from tuning.steplog import Spikes, StepLog
from tuning.stopping import StopRequest
from tuning.tracking import track


def train(config: Config, files: Files) -> None:
    """Train, evaluate and save; returns when OUTPUT/result.json is there.

    Raises InputError for a config, data or model that cannot be used, FailedError when there is no going on,
    and StoppedError after a stop signal, with a checkpoint saved. Call it from the main thread.
    """
    processes = distributed.join(config.distributed)
    try:
        files.output.mkdir(parents=True, exist_ok=True)
        log = EventLog(files.output / "events.jsonl", enabled=processes.is_first)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"Cannot write to {files.output}: {reason}; try another --output.") from error
    with log as events, StopRequest() as stop, OutputLock(files.output) as lock:
        processes.report_losses_to(events)
        try:
            processes.together(lambda: lock.take() if processes.is_first else None)
            run_to_end(config, files, processes, stop, events)
        except Exception as error:
            told = tell_end(processes.blame(error), files.output, stop, events)
            processes.leave(told)
            raise told from error
    processes.leave()


def run_to_end(
    config: Config, files: Files, processes: Processes, stop: StopRequest, events: EventLog
) -> None:
    """The whole of a run: prepare or take up, measure, train, measure again, save."""
    if (files.output / outcome.RESULT).exists():
        say(f"{files.output} holds a finished run; give another --output to train again.")
        return
    run = prepare(config, files, processes, stop, events)
    run.objective.get_ready(run)
    run.progress = run.checkpoints.load_newest(run.strategy)
    run.around_step = METHODS[config.method.name].around_step(run.model, run.optimizer)
    tracker = track(run)
    events.write("started", **run.describe())
    if processes.is_first:
        say(run.in_words())
    for sentence in run.data.warnings():
        run.warn(sentence)
    before = outcome.read_scores(files.output / outcome.BEFORE) or evaluate(run, "before")
    if processes.is_first:
        outcome.write_scores(files.output / outcome.BEFORE, before)
    take_all_steps(run)
    take_best(run)
    after = evaluate(run, "after")
    weights = run.strategy.whole_weights()
    if processes.is_first:
        save_result(run, before, after, weights)
    processes.wait()
    if tracker is not None:
        tracker.finish()


def take_all_steps(run: Run) -> None:
    """Train from `run.progress` to the end; when asked to stop, save and raise StoppedError."""
    plan, progress = run.plan, run.progress
    log = StepLog(run.events, run.processes, plan, every=run.config.training.log_every_steps)
    spikes = Spikes(run.warn)
    if run.owes_validation():  # it was cut off
        between_steps(run)
    while not run.is_over():
        start = time.perf_counter()
        rate = learning_rate(progress.step, plan.steps, run.config.training)
        set_learning_rate(run.optimizer, rate)
        loss, norm, asked_to_stop = take_step(run, progress.step)
        run.holdings.report_once(run.events, run.processes)
        tokens = plan.tokens_of_step(progress.step)
        seconds = time.perf_counter() - start

        progress.add_step(loss=loss, tokens=tokens, seconds=seconds)
        facts = {"learning_rate": rate, "grad_norm": norm, **run.facts_of_step(progress.step - 1)}
        log.add(progress, seconds=seconds, tokens=tokens, loss=loss, **facts)
        spikes.look(progress.step, norm)
        if asked_to_stop:
            save_checkpoint(run)
            raise StoppedError(asked_to_stop, progress.step)
        between_steps(run)


def between_steps(run: Run) -> None:
    """Validate and save a checkpoint, where it is time for them."""
    is_best = False
    if run.owes_validation():
        try:
            is_best = validate(run)
        except StoppedError:
            save_checkpoint(run)  # the run goes on from here, with this validation
            raise
    if run.is_checkpoint_due(is_best=is_best):
        save_checkpoint(run)


def take_step(run: Run, step: int) -> tuple[float, float, int]:
    """One optimizer step over all processes: (loss, gradient norm, stop signal or 0).

    The loss is the mean over all supervised tokens of the step (of preferences: over all pairs), however they
    are spread over processes and micro-batches. Raises FailedError if loss or gradients are not finite; the
    weights are then still good.
    """
    targets = run.plan.targets_of_step(step)
    loss_sum = accumulate(run, step, targets)
    total, stops = run.processes.sum(loss_sum, bool(run.stop.signal_number))
    run.around_step.before()
    norm = run.strategy.clip()
    run.holdings.look()
    if not (math.isfinite(total) and math.isfinite(norm)):
        if step:
            save_checkpoint(run)  # the weights are still those of the step before
        raise diverged(step, total / targets, norm)
    run.strategy.step()
    run.around_step.after(step + 1)
    run.strategy.forget_gradients()
    return total / targets, norm, (run.stop.signal_number or signal.SIGTERM) if stops else 0


def validate(run: Run) -> bool:
    """Measure the loss on the held-out rows; returns whether it is the best so far."""
    metrics = run.objective.losses(run.scorer, run.held_out)
    is_best = run.progress.note_validation(metrics["loss"])
    run.events.write("validation", step=run.progress.step, **metrics)
    if run.is_out_of_patience():
        run.events.write("stopped_early", step=run.progress.step, best_step=run.progress.best_step)
    return is_best


def take_best(run: Run) -> None:
    """Go back to the weights of the lowest validation loss, where the config wants that."""
    progress = run.progress
    if not run.config.training.keep_best or progress.best_step in (None, progress.step):
        return
    if damage := run.checkpoints.load_best(progress, run.strategy):
        run.warn(f"Checkpoint {progress.best_step}, the best, is damaged ({damage}); the last is taken.")
        return
    run.model_step = progress.best_step
    run.events.write("best", step=progress.best_step, loss=progress.best_loss)


def evaluate(run: Run, when: str) -> Scores:
    """Score the held-out rows with the metrics of task and objective, "before" or "after" training."""
    if not run.held_out:
        return Scores({}, [])
    scores = run.task.score(run.scorer, run.held_out)
    if when == "after" and not run.config.training.keep_best:
        run.progress.note_validation(scores.metrics["loss"])
        run.events.write("validation", step=run.progress.step, loss=scores.metrics["loss"])
    run.events.write("evaluation", when=when, metrics=scores.metrics, rows=len(run.held_out))
    return scores


def save_checkpoint(run: Run) -> None:
    """Let every process write what it holds of a checkpoint."""
    path = run.checkpoints.save(run.progress, run.strategy)
    run.events.write("checkpoint", step=run.progress.step, path=str(path.relative_to(run.files.output)))


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and train; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fine-tune a causal language model.", allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True, help="JSON file: task, method, training, ...")
    parser.add_argument("--train", type=Path, required=True, help="rows to learn (docs/tasks.md)")
    parser.add_argument(
        "--validation", type=Path, help="held-out rows; without it a share of the training rows"
    )
    parser.add_argument("--model", required=True, help="model folder or Hugging Face id")
    parser.add_argument("--chat-template", type=Path, help="Jinja file to use as the chat template")
    parser.add_argument("--output", type=Path, required=True, help="folder to fill, or to take up again")
    given = parser.parse_args(argv)
    try:
        files = Files(given.train, given.validation, given.model, given.output, given.chat_template)
        train(read_config(given.config), files)
    except StoppedError as stopped:
        say(str(stopped))
        return stopped.exit_code
    except (InputError, FailedError) as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
