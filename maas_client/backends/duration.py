"""How long the steps of a run would take on GPUs of Azure, from least to most: arithmetic over speed.

Arithmetic: 2 operations a token and weight in the forward pass, as many for the gradients of inputs, as many
for those of weights where all are trained, once more where activations are recomputed, and attention. Speed:
a share of the GPU's peak. Tokens: from the bytes of the first rows.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from maas_client.bundled import tuning_module
from maas_client.catalog import Gpu, peak, price
from maas_client.data.tokens import estimated_bytes
from maas_client.estimate import Interval, Memory, Time
from maas_client.spec import JobSpec

SHARE_OF_PEAK = (0.20, 0.45)
"""Of a GPU's peak that training reaches, an assumption: NVIDIA's NeMo AutoModel reports 402 to 423 TFLOP/s of
an H100's 989 for LoRA of 7 and 8 B models; short rows, small models and slow links take it down.
"""
NARROW = 1024
"""Width between blocks below which products are too small for any share of the peak to be assumed."""
BYTES_A_TOKEN = (2.6, 4.5)
NOTATION_BYTES_A_TOKEN = (1.3, 1.6)
"""Measured with public vocabularies (maas_client/data/tokens.py)."""
ROWS_LOOKED_AT = 1000


def time_of(spec: JobSpec, shape: Any, memory: Memory, gpu: Gpu) -> Time | str:
    """The steps' time; a sentence where it is unknown. Evaluation, loading and waiting come on top."""
    known = peak(gpu.gpu_model)
    if known is None:
        return f"no source tells the peak of {gpu.gpu_model}"
    if shape.hidden < NARROW:
        return (
            f"a model of width {shape.hidden} leaves a GPU waiting, how much shows in the run's first steps"
        )
    tokens = tokens_of_steps(spec)
    if tokens is None:
        return "the rows cannot be read"
    tflops = known.fp32_tflops if memory.precision == "fp32" else (known.bf16_tflops or known.fp32_tflops)
    work = flops_a_token(spec, shape, recomputes=memory.recomputes)
    ranks = spec.distributed.processes * spec.compute.instances
    low, high = (share * tflops * 1e12 * ranks / work for share in SHARE_OF_PEAK)
    hours = (tokens[0] / high / 3600, tokens[1] / low / 3600)
    least, most = (100 * share for share in SHARE_OF_PEAK)
    basis = (
        f"{work / 1e9:.3g} GFLOP a token, {least:.0f} to {most:.0f} % (assumed) of {tflops:g} TFLOP/s a GPU"
    )
    return Time(tokens, (low, high), hours, basis, str(known.source), _dollars(spec, hours))


def flops_a_token(spec: JobSpec, shape: Any, *, recomputes: bool) -> float:
    """Operations for each token of training, rows as long as may be.

    Attention: a token looks at half of its row on average, with two products of the queries' width.
    """
    blocks = 2 * shape.linear + 2 * spec.training.max_length * shape.query * shape.blocks
    head = 2 * shape.vocabulary * shape.hidden
    passes = 3 if spec.method.name == "full" else 2
    return float(passes * (blocks + head) + (blocks if recomputes else 0))


def tokens_of_steps(spec: JobSpec) -> Interval | None:
    """Tokens that all steps take; None where the rows cannot be read."""
    size = _bytes_of_rows(spec)
    if size is None:
        return None
    training = spec.training
    held_out = 0.0 if spec.data.validation.file else spec.data.validation.split
    size *= (1 - held_out) * training.epochs * (2 if training.objective == "dpo" else 1)
    least, most = NOTATION_BYTES_A_TOKEN if spec.task == "music" else BYTES_A_TOKEN
    low, high = size / most, size / least
    if training.max_steps is not None:
        ranks = spec.distributed.processes * spec.compute.instances
        a_step = training.batch_size * training.gradient_accumulation * ranks * training.max_length
        low, high = min(low, training.max_steps * a_step), min(high, training.max_steps * a_step)
    return low, high


def _bytes_of_rows(spec: JobSpec) -> float | None:
    """Bytes of text in the training file, as far as the first rows tell."""
    file, size, line = spec.data.train, 0, 0
    rows = tuning_module("rows").read_rows(file, str(spec.task))
    try:
        for row in islice(rows, ROWS_LOOKED_AT):
            size, line = size + estimated_bytes(row.example), row.line
        if next(rows, None) is None:
            return float(size)
        with file.open("rb") as stream:
            looked_at = sum(map(len, islice(stream, line)))
    except (tuning_module("errors").InputError, ValueError, OSError):
        return None
    return size * file.stat().st_size / looked_at


def _dollars(spec: JobSpec, hours: Interval) -> Interval | None:
    """What the machines cost meanwhile; None where no source tells the price, or how much less it is."""
    found = price(spec.compute.size or "")
    if found is None or spec.compute.priority == "low":
        return None
    rate = found.usd_per_hour * spec.compute.instances
    return (hours[0] * rate, hours[1] * rate)
