"""Training throughput beside TRL's SFTTrainer: the same model, rows, order, batches and steps, in turns.

    python bench/training_throughput.py            # tiny and medium
    python bench/training_throughput.py --size tiny
    python bench/training_throughput.py --quick    # a few steps of each

Two sizes: tiny-phi3 with the rows of jobs/examples/card-support and the loss on the answer alone, and a
Phi-3 of hidden size 1024 with 8 layers and random weights on rows of 512 tokens, which all carry loss. Two
pairs of each. Both at their defaults: `ours-defaults` packs rows into 8 sequences of max_length tokens,
`trl-defaults` pads 8 rows, in bf16 with gradient checkpointing. And both tuned for a CPU on exactly the same
batches: `ours`, and `trl-tuned` in fp32 without checkpointing and with fused AdamW. All train LoRA r 16 on
every linear layer.

The two of a pair are processes of their own (bench/training_contenders.py) that take their steps in turns,
the one that begins changing each time: what else the machine does hits both. The bounded figure is the
median, over the steps after the first, of the ratio of tokens/s of two steps that were taken one after the
other. Beside it stands the ratio of tokens by processor time, which other programs disturb less. Memory is
the peak of each process. The loss compared is that of the trained weights of the tuned pair
on the same held-out rows, by the same code. Beside each stands the share of this CPU's limit: a step's
arithmetic (4 floating-point operations a weight of linear layers and token, of the output head where a token
carries loss, and attention's) by its seconds, against a large product of matrices measured right after it.
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
from dataclasses import dataclass, field
from pathlib import Path

from bench.training_contenders import ROOT, make_medium

LOSS_TOLERANCE = 0.02
QUICK_STEPS = 4


@dataclass(frozen=True)
class Pair:
    """Who is compared with whom, at which size, in how many steps, and by how much the first must win.

    `memory` bounds the ratio of peaks; where TRL recomputes activations that fit into memory, nothing does.
    """

    size: str
    mine: str
    theirs: str
    bound: float
    steps: int
    memory: float | None = 1.0

    def __str__(self) -> str:
        return f"{self.size} {self.mine} / {self.theirs}"


PAIRS = (
    Pair("tiny", "ours-defaults", "trl-defaults", 3.0, 60),
    Pair("tiny", "ours", "trl-tuned", 1.5, 60),
    Pair("medium", "ours-defaults", "trl-defaults", 1.1, 5, None),
    Pair("medium", "ours", "trl-tuned", 1.05, 16),
)


@dataclass
class Contender:
    """A process that takes steps when it is asked to; what it told of each, and at the end."""

    process: subprocess.Popen[str]
    steps: list[dict[str, float]] = field(default_factory=list)
    result: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, pair: Pair, folder: Path, steps: int) -> Contender:
        """Start one; it is ready when it answers the first request."""
        sys.path.insert(0, str(ROOT / "jobs"))
        from tuning.startup import BRIEF_SPIN, ENVIRONMENT

        own = ENVIRONMENT if name.startswith("ours") else {}  # what the script sets when it is started
        environment = {**os.environ, "GOMP_SPINCOUNT": BRIEF_SPIN, "HF_HUB_OFFLINE": "1", **own}
        script = str(Path(__file__).with_name("training_contenders.py"))
        words = [sys.executable, script, name, pair.size, str(folder), str(steps)]
        with (folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        return cls(process)

    def take_step(self) -> None:
        """Let it take a step, and wait for the end of it."""
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.steps.append(self._hear())

    def finish(self) -> None:
        """Hear its result, and let it end."""
        self.result = self._hear()
        self.process.wait(timeout=60)

    def _hear(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"contender ended with {self.process.wait(timeout=60)}")
        facts: dict[str, float] = json.loads(line)
        return facts

    def rate(self, step: int) -> float:
        """Tokens/s of a step."""
        return self.steps[step]["tokens"] / self.steps[step]["seconds"]

    def cost(self, step: int) -> float:
        """Processor seconds a token of a step."""
        return self.steps[step]["computed"] / self.steps[step]["tokens"]

    def share(self) -> float:
        """The median share of the limit of this CPU that its steps reached."""
        return statistics.median(one["flops"] / one["seconds"] / one["gemm"] for one in self.steps[1:])


def compare(pair: Pair, folder: Path, steps: int) -> tuple[Contender, Contender]:
    """Let two train in turns."""
    names = (pair.mine, pair.theirs)
    both = [Contender.start(name, pair, folder, steps) for name in names]
    try:
        for step in range(steps):
            for one in both if step % 2 == 0 else reversed(both):
                one.take_step()
        for one in both:
            one.finish()
    except EOFError as error:
        logs = [(folder / f"{name}.log").read_text()[-1500:] for name in names]
        raise SystemExit(f"{pair}: {error}\n" + "\n".join(logs)) from error
    finally:
        for one in both:
            one.process.kill()
    return both[0], both[1]


def judge(pair: Pair, mine: Contender, theirs: Contender) -> bool:
    """Print what came out; whether the bounds hold."""
    ratios = [mine.rate(step) / theirs.rate(step) for step in range(1, len(mine.steps))]
    speed, memory = statistics.median(ratios), mine.result["peak_mb"] / theirs.result["peak_mb"]
    quarter = max(1, len(ratios) // 4)
    low, high = sorted(ratios)[quarter - 1], sorted(ratios)[-quarter]
    rates = [statistics.median(one.rate(step) for step in range(1, len(one.steps))) for one in (mine, theirs)]
    shares = [one.share() for one in (mine, theirs)]
    costs = [theirs.cost(step) / mine.cost(step) for step in range(1, len(mine.steps))]
    print(
        f"{pair}: tokens/s {speed:.2f} (half of {len(ratios)} steps within {low:.2f} to {high:.2f}; "
        f"{rates[0]:.0f} against {rates[1]:.0f}; bound {pair.bound}); "
        f"peak memory {memory:.2f} (bound {pair.memory or 'none'}); "
        f"tokens by processor time {statistics.median(costs):.2f}; "
        f"share of the GEMM limit {shares[0]:.2f} against {shares[1]:.2f}",
        flush=True,
    )
    good = speed >= pair.bound and (pair.memory is None or memory <= pair.memory)
    if pair.mine == "ours":
        apart = abs(mine.result["loss"] / theirs.result["loss"] - 1)
        print(f"{pair}: held-out loss apart by {apart:.2%} (bound {LOSS_TOLERANCE:.0%})", flush=True)
        good = good and apart <= LOSS_TOLERANCE
    return good


def main() -> int:
    """Compare all pairs, or those of one size."""
    parser = argparse.ArgumentParser(description="Training throughput beside TRL.")
    parser.add_argument("--quick", action="store_true", help="a few steps of each")
    parser.add_argument("--size", choices=("tiny", "medium"), help="only this one")
    given = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = [pair for pair in PAIRS if given.size in (None, pair.size)]
        if any(pair.size == "medium" for pair in pairs):
            make_medium(folder)
        for pair in pairs:
            mine, theirs = compare(pair, folder, QUICK_STEPS if given.quick else pair.steps)
            good = judge(pair, mine, theirs) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
