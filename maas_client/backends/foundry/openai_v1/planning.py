"""What a run on the openai route would be: every request decided, without a word to Azure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from maas_client.backends.datafiles import check_data_files
from maas_client.backends.foundry.openai_v1.costs import cost
from maas_client.backends.foundry.openai_v1.offers import (
    CATALOG_ROUTE,
    DEFAULT_CAPACITY,
    cautions,
    model_format,
    model_id,
    require_method,
    sku_of,
    training_type,
)
from maas_client.backends.foundry.openai_v1.wire import FEWEST_EXAMPLES, FILE_LIMIT_BYTES, job_request
from maas_client.backends.offers import require_offer
from maas_client.bundled import jobs_folder
from maas_client.command import CommandJob, Input, JsonFile
from maas_client.data.convert import CONVERSION, PLAIN_TEXT_HINT, held_out_places, plain_text_line
from maas_client.data.preference import goes_as_it_is, problems_of
from maas_client.errors import DataError
from maas_client.plan import Plan, PlanStep, job_hashes

if TYPE_CHECKING:
    from pathlib import Path

    from maas_client.backends.foundry.openai_v1.account import Resource
    from maas_client.spec import JobSpec

ROUTE = "openai"
_MOST_SEED = (1 << 31) - 1
_SENT = {
    "data": {"train", "validation"},
    "training": {"epochs", "batch_size", "seed", "objective", "beta"},
    "foundry": {"route", "training_type", "learning_rate_multiplier"},
    "deploy": {"name", "ttl", "sku", "capacity"},
}
"""What of each part is sent, or used here."""


def plan_run(spec: JobSpec, resource: Resource, *, on: date, region: str | None) -> Plan:
    """The plan for one spec. `region` is where the resource is, as far as the settings say.

    Raises PlanError, and DataError for rows that the service does not take.
    """
    model, offered = require_offer(spec.model, CATALOG_ROUTE, on=on)
    check_data_files(spec)
    method = "dpo" if spec.training.objective == "dpo" else "supervised"
    require_method(model, method)
    kind = training_type(spec, model, region)
    _require_rows(spec, method)
    config = _config(spec, method, kind)
    inputs: dict[str, Input] = {"config": JsonFile(config), "train": spec.data.train}
    if spec.data.validation.file is not None:
        inputs["validation"] = spec.data.validation.file
    job = CommandJob("", jobs_folder(), inputs, ())  # the service runs code of its own
    hashes = {name: digest for name, digest in job_hashes(job).items() if name != "code"}
    sku = sku_of(spec.deploy)
    plan = Plan(spec, "foundry", str(resource), job, (), cost(spec, sku), False, hashes)
    return Plan(
        spec=spec,
        backend="foundry",
        target=str(resource),
        job=job,
        steps=tuple(_steps(plan, config)),
        cost=cost(spec, sku),
        is_free=False,
        hashes=hashes,
        warnings=(*offered, *cautions(spec, model, kind, region), *_left_out(spec, method)),
    )


def _config(spec: JobSpec, method: str, kind: str) -> dict[str, Any]:
    """All that decides what the service trains, besides the rows themselves."""
    chosen: dict[str, Any] = {"n_epochs": max(1, round(spec.training.epochs))}
    if "batch_size" in spec.training.model_fields_set:
        chosen["batch_size"] = spec.training.batch_size
    if spec.foundry.learning_rate_multiplier is not None:
        chosen["learning_rate_multiplier"] = spec.foundry.learning_rate_multiplier
    if method == "dpo" and "beta" in spec.training.model_fields_set:
        chosen["beta"] = spec.training.beta
    held_out = spec.data.validation
    split = {} if held_out.file else {"validation": {"split": held_out.split, "seed": spec.training.seed}}
    return {
        "route": ROUTE,
        "model": model_id(spec.model),
        "method": method,
        "hyperparameters": chosen,
        "training_type": kind,
        "seed": spec.training.seed & _MOST_SEED,
        **({} if goes_as_it_is(spec.data.train, method) else {"task": spec.task, "conversion": CONVERSION}),
        **split,
    }


def _require_rows(spec: JobSpec, method: str) -> None:
    """See that the rows are of a kind, number and size that the service takes. Raises DataError."""
    for file in filter(None, (spec.data.train, spec.data.validation.file)):
        if file.stat().st_size >= FILE_LIMIT_BYTES:
            size = file.stat().st_size / (1 << 20)
            what = f"{file} has {size:,.0f} MB; Azure AI Foundry takes files under 512 MB."
            raise DataError(what, hint="Send fewer rows.")
        if goes_as_it_is(file, method):
            if problems := problems_of(file)[1]:
                hint = "Mend or remove these rows."
                raise DataError(f"{file} has bad preference rows.", hint=hint, problems=problems)
        elif (line := plain_text_line(file, spec.task)) is not None:
            raise DataError(
                f"{file.name}, line {line}: plain text has no prompt; Azure AI Foundry learns to answer one.",
                hint=PLAIN_TEXT_HINT,
            )
    rows = count_rows(spec.data.train)
    share = spec.data.validation.split
    left = rows - (0 if spec.data.validation.file else len(held_out_places(rows, share, spec.training.seed)))
    if left < FEWEST_EXAMPLES:
        of = f" once {rows - left} are held out" if left < rows else ""
        raise DataError(
            f"{spec.data.train} has {left} rows to train on{of}; Azure AI Foundry takes at least "
            f"{FEWEST_EXAMPLES}.",
            hint="Give more rows, or a smaller data.validation.split.",
        )


def count_rows(path: Path) -> int:
    """How many rows a data file has, bad ones included; at most what is needed is read into memory."""
    from maas_client.bundled import tuning_module

    files = tuning_module("datafile")
    try:
        return sum(1 for _ in files.read_records(path))
    except files.DataError as error:
        raise DataError(error.reason) from None


def _steps(plan: Plan, config: dict[str, Any]) -> Iterator[PlanStep]:
    spec, seed = plan.spec, plan.spec.training.seed
    rest = "" if spec.data.validation.file else f", {spec.data.validation.split:.0%} held out by seed {seed}"
    yield PlanStep("convert", str(spec.data.train), f"{_shape(spec.data.train, config)}{rest}")
    if spec.data.validation.file:
        yield PlanStep("convert", str(spec.data.validation.file), _shape(spec.data.validation.file, config))
    for name in ("train", "validation"):
        yield PlanStep("upload", f"{name}-<sha256>.jsonl", "unless the resource has it already")
    request = job_request(plan, config, "<train>", "<validation>", run="<run>")
    more = request.pop("extra_body", {})
    body = {**request, **more}
    yield PlanStep("start", "fine-tuning job", json.dumps(body, separators=(",", ":")))
    if spec.register_as is not None:
        yield PlanStep("register", spec.register_as.name, "the tuned model, by its name in the resource")
    if spec.deploy is not None:
        capacity = spec.deploy.capacity or DEFAULT_CAPACITY
        what = f"{sku_of(spec.deploy)} with capacity {capacity}, format {model_format(spec.model)}"
        yield PlanStep("deploy", spec.deploy.name, f"{what}, for {spec.deploy.ttl}")


def _shape(path: Path, config: dict[str, Any]) -> str:
    if goes_as_it_is(path, config["method"]):
        return "preference rows as they are"
    return "to preference rows" if config["method"] == "dpo" else "to chat messages"


def _left_out(spec: JobSpec, method: str) -> Iterator[str]:
    """Sentences about what the job file says and the service cannot be told; only about keys that it has."""
    if spec.training.epochs % 1:
        sent = max(1, round(spec.training.epochs))
        yield f"training.epochs is {spec.training.epochs:g}; the service takes whole epochs, {sent} is sent."
    if "learning_rate" in spec.training.model_fields_set:
        yield (
            "training.learning_rate has no exact counterpart and is not sent: the service multiplies a rate "
            "of its own by foundry.learning_rate_multiplier."
        )
    keys = [
        key
        for part in ("data", "method", "training", "evaluation", "distributed", "compute", "foundry")
        for key in _unsent(spec, part)
        if key != "training.learning_rate"
    ]
    if keys:
        yield f"The service decides the rest itself; not sent: {', '.join(keys)}."
    if deploying := list(_unsent(spec, "deploy")):
        yield f"A deployment has no machines of its own; not sent: {', '.join(deploying)}."
    if method == "supervised":
        yield (
            "The service measures the loss while it trains and nothing before and after; ask the endpoint to "
            "see what was learned."
        )


def _unsent(spec: JobSpec, part: str) -> Iterator[str]:
    section = getattr(spec, part)
    if section is not None:
        for key in type(section).model_fields:
            if key in section.model_fields_set and key not in _SENT.get(part, set()):
                yield f"{part}.{key}"
