"""What a FineTuning job of the classic route would be: every request decided, without a word to Azure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from maas_client.backends.datafiles import check_data_files
from maas_client.backends.foundry.classic.costs import cost
from maas_client.backends.foundry.classic.machines import is_managed, machines
from maas_client.backends.foundry.classic.marketplace import needs_subscription
from maas_client.backends.foundry.classic.report import left_out
from maas_client.backends.foundry.classic.wire import (
    FILE_LIMIT_BYTES,
    OUTPUT,
    TAG_FINGERPRINT,
    TAG_JOB,
    TAG_RUN,
    TaskType,
    hyperparameters,
    input_place,
    tuning_body,
)
from maas_client.backends.offers import require_offer
from maas_client.bundled import jobs_folder, tuning_module
from maas_client.catalog import RouteName, find_model, lookup
from maas_client.command import CommandJob, Input, JsonFile
from maas_client.data.convert import CONVERSION, PLAIN_TEXT_HINT, plain_text_line
from maas_client.errors import DataError, PlanError
from maas_client.plan import Plan, PlanStep, job_hashes

if TYPE_CHECKING:
    from maas_client.spec import JobSpec
    from maas_client.transport.workspace import Target

ROUTE = "classic"
CATALOG_ROUTE: RouteName = "foundry-classic"
_TEXT_TASK = "text-generation"


def plan_run(spec: JobSpec, target: Target, *, on: date, region: str | None) -> Plan:
    """The plan for one spec. `region` is where the workspace is, as far as the settings say.

    Raises PlanError, and DataError for rows that the service's formats cannot hold.
    """
    managed = is_managed(spec)
    cautions: tuple[str, ...] = ()
    if not managed:
        _, cautions = require_offer(spec.model, CATALOG_ROUTE, on=on, region=region)
        if spec.deploy is not None and spec.deploy.location:
            require_offer(spec.model, CATALOG_ROUTE, on=on, region=spec.deploy.location)
    _require_supervised(spec)
    check_data_files(spec)
    _require_rows(spec)
    config = _config(spec, model_id(spec.model), target)
    inputs: dict[str, Input] = {
        "config": JsonFile(config),
        "train": spec.data.train,
        "model": config["model"],
    }
    if spec.data.validation.file is not None:
        inputs["validation"] = spec.data.validation.file
    job = CommandJob("", jobs_folder(), inputs, (OUTPUT,))
    hashes = {name: digest for name, digest in job_hashes(job).items() if name != "code"}
    plan = Plan(spec, "foundry", str(target), job, (), cost(spec), False, hashes)
    return Plan(
        spec=spec,
        backend="foundry",
        target=str(target),
        job=job,
        steps=tuple(_steps(plan, target, region)),
        cost=cost(spec),
        is_free=False,
        hashes=hashes,
        warnings=(*cautions, *left_out(spec), *_cautions(spec, on, region)),
    )


def task_type(spec: JobSpec) -> TaskType:
    """The service's word for the task: text is completed, everything else is a conversation."""
    return "textCompletion" if spec.task == _TEXT_TASK else "chatCompletion"


def model_id(name: str) -> str:
    """The registry's id of a model, with a version only where the job file pins one. Raises PlanError."""
    if name.startswith("azureml://registries/"):
        return name
    model = find_model(name)
    if model.azure_registry_id.value is None:
        hint = "Write the id itself as model: azureml://registries/REGISTRY/models/MODEL."
        raise PlanError(f"The catalog knows no registry that holds {model.name}.", hint=hint)
    return model.azure_registry_id.value


def asset_name(plan: Plan) -> str:
    """The name under which the service registers the tuned model: the job file's, else the run's own."""
    return plan.spec.register_as.name if plan.spec.register_as else plan.run_id


def tags_of(plan: Plan) -> dict[str, str]:
    """What maas writes on a job, to know it again."""
    return {TAG_RUN: plan.run_id, TAG_JOB: plan.spec.name, TAG_FINGERPRINT: plan.fingerprint}


def _require_supervised(spec: JobSpec) -> None:
    objective = getattr(spec.training, "objective", "sft")
    if objective != "sft":
        raise PlanError(
            f"training.objective is {objective}; a FineTuning job of the classic route learns answers only.",
            hint="Use objective sft here, or backend azureml or local.",
        )


def _require_rows(spec: JobSpec) -> None:
    """See that the rows fit one of the service's two formats and its limit. Raises DataError."""
    for file in filter(None, (spec.data.train, spec.data.validation.file)):
        if file.stat().st_size >= FILE_LIMIT_BYTES:
            size = file.stat().st_size / (1 << 20)
            raise DataError(
                f"{file} has {size:,.0f} MB; Azure AI Foundry takes files under 512 MB.",
                hint="Send fewer rows.",
            )
        if (line := plain_text_line(file, spec.task)) is not None:
            raise DataError(
                f"{file.name}, line {line}: plain text has no prompt; Azure AI Foundry learns to answer one.",
                hint=PLAIN_TEXT_HINT,
            )


def _config(spec: JobSpec, model: str, target: Target) -> dict[str, Any]:
    """All that decides what the service trains, besides the rows themselves."""
    held_out = spec.data.validation
    split = {} if held_out.file else {"validation": {"split": held_out.split, "seed": spec.training.seed}}
    return {
        "route": ROUTE,
        "task_type": task_type(spec),
        "model": model,
        "hyperparameters": hyperparameters(spec.training),
        "machines": machines(spec.compute, target.path),
        "conversion": CONVERSION,
        **split,
    }


def _steps(plan: Plan, target: Target, region: str | None) -> Iterator[PlanStep]:
    spec, shape = (
        plan.spec,
        "chat messages" if task_type(plan.spec) == "chatCompletion" else "prompt, completion",
    )
    share = spec.data.validation.split
    rest = (
        ""
        if spec.data.validation.file
        else f", {share:.0%} of the rows held out by seed {spec.training.seed}"
    )
    yield PlanStep("convert", str(spec.data.train), f"to {shape}{rest}")
    if spec.data.validation.file:
        yield PlanStep("convert", str(spec.data.validation.file), f"to {shape}")
    places = {name: str(input_place(f"{name}.jsonl", "<sha256>")) for name in ("train", "validation")}
    for name, place in places.items():
        yield PlanStep("upload", f"{name}.jsonl", place)
    model = plan.job.inputs["model"]
    pinned = "/versions/" in str(model)
    yield PlanStep("look up", str(model), "the version is pinned" if pinned else "its newest version")
    body = tuning_body(
        _config(spec, str(model), target),
        model_id=str(model) if pinned else f"{model}/versions/<newest>",
        train=places["train"],
        validation=places["validation"],
        tags={TAG_RUN: "<run>", TAG_JOB: spec.name, TAG_FINGERPRINT: plan.fingerprint},
        asset=spec.register_as.name if spec.register_as else "<run>",
        machines=machines(spec.compute, target.path),
    )
    yield PlanStep("start", "FineTuning job <run>", json.dumps(body, separators=(",", ":")))
    yield from _later_steps(spec, region)


def _later_steps(spec: JobSpec, region: str | None) -> Iterator[PlanStep]:
    """What follows a success."""
    if spec.register_as is not None:
        yield PlanStep("register", spec.register_as.name, "by the service; then tagged with its lineage")
    if spec.deploy is None:
        return
    if (model := lookup(spec.model)) and needs_subscription(model):
        yield PlanStep(
            "subscribe", model_id(spec.model), "to its offer in the marketplace, unless that is so"
        )
    where = spec.deploy.location or region or "the workspace's region"
    yield PlanStep(
        "deploy", spec.deploy.name, f"serverless endpoint in {where}, with a key, for {spec.deploy.ttl}"
    )


def _prompt_caution(spec: JobSpec) -> Iterator[str]:
    """The bundled server puts the task's prompt before what it is asked; the service does not."""
    prompt = tuning_module("tasks").TASKS[spec.task].prompt if spec.deploy else ""
    if prompt:
        yield f"Ask the endpoint as the rows ask: {prompt.strip()!r} goes before the text."


def _cautions(spec: JobSpec, on: date, region: str | None) -> Iterator[str]:
    """What may go wrong, a sentence each."""
    yield from _prompt_caution(spec)
    if is_managed(spec):
        model = lookup(spec.model)
        if model is not None and (refusal := model.refusal(CATALOG_ROUTE, on)) is not None:
            yield f"{refusal.message}; on machines of your own the service may still tune it."
        if spec.deploy is not None:
            yield "A model tuned on machines of your own may be refused by a serverless endpoint."
        return
    if region is None:
        yield "AZURE_LOCATION is not set: whether the workspace's region tunes this model shows in the check."
    if spec.training.epochs % 1:
        yield f"training.epochs is {spec.training.epochs:g}; the service is only known to take whole epochs."
