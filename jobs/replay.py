"""Take the first steps of a finished run again and compare the losses with those in its capsule.

    python replay.py --capsule run/capsule.json [--train rows.jsonl] [--model FOLDER] [--steps 10]

Rows and base model are looked for where the run had them; they must be the same, byte by byte. On the same
machine with the same code and packages the losses must be equal to the last bit (on a GPU, whose sums have
no fixed order, nearly); otherwise what differs is named, and they must be equal but for rounding. Nothing
is kept. A run of several processes is replayed by one, unless torchrun starts as many. A report goes to
stdout as JSON. Exit codes: 0 the losses are the same, 1 they are not, 2 bad input, 130 and 143 stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    from tuning.startup import prepare_process

    prepare_process()

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from train import take_step
from tuning import distributed, outcome
from tuning.capsule import differences, hashes_of, read_capsule, surroundings
from tuning.config import Config, DistributedConfig, parse_config
from tuning.distributed import Processes
from tuning.errors import FailedError, InputError, StoppedError
from tuning.events import EventLog, say, write_json
from tuning.failures import explain
from tuning.methods import METHODS
from tuning.optimization import learning_rate, set_learning_rate
from tuning.run import Files, prepare
from tuning.stopping import StopRequest

# The largest relative difference of a loss that rounding explains, by the number format of the passes.
ROUNDING = {"fp32": 1e-3, "bf16": 3e-2}


def replay(capsule: Mapping[str, Any], files: Files, steps: int | None = None) -> dict[str, Any]:
    """Take the first `steps` steps again (default: all that the capsule has losses of); returns the report.

    `files.output` is an empty folder for what training writes on its way. Raises InputError for rows or a
    model that are not those of the run, FailedError where a step cannot be taken, and StoppedError. Call it
    from the main thread.
    """
    _require_same(capsule["hashes"], hashes_of(files))
    config = config_for(parse_config(capsule["config"]), int(os.environ.get("WORLD_SIZE") or 1))
    processes = distributed.join(config.distributed)
    if processes.is_first:
        write_json(files.output / outcome.CONFIG, outcome.describe(config, files.sources, capsule["chosen"]))
    processes.wait()
    then = capsule["first_losses"][:steps]
    now, parts = _first_losses(config, files, processes, len(then))
    changed = differences(capsule["surroundings"], surroundings(processes.device, processes.count, parts))
    is_exact = not changed and processes.device.type == "cpu"
    limit = 0.0 if is_exact else ROUNDING[capsule["chosen"]["precision"]]
    largest = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(then, now, strict=True))
    return {
        "same": largest <= limit,
        "losses_then": then,
        "losses_now": now,
        "largest_relative_difference": largest,
        "accepted": limit,
        "not_as_it_was": changed,
    }


def _require_same(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise InputError where the rows or the model are others: then no loss can be compared."""
    if changed := sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name)):
        raise InputError(
            f"{' and '.join(changed)}: not what the run had (the hashes differ); give the run's own by "
            f"{', '.join(map(_option, changed))}."
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def config_for(config: Config, processes: int) -> Config:
    """The config for so many processes: that of the run, or the same steps in one process."""
    count = config.distributed.processes
    if processes == count:
        return config
    if processes > 1 or config.method.dropout:
        why = " (dropout is drawn by each)" if config.method.dropout else ""
        raise InputError(
            f"The run had {count} processes{why}; start the replay by `python -m torch.distributed.run "
            f"--standalone --nproc-per-node {count} replay.py ...`."
        )
    accumulation = config.training.gradient_accumulation * count
    training = replace(config.training, gradient_accumulation=accumulation)
    return replace(config, training=training, distributed=DistributedConfig())


def _first_losses(config: Config, files: Files, processes: Processes, steps: int) -> tuple[list[float], int]:
    """(the losses of the first steps, into how many parts micro-batches are cut)."""
    losses = []
    with EventLog(files.output / "events.jsonl", enabled=False) as events, StopRequest() as stop:
        run = prepare(config, files, processes, stop, events)
        run.objective.get_ready(run)
        run.around_step = METHODS[config.method.name].around_step(run.model, run.optimizer)
        for step in range(steps):
            set_learning_rate(run.optimizer, learning_rate(step, run.plan.steps, config.training))
            loss, _, asked_to_stop = take_step(run, step)
            if asked_to_stop:
                raise StoppedError(asked_to_stop, step + 1)
            losses.append(loss)
    return losses, run.batches.parts


def tell(report: Mapping[str, Any]) -> None:
    """The report for people, on stderr."""
    for step, pair in enumerate(zip(report["losses_then"], report["losses_now"], strict=True), 1):
        say(f"step {step:3}  then {pair[0]:.9g}  now {pair[1]:.9g}  difference {pair[1] - pair[0]:.2g}")
    for sentence in report["not_as_it_was"]:
        say(f"not as it was: {sentence}")
    how = f"largest relative difference {report['largest_relative_difference']:.2g}"
    verdict = "The losses are the same" if report["same"] else "The losses are not the same"
    say(f"{verdict}: {how}, accepted {report['accepted']:.2g}.")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Take a run's first steps again.", allow_abbrev=False)
    parser.add_argument("--capsule", type=Path, required=True, help="capsule.json of the run")
    parser.add_argument("--train", type=Path, help="the rows (default: where the run had them)")
    parser.add_argument("--validation", type=Path, help="the held-out rows, likewise")
    parser.add_argument("--chat-template", type=Path, help="the run's own template, likewise")
    parser.add_argument("--model", help="the base model, likewise")
    parser.add_argument("--steps", type=int, help="so many steps (default: all with a loss in the capsule)")
    given = parser.parse_args(argv)
    if given.steps is not None and given.steps < 1:
        parser.error("--steps is 1 or more")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = parse_arguments(argv)
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        try:
            capsule = read_capsule(given.capsule)
            report = replay(capsule, _files(given, capsule["files"], Path(folder)), given.steps)
        except (InputError, FailedError, StoppedError) as error:
            say(f"error: {error}")
            return error.exit_code
        except (OSError, RuntimeError) as error:
            if (sentence := explain(error, Path(folder))) is None:
                raise
            say(f"error: {sentence}")
            return FailedError.exit_code
    if not int(os.environ.get("RANK") or 0):
        tell(report)
        print(json.dumps(report))
    return 0 if report["same"] else 1


def _files(given: argparse.Namespace, known: Mapping[str, str], output: Path) -> Files:
    """The files as given, else where the run had them. Raises InputError for one that is not there."""
    names = ("train", "validation", "chat_template")
    found = {name: Path(getattr(given, name) or known.get(name, "")) for name in names}
    for name, path in found.items():
        if path != Path() and not path.is_file():
            raise InputError(f"There is no file {path}; give {_option(name)}.")
    validation, template = (None if found[name] == Path() else found[name] for name in names[1:])
    return Files(found["train"], validation, given.model or known["model"], output, template)


if __name__ == "__main__":
    sys.exit(main())
