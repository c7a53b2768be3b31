"""The memory model beside measured peaks: a grid of methods, batches, lengths, precisions and widths.

    python bench/memory_model.py            # the whole grid, about 15 minutes
    python bench/memory_model.py --quick    # three points, about a minute

Each point trains a Phi-3 with random weights for two steps, by the bundled script's own functions, in a
process of its own. Measured is the most memory that was resident (VmHWM), less what the process held before
the steps besides the model: the libraries. Beside it stands what jobs/tuning/footprint.py says without its
runtime. Exits 1 if one differs by more than 15 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "jobs"))

from tuning.allocator import give_back_freed_memory  # noqa: E402 - after sys.path
from tuning.startup import prepare_process  # noqa: E402

TOLERANCE = 0.15
STEPS = 2
MIDDLE = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
NARROW = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8}
WIDTHS = {
    "middle": {**MIDDLE, "num_key_value_heads": 8, "vocab_size": 2048},
    "narrow": {**NARROW, "num_key_value_heads": 2, "vocab_size": 8192},
}


@dataclass(frozen=True)
class Point:
    """One training: `batch` sequences of `length` tokens."""

    method: str
    batch: int
    length: int
    precision: str = "fp32"
    recomputes: bool = False
    widths: str = "middle"

    def __str__(self) -> str:
        how = "recomputed" if self.recomputes else "kept"
        return f"{self.widths} {self.method:8} {self.batch} x {self.length:4} {self.precision} {how:10}"


@dataclass(frozen=True)
class Outcome:
    """Bytes that were measured and those that were predicted, these also part by part."""

    measured: int
    predicted: int
    parts: dict[str, int]

    @property
    def ratio(self) -> float:
        """Predicted by measured."""
        return self.predicted / self.measured

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {size / 1e6:.0f}" for name, size in self.parts.items() if name != "runtime"
        )
        return f"{self.predicted / 1e6:5.0f} of {self.measured / 1e6:5.0f} MB  {self.ratio:.2f}  ({parts})"


QUICK = [Point("lora", 4, 512), Point("lora", 4, 512, recomputes=True), Point("full", 4, 256)]


def grid() -> Iterator[Point]:
    """Four methods in two batches, the others in one, recomputation, and another model."""
    precisions = ("fp32", "bf16")
    for method, precision in itertools.product(("lora", "full", "dora", "qlora"), precisions):
        yield from (Point(method, *batch, precision) for batch in ((4, 256), (2, 1024)))
    others = ("pissa", "adalora", "loha", "lokr", "oft", "vera", "ia3", "prefix", "prompt", "p-tuning")
    yield from (Point(*each) for each in itertools.product(others, (4,), (512,), precisions))
    yield from (Point(*each, True) for each in itertools.product(("lora", "full"), (8,), (512,), precisions))
    yield from (
        Point(*each, False, "narrow")
        for each in itertools.product(("lora", "full"), (4,), (512,), precisions)
    )


def measure(point: Point) -> Outcome:
    """Train one point in this process."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(point, Path(folder))
        libraries = resident("VmRSS") - held_bytes(run)
        forget_peak()
        import train

        for step in range(STEPS):
            train.take_step(run, step)
        return Outcome(resident("VmHWM") - libraries, *predict(run, point))


def make_run(point: Point, folder: Path) -> Any:
    """A run that is ready for its first step."""
    from tuning.config import parse_config
    from tuning.distributed import join
    from tuning.events import EventLog
    from tuning.methods import METHODS
    from tuning.run import Files, prepare
    from tuning.stopping import StopRequest

    make_model(folder / "model", WIDTHS[point.widths])
    write_rows(folder / "rows.jsonl", point.length)
    training = {
        "batch_size": point.batch, "max_length": point.length, "max_steps": STEPS, "epochs": 100,
        "precision": point.precision, "gradient_checkpointing": point.recomputes,
    }  # fmt: skip
    config = parse_config({"task": "text-generation", "method": {"name": point.method}, "training": training})
    files = Files(folder / "rows.jsonl", None, str(folder / "model"), folder)
    run = prepare(config, files, join(config.distributed), StopRequest(), EventLog(folder / "events.jsonl"))
    run.objective.get_ready(run)
    run.around_step = METHODS[point.method].around_step(run.model, run.optimizer)
    return run


def predict(run: Any, point: Point) -> tuple[int, dict[str, int]]:
    """What the model says of the largest micro-batch, without the runtime, and its parts."""
    from tuning.footprint import Load, Shape, footprint
    from tuning.lean import SHORT_LINE
    from tuning.methods import METHODS, quantization_of
    from tuning.virtualtokens import count_virtual_tokens

    batches = [batch for step in range(STEPS) for batch in run.batches.of_step(step)]
    largest = max(batches, key=lambda batch: batch.input_ids.numel())
    method, virtual, width = (
        METHODS[point.method],
        count_virtual_tokens(run.model),
        largest.input_ids.shape[1],
    )
    shape = Shape.of(run.model.config.get_text_config().to_dict())
    assert shape is not None
    load = Load(
        method=point.method,
        trained=run.sizes[1],
        tokens=largest.input_ids.numel(),
        targets=len(largest.targets),
        rows=len(largest.ends) - 1,
        virtual_tokens=virtual,
        masked=width + virtual if virtual or width <= SHORT_LINE else 0,
        rank=run.config.method.rank,
        quantization=quantization_of(run.config.method),
        precision=point.precision,
        fp32_base=method.fp32_base,
        moments=method.moments,
        recomputes=point.recomputes,
    )
    said = footprint(shape, load)
    return said.peak - said.runtime, said.parts()


def held_bytes(run: Any) -> int:
    """Bytes of the model's tensors; the optimizer has none before its first step."""
    tensors = itertools.chain(run.model.parameters(), run.model.buffers())
    return sum(int(tensor.untyped_storage().nbytes()) for tensor in tensors)


def resident(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def forget_peak() -> None:
    """Let VmHWM begin again from here: loading the model is not the question."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def make_model(folder: Path, widths: dict[str, int]) -> None:
    """A Phi-3 with random weights and tiny-phi3's tokenizer."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(7)
    config = Phi3Config(
        **widths, max_position_embeddings=2048, pad_token_id=0, eos_token_id=0, bos_token_id=0
    )
    Phi3ForCausalLM(config).save_pretrained(folder)
    for file in (ROOT / "models" / "tiny-phi3").glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())


def write_rows(path: Path, length: int) -> None:
    """Texts of a few tokens less than `length`."""
    from tuning.models import load_tokenizer

    tokenizer = load_tokenizer(str(ROOT / "models" / "tiny-phi3"))
    with path.open("w", encoding="utf-8") as file:
        for place in range(40):
            text = " ".join(str(place * 7919 + number) for number in range(length))
            ids = tokenizer(text, add_special_tokens=False)["input_ids"][: length - 8]
            file.write(json.dumps({"text": tokenizer.decode(ids)}) + "\n")


def outcomes(points: list[Point]) -> Iterator[tuple[Point, Outcome]]:
    """Measure point after point, each in a process that has the libraries and nothing else."""
    import bitsandbytes  # noqa: F401 - what is imported here costs no point time
    import peft  # noqa: F401
    from transformers import Phi3ForCausalLM  # noqa: F401

    import train  # noqa: F401

    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        yield from zip(points, pool.imap(measure, points, chunksize=1), strict=True)


def main() -> int:
    """Measure the grid and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few points")
    parser.add_argument("--only", default="", help="only points whose line has this text")
    given = parser.parse_args()
    prepare_process()
    give_back_freed_memory()  # as a run does where memory is tight
    points = [point for point in (QUICK if given.quick else grid()) if given.only in str(point)]
    ratios = []
    for point, outcome in outcomes(points):
        ratios.append(outcome.ratio)
        print(f"{point}  {outcome}", flush=True)
    off = sum(abs(ratio - 1) > TOLERANCE for ratio in ratios)
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    print(f"predicted / measured: median {middle:.2f}, {least:.2f} to {most:.2f}")
    print(f"{off} of {len(ratios)} points off by more than {TOLERANCE:.0%}")
    return int(off > 0)


if __name__ == "__main__":
    sys.exit(main())
