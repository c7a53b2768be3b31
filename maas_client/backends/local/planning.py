"""What a run on this machine would do, and what must be so before it can start; nothing heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from maas_client.backends.basemodels import weights_of
from maas_client.backends.datafiles import check_data_files
from maas_client.backends.local.preparation import cores
from maas_client.backends.modelfiles import check_model
from maas_client.backends.sizing import memory_warnings, size_up_here
from maas_client.backends.trainables import Trainables, check_method
from maas_client.cloudpath import CloudPath
from maas_client.command import CommandJob, JsonFile, training_command
from maas_client.errors import PlanError
from maas_client.estimate import Estimate, size
from maas_client.plan import Plan, PlanStep, job_hashes
from maas_client.spec import JobSpec

TARGET = "this machine"
COST = "free: runs on this machine"
_MODULES = {
    "local": ("torch", "transformers", "safetensors", "tokenizers", "peft"),
    "quantized": ("bitsandbytes",),
    "deepspeed": ("deepspeed",),
}
"""What a run imports, by the extra of this package that brings it."""
_FP32_BYTES = 4
_ADAM_COPIES = 3
"""Weights and two moments of AdamW."""


def plan_run(spec: JobSpec, home: Path, job: CommandJob | None = None) -> Plan:
    """The plan for one spec. Raises PlanError, and DataError for a data file that cannot be used."""
    _require_modules("local", *_extras(spec))
    check_data_files(spec, trains=job is None)
    trains = job is None
    job = _with_weights(job or training_command(spec))
    _require_here(job)
    model = job.inputs.get("base", job.inputs["model"])
    weights = check_model(model) if isinstance(model, Path) else None
    trained = check_method(spec, weights) if trains else None
    estimate = size_up_here(spec, weights, trained, _memory().total) if trains else None
    return Plan(
        spec=spec,
        backend="local",
        target=TARGET,
        job=job,
        steps=_steps(job, spec, trained),
        cost=COST,
        is_free=True,
        hashes=job_hashes(job),
        warnings=tuple(_warnings(spec, job, trained, estimate, home)),
        estimate=estimate,
    )


def _require_modules(*extras: str) -> None:
    for extra in extras:
        missing = [name for name in _MODULES[extra] if importlib.util.find_spec(name) is None]
        if missing:
            hint = f'Install it: pip install "maas-client[{extra}]"'
            raise PlanError(f"Training on this machine needs {', '.join(missing)}.", hint=hint)


def _extras(spec: JobSpec) -> Iterator[str]:
    """The parts of the installation that only some jobs need."""
    if spec.method.name == "qlora" or spec.method.quantization != "none":
        yield "quantized"
    if spec.distributed.strategy.startswith("zero"):
        yield "deepspeed"


def _require_here(job: CommandJob) -> None:
    for name, source in job.inputs.items():
        if isinstance(source, CloudPath):
            hint = "Download the run, and name its model folder."
            raise PlanError(f"{name} lies in the cloud: {source}.", hint=hint)


def _with_weights(job: CommandJob) -> CommandJob:
    """The base model by the id under which Hugging Face has it, where it is no folder. Raises PlanError."""
    name = "base" if "base" in job.inputs else "model"
    base = job.inputs[name]
    if not isinstance(base, str):
        return job
    return replace(job, inputs={**job.inputs, name: weights_of(base)})


def _steps(job: CommandJob, spec: JobSpec, trained: Trainables | None) -> tuple[PlanStep, ...]:
    steps = [PlanStep("copy", str(job.code), "code of the run")]
    for name, source in job.inputs.items():
        if isinstance(source, JsonFile):
            steps.append(PlanStep("write", f"{name}.json", "what the job file says"))
        elif not isinstance(source, Path):
            steps.append(PlanStep("download", str(source), "from Hugging Face, unless it is in its cache"))
        elif source.is_dir():
            steps.append(PlanStep("use", str(source), f"{name}, in place"))
        else:
            steps.append(PlanStep("copy", str(source), f"{name}, {source.stat().st_size:,} bytes"))
    if trained is not None:
        steps.append(trained.step())
    processes = spec.distributed.processes
    how = f"{processes} processes" if processes > 1 else "one process"
    return (*steps, PlanStep("start", job.command, f"{how}, going on when the terminal closes"))


def _warnings(
    spec: JobSpec, job: CommandJob, trained: Trainables | None, estimate: Estimate | None, home: Path
) -> Iterator[str]:
    """What may go wrong, a sentence each. Raises PlanError where the disk cannot hold the run."""
    if spec.distributed.processes > cores():
        yield f"{spec.distributed.processes} processes share {cores()} cores; fewer would be faster."
    model = job.inputs["model"]
    if isinstance(model, str) and not _in_hub_cache(model):
        yield f"{model} is not in the Hugging Face cache; it will be downloaded first."
    numbers = trained.trained if trained else 0
    yield from _disk_warnings(spec, numbers, home)
    if estimate is not None:
        free = _memory().available // spec.distributed.processes
        yield from memory_warnings(estimate, free, f"{size(free)} are free for it")


def _memory() -> Any:
    import psutil

    return psutil.virtual_memory()


def _in_hub_cache(model: str) -> bool:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (hub / f"models--{model.replace('/', '--')}" / "snapshots").is_dir()


def _disk_warnings(spec: JobSpec, trained: int, home: Path) -> Iterator[str]:
    data = sum(file.stat().st_size for file in (spec.data.train, spec.data.validation.file) if file)
    checkpoints = (spec.training.keep_checkpoints + 1) * _ADAM_COPIES
    need = data + trained * _FP32_BYTES * (checkpoints + 1) + (16 << 20)
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < need:
        hint = "Make room, or lower training.keep_checkpoints."
        raise PlanError(
            f"The run needs about {size(need)} at {place}, where {size(free)} are free.", hint=hint
        )
    if free < 2 * need:
        yield f"The run needs about {size(need)} of the {size(free)} that are free at {place}."
