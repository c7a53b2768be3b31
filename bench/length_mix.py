"""Rows of very different lengths: packed side by side, as the script does, beside padded to the longest.

    python bench/length_mix.py [--quick]

Rows of log-normal length (mean 180 tokens, at most 1,024; the logarithm's deviation is 0.9), tiny-phi3, LoRA.
Both sides take the same rows in the same steps with the same code, and differ in the layout alone: the packed
one lays the rows of a step into lines of 1,024 tokens, the padded one takes 16 rows at a time and pads them
to the longest of the sixteen. Steps are taken in turns; the figure is the median over steps of the ratio of
the seconds; beside it stands that of processor time, which other programs disturb less. Losses must be equal,
since a row learns the same in both. Exits 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "jobs"))

from tuning.startup import prepare_process  # noqa: E402 - its path was unknown

prepare_process()

import torch  # noqa: E402 - only now may it be imported
from torch.nn import functional  # noqa: E402

import train  # noqa: E402
from tuning.accumulation import MicroBatches  # noqa: E402
from tuning.batches import Batch, TokenRow, lay_out  # noqa: E402
from tuning.config import parse_config  # noqa: E402
from tuning.distributed import join  # noqa: E402
from tuning.events import EventLog  # noqa: E402
from tuning.models import load_tokenizer  # noqa: E402
from tuning.run import Files, Run, prepare  # noqa: E402
from tuning.stopping import StopRequest  # noqa: E402

MODEL = ROOT / "models" / "tiny-phi3"
MEAN, DEVIATION, LONGEST = 180, 0.9, 1024
AT_A_TIME = 16
SPEED_BOUND, LOSS_BOUND = 2.0, 1e-4


class Padded(MicroBatches):
    """Batches of sixteen rows, in the order in which they come."""

    def _portions(self, step: int, _parts: int) -> Iterator[list[int]]:
        for share in self.plan.shares_of_step(step, self.processes.rank):
            for place in range(0, len(share), AT_A_TIME):
                yield share[place : place + AT_A_TIME]


def pad(rows: Sequence[TokenRow], pad_id: int) -> Batch:
    """A line for each row, as long as the longest; what is behind a row is nothing that it sees."""
    lines = [lay_out([row], pad_id) for row in rows]
    width = max(line.input_ids.shape[1] for line in lines)

    def widened(name: str, value: int) -> torch.Tensor:
        parts = [getattr(line, name) for line in lines]
        return torch.cat([functional.pad(one, (0, width - one.shape[1]), value=value) for one in parts])

    positions = torch.arange(width).repeat(len(rows), 1)
    ends = [0]
    for number, row in enumerate(rows):
        positions[number, row.length :] = torch.arange(width - row.length)
        ends += [number * width + end for end in sorted({row.length, width})]
    longest = max(max(row.length, width - row.length) for row in rows)
    return Batch(
        widened("input_ids", pad_id), positions, widened("predicts", 0).bool(),
        torch.cat([line.targets for line in lines]), torch.tensor(ends, dtype=torch.int32), longest,
    )  # fmt: skip


def write_rows(path: Path, number: int) -> None:
    """Texts whose tokens are as many as they should be."""
    tokenizer, chosen, texts = load_tokenizer(str(MODEL)), random.Random(path.name), []
    words = " ".join(f"word{chosen.randrange(500)}" for _ in range(400))
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    location = torch.log(torch.tensor(float(MEAN))).item() - DEVIATION**2 / 2
    for _ in range(number):
        length = min(LONGEST - 2, max(2, round(chosen.lognormvariate(location, DEVIATION))))
        start = chosen.randrange(len(ids) - length)
        texts.append(tokenizer.decode(ids[start : start + length]))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def prepared(folder: Path, name: str, steps: int) -> Run:
    """A run, ready to take steps."""
    training: dict[str, Any] = {"max_length": LONGEST, "batch_size": 4, "max_steps": steps, "epochs": 100}
    training |= {"schedule": "constant", "warmup_ratio": 0.0}
    config = parse_config({"task": "text-generation", "training": training})
    output = folder / name
    output.mkdir()
    files = Files(folder / "rows.jsonl", folder / "test.jsonl", str(MODEL), output)
    log = EventLog(output / "events.jsonl")
    return prepare(config, files, join(config.distributed), StopRequest(), log)


def main() -> int:
    """Measure, print, and say whether every bound holds."""
    parser = argparse.ArgumentParser(description="Packed rows beside padded ones.")
    parser.add_argument("--quick", action="store_true", help="4 steps instead of 20")
    steps = 4 if parser.parse_args().quick else 20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", 400)
        write_rows(folder / "test.jsonl", 4)
        packed, padded = (prepared(folder, which, steps + 1) for which in ("packed", "padded"))
        rows, pad_id = padded.data.train, padded.tokenizer.pad_token_id

        def make(numbers: Sequence[int]) -> Batch:
            return pad([rows[number] for number in numbers], pad_id)

        padded.batches = Padded(padded.plan, padded.processes, make, ahead=False)
        ratios, costs, apart = [], [], 0.0
        for step in range(steps + 1):
            order = [packed, padded] if step % 2 else [padded, packed]
            taken = {id(run): timed_step(run, step) for run in order}
            mine, theirs = taken[id(packed)], taken[id(padded)]
            apart = max(apart, abs(mine[2] / theirs[2] - 1))
            ratios.append(theirs[0] / mine[0])
            costs.append(theirs[1] / mine[1])
    return judge(packed, padded, (ratios[1:], costs[1:]), apart)  # the first step warms up


def timed_step(run: Run, step: int) -> tuple[float, float, float]:
    """(seconds, processor seconds, loss) of a step."""
    start, computed = time.perf_counter(), time.process_time()
    loss, _, _ = train.take_step(run, step)
    return time.perf_counter() - start, time.process_time() - computed, loss


def judge(packed: Run, padded: Run, measured: tuple[list[float], list[float]], apart: float) -> int:
    """Print what came out of the ratios of seconds and processor seconds; the exit code."""
    ratios, costs = measured
    lengths = packed.plan.lengths
    shares = [share_of_padding(run, len(ratios)) for run in (packed, padded)]
    print(f"{len(lengths)} rows, mean {statistics.mean(lengths):.0f} tokens, longest {max(lengths)}")
    print(f"tokens that are padding: packed {shares[0]:.0%}, padded {shares[1]:.0%}")
    speed = statistics.median(ratios)
    print(
        f"useful tokens/s, packed / padded: median {speed:.2f} of {min(ratios):.2f} to {max(ratios):.2f} "
        f"(bound {SPEED_BOUND:.2f}), by processor time {statistics.median(costs):.2f}; "
        f"losses apart by at most {apart:.1e} (bound {LOSS_BOUND:.0e})"
    )
    return int(speed < SPEED_BOUND or apart > LOSS_BOUND)


def share_of_padding(run: Run, steps: int) -> float:
    """Of all tokens that the model reads, those that are in no row."""
    read = sum(batch.input_ids.numel() for step in range(steps) for batch in run.batches.of_step(step))
    return 1 - sum(run.plan.tokens_of_step(step) for step in range(steps)) / read


if __name__ == "__main__":
    sys.exit(main())
