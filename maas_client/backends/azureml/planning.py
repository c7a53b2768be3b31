"""What a run in an Azure ML workspace would do and cost; nothing is asked or sent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from maas_client.backends.azureml.environment import BundledEnvironment, bundled_environment
from maas_client.backends.azureml.serving import Wanted
from maas_client.backends.azureml.sight import cost_of_wanted
from maas_client.backends.azureml.wire import job_body, shape_of
from maas_client.backends.basemodels import weights_of
from maas_client.backends.datafiles import check_data_files
from maas_client.backends.modelfiles import Weights, check_model
from maas_client.backends.offers import require_offer
from maas_client.backends.sizing import USABLE, memory_warnings, size_up_gpus
from maas_client.backends.trainables import Trainables, check_method
from maas_client.catalog import Gpu, gpus, price
from maas_client.cloudpath import CloudPath
from maas_client.command import CommandJob, Input, JsonFile, training_command
from maas_client.errors import PlanError
from maas_client.estimate import Estimate, Time, dollars_between, size
from maas_client.model import Lineage, ModelRef, RegisteredModel
from maas_client.plan import NOT_CODE, Plan, PlanStep, job_hashes
from maas_client.spec import ComputeSpec, DeploySpec, JobSpec
from maas_client.transport.workspace import Target

IDLE_S = 120
"""Seconds after which a machine of a cluster that has nothing to do is given back."""
_ENVIRONMENT = re.compile(
    r"azureml:[A-Za-z0-9][\w.-]*(:|@)[\w.-]+"
    r"|azureml://registries/[^/]+/environments/[^/]+/(versions|labels)/[^/]+"
    r"|/subscriptions/.+/environments/[^/]+/versions/[^/]+"
)
_COMPUTE_KEYS = {"name", "size", "instances", "priority", "shared_memory", "timeout", "identity"}


def plan_run(spec: JobSpec, target: Target, job: CommandJob | None = None, *, on: date) -> Plan:
    """The plan for one spec. Raises PlanError, and DataError for a data file that cannot be used.

    `job` is run instead of the spec's training. `on` is the day for which the catalog is asked.
    """
    check_data_files(spec, trains=job is None)
    _, cautions = require_offer(spec.model, "azureml", on=on)
    trains = job is None
    job, weights = _with_weights(spec, job or training_command(spec))
    trained = check_method(spec, weights) if trains else None
    gpu = _check_machines(spec)
    estimate = size_up_gpus(spec, weights, trained, gpu) if trains else None
    _check_environment(spec.compute.environment)
    serving = _serving_cost(spec, spec.deploy) if spec.deploy is not None else ""
    environment = spec.compute.environment or bundled_environment("training")
    draft = Plan(
        spec=spec,
        backend="azureml",
        target=str(target),
        job=job,
        steps=(),
        cost=cost_of(spec.compute, estimate) + serving,
        is_free=False,
        hashes={**job_hashes(job), **_place_hashes(spec, environment)},
        estimate=estimate,
    )
    steps = tuple(_steps(draft, target, environment, trained))
    return replace(draft, steps=steps, warnings=(*cautions, *_warnings(draft, gpu)))


def _with_weights(spec: JobSpec, job: CommandJob) -> tuple[CommandJob, Weights | None]:
    """The job with its base model as something that a machine in Azure can get at, and what is in a folder.

    Raises PlanError.
    """
    key = "base" if "base" in job.inputs else "model"
    if key not in job.inputs or isinstance(job.inputs[key], CloudPath):
        return job, None
    source = weights_of(spec.model)
    weights = check_model(source) if isinstance(source, Path) else None
    return replace(job, inputs={**job.inputs, key: source}), weights


def _check_machines(spec: JobSpec) -> Gpu | None:
    """The size of the machines as the catalog knows it. Raises PlanError where the job cannot run on them."""
    compute, processes = spec.compute, spec.distributed.processes
    if not (compute.name or compute.size):
        hint = "Name a size (maas models gpus lists them): compute: {size: Standard_NC24ads_A100_v4}"
        raise PlanError("The job file names neither a cluster nor a size of machines.", hint=hint)
    if compute.instances > 1 and spec.distributed.strategy == "none":
        hint = "Write distributed: {strategy: ddp}, or compute.instances: 1."
        raise PlanError(f"{compute.instances} machines cannot train with strategy none.", hint=hint)
    gpu = known_size(compute.size)
    if gpu is not None and processes > gpu.gpus:
        hint = f"Set distributed.processes to {gpu.gpus}, or take a size with more GPUs: maas models gpus"
        raise PlanError(
            f"{gpu.name} has {_count(gpu.gpus, 'GPU')}, but {processes} processes need one each.", hint=hint
        )
    return gpu


def _check_environment(name: str | None) -> None:
    """Raises PlanError for a name that is no environment's."""
    if name is None or _ENVIRONMENT.fullmatch(name):
        return
    hint = "Write azureml:NAME:VERSION, azureml:NAME@latest or azureml://registries/REGISTRY/environments/..."
    raise PlanError(f"compute.environment {name!r} names no environment.", hint=hint)


def _serving_cost(spec: JobSpec, deploy: DeploySpec) -> str:
    """What the endpoint adds to the cost of the run.

    Raises PlanError for one that Azure would refuse when the training is done and paid for.
    """
    lineage = Lineage("", spec.model, spec.task, spec.method.name)
    made = RegisteredModel(
        ref=ModelRef(spec.register_as.name if spec.register_as else spec.name, 1),
        place=CloudPath(""),
        created_at=0.0,
        lineage=lineage,
        metrics={},
        adapter=spec.method.name != "full",
        size_bytes=0,
    )
    return f". Then endpoint {deploy.name}: {cost_of_wanted(Wanted(made, deploy, 0.0))}"


def known_size(size: str | None) -> Gpu | None:
    """A size in the catalog, None for one that it does not know."""
    wanted = (size or "").lower()
    return next((gpu for gpu in gpus() if gpu.name.lower() == wanted), None)


def _place_hashes(spec: JobSpec, environment: BundledEnvironment | str) -> dict[str, str]:
    """`sha256:<hex>` of what decides where and in what the job runs: other machines are another run."""
    machines = spec.compute.model_dump(mode="json", include=_COMPUTE_KEYS)
    words = {"environment": str(environment), "compute": json.dumps(machines, sort_keys=True)}
    return {name: f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" for name, text in words.items()}


def cost_of(compute: ComputeSpec, estimate: Estimate | None = None) -> str:
    """What the machines cost, in one sentence; what no source tells is said to be unknown."""
    idle = f", and up to {IDLE_S // 60} minutes after it" if compute.name else ""
    if compute.size is None:
        return f"unknown: the machines of cluster {compute.name} bill while the job runs{idle}"
    machines = f"{compute.instances} x {compute.size}"
    found = price(compute.size)
    if found is None:
        return f"unknown: no source tells the price of {machines}; they bill while the job runs{idle}"
    hourly = f"${found.usd_per_hour * compute.instances:,.2f} an hour for {machines} ({found.source})"
    if compute.priority == "low":
        dedicated = f"dedicated ones are {hourly}, low priority is less"
        return f"unknown: {dedicated}, but no source says how much; billed while the job runs{idle}"
    time = estimate.time if estimate else None
    if isinstance(time, Time) and time.dollars:
        return (
            f"{hourly} while the job runs{idle}; {dollars_between(time.dollars)} for the steps, as estimated"
        )
    return f"{hourly} while the job runs{idle}; how many hours is unknown"


def _steps(
    plan: Plan, target: Target, environment: BundledEnvironment | str, trained: Trainables | None
) -> Iterator[PlanStep]:
    for name, source in plan.job.inputs.items():
        yield _input_step(name, source)
    yield PlanStep(
        "upload", str(plan.job.code), f"code, {_size_of(plan.job.code)}; not sent again while unchanged"
    )
    if isinstance(environment, BundledEnvironment):
        yield PlanStep("make", f"environment {environment}", f"from {environment.image}, unless it is there")
    else:
        yield PlanStep("use", f"environment {environment}", "as the job file says")
    yield _machines_step(plan.spec.compute)
    if trained is not None:
        yield trained.step()
    environment_id = _environment_id(environment, target)
    body = job_body(plan, environment_id=environment_id, workspace_path=target.path)
    yield PlanStep("start", f"job {plan.run_id}", json.dumps(body))


def _environment_id(environment: BundledEnvironment | str, target: Target) -> str:
    if isinstance(environment, BundledEnvironment):
        return f"{target.path}/environments/{environment.name}/versions/{environment.version}"
    return environment


def _input_step(name: str, source: Input) -> PlanStep:
    if isinstance(source, JsonFile):
        return PlanStep("upload", f"{name}.json", "what the job file says")
    if isinstance(source, Path):
        return PlanStep("upload", str(source), f"{name}, {_size_of(source)}, unless it is there")
    if isinstance(source, str):
        return PlanStep("download", source, f"{name}, by the job's machines from Hugging Face")
    return PlanStep("use", str(source), f"{name}, in place")


def _machines_step(compute: ComputeSpec) -> PlanStep:
    machines = f"{compute.instances} x {compute.size}, {_PRIORITY[compute.priority]}"
    if compute.name is None:
        return PlanStep("use", "serverless compute", machines)
    if compute.size is None:
        return PlanStep("use", f"cluster {compute.name}", _count(compute.instances, "machine"))
    return PlanStep(
        "make", f"cluster {compute.name}", f"up to {machines}, unless it is there; bills only for jobs"
    )


_PRIORITY: Mapping[str, str] = {"dedicated": "dedicated", "low": "low priority"}


def _warnings(plan: Plan, gpu: Gpu | None) -> Iterator[str]:
    """What may go wrong, a sentence each."""
    compute = plan.spec.compute
    processes, instances = shape_of(plan)
    if compute.size and gpu is None:
        yield f"The catalog does not know {compute.size}: whether it has GPUs, and enough memory, is unknown."
    if gpu is not None and "train" in plan.job.inputs and processes < gpu.gpus:
        unused = "distributed.processes says how many are used"
        yield f"{gpu.name} has {gpu.gpus} GPUs, of which {processes} would work: {unused}."
    loses = compute.priority == "low" and plan.spec.training.checkpoint_every_steps is None
    if loses and "train" in plan.job.inputs:
        lost = "training.checkpoint_every_steps says how much is lost"
        yield f"Low-priority machines may be taken away; {lost} then (without it, up to an epoch)."
    if plan.estimate is not None and gpu is not None:
        has = f"a GPU of {gpu.name} has {size(gpu.bytes_each)}"
        yield from memory_warnings(plan.estimate, USABLE * gpu.bytes_each, has)
    if instances < compute.instances:
        yield f"Scoring uses one machine, not {compute.instances}."


def _size_of(source: Path) -> str:
    """`3 files, 1,234 bytes` of a folder, without what is not sent; `1,234 bytes` of a file."""
    if source.is_file():
        return f"{source.stat().st_size:,} bytes"
    files = [
        path
        for path in source.rglob("*")
        if path.is_file() and not set(NOT_CODE).intersection(path.relative_to(source).parts)
    ]
    return f"{_count(len(files), 'file')}, {sum(path.stat().st_size for path in files):,} bytes"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
