"""What must be so at a Foundry resource before a job can go all its way: asked at once, read only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from maas_client.backends.endpointname import judge_name
from maas_client.backends.foundry.openai_v1.deployments import TAG_MODEL, read_deployment
from maas_client.backends.foundry.openai_v1.offers import (
    CATALOG_ROUTE,
    DEFAULT_CAPACITY,
    model_format,
    sku_of,
)
from maas_client.backends.foundry.openai_v1.wire import read_job
from maas_client.backends.foundry.planned import config_of
from maas_client.catalog import lookup
from maas_client.check import Check
from maas_client.errors import AccessDeniedError, NotFoundError
from maas_client.run import RunState
from maas_client.transport.members import text_at
from maas_client.workspace.access import check_provider, check_rights, check_sign_in
from maas_client.workspace.checks import Question, ask_all
from maas_client.workspace.rights import DEPLOY_OPENAI, TUNE_OPENAI

if TYPE_CHECKING:
    from maas_client.backends.foundry.openai_v1.account import Account
    from maas_client.plan import Plan

_PROVIDER = "Microsoft.CognitiveServices"
MOST_QUEUED = 20
MOST_FILES = 100
_LIMITS = "Azure's limits of a resource, read 2026-11-24"
_UNSET = "AZURE_SUBSCRIPTION_ID is not set"
_UNSET_HINT = (
    "Set it, and AZURE_RESOURCE_GROUP: they are needed to deploy, and to look at model, region and quota."
)


def check_plan(account: Account, plan: Plan) -> tuple[Check, ...]:
    """Every question that the plan raises, the deployment's too. What cannot be asked is `ok` None."""
    first = ask_all({"Sign-in": lambda: _sign_in(account)})
    if not all(one.ok for one in first):
        return (
            *first,
            *(Check(name, None, "not asked", "Mend what is above first.") for name in ("Resource", "Model")),
        )
    questions: dict[str, Question] = {
        "Queue": lambda: _queue(account),
        "Files": lambda: _files(account),
    }
    if not account.subscription:
        deploys = plan.spec.deploy is not None
        missing = Check("Account", False if deploys else None, _UNSET, _UNSET_HINT)
        return (*first, *ask_all(questions), missing)
    second = ask_all({"Account": lambda: _account(account)})
    if "facts" not in vars(account):
        return (*first, *second, *ask_all(questions))
    return (*first, *second, *ask_all(questions | _of_account(account, plan)))


def _of_account(account: Account, plan: Plan) -> dict[str, Question]:
    """What Resource Manager knows."""
    deploy = plan.spec.deploy
    rights = (*(() if account.key else TUNE_OPENAI), *(DEPLOY_OPENAI if deploy else ()))
    questions: dict[str, Question] = {
        f"Provider {_PROVIDER}": lambda: check_provider(account.arm, account.subscription or "", _PROVIDER),
        "Model": lambda: _model(account, plan),
        "Region": lambda: _region(account, plan),
    }
    if rights:
        questions["Rights"] = lambda: check_rights(account.arm, account.facts.id, rights)
    if deploy is not None:
        questions["Quota"] = lambda: _quota(account, plan)
        questions["Endpoint"] = lambda: _endpoint(account, plan)
    return questions


def _sign_in(account: Account) -> tuple[Check, ...]:
    """The way in: a key that the resource takes, or a token."""
    if account.key is None:
        return check_sign_in(account.credential, account.resource.scope)
    try:
        account.service.ask(
            "look at the resource", lambda api: api.fine_tuning.jobs.with_raw_response.list(limit=1)
        )
    except AccessDeniedError as error:
        return (Check("Sign-in", False, error.message, error.hint or "Check AZURE_OPENAI_API_KEY."),)
    return (Check("Sign-in", True, f"the key of AZURE_OPENAI_API_KEY opens {account.resource}"),)


def _queue(account: Account) -> Iterable[Check]:
    """How many jobs run and wait; more than so many are refused."""
    rows = account.service.items(
        "list fine-tuning jobs",
        lambda api, place: api.fine_tuning.jobs.with_raw_response.list(limit=100, **place),
    )
    jobs = [read_job(row) for row in rows]
    running = sum(job.state is RunState.RUNNING for job in jobs)
    waiting = sum(job.state is RunState.QUEUED for job in jobs)
    shown = f"{running} jobs run and {waiting} wait in {account.resource}"
    if waiting >= MOST_QUEUED:
        yield Check("Queue", False, f"{shown}; {MOST_QUEUED} may wait ({_LIMITS})", "Wait, or cancel some.")
    else:
        yield Check("Queue", True, shown)


def _files(account: Account) -> Iterable[Check]:
    """How many files the resource holds."""
    count = sum(
        1
        for _ in account.service.items(
            "list files", lambda api, place: api.files.with_raw_response.list(**place)
        )
    )
    room = count + 2 <= MOST_FILES
    shown = f"{count} of {MOST_FILES} files are held ({_LIMITS})"
    yield Check("Files", room or None, shown, "" if room else "Delete files that no job needs any more.")


def _account(account: Account) -> Iterable[Check]:
    """Whether Resource Manager has an account of a kind that tunes, behind the address."""
    try:
        facts = account.facts
    except NotFoundError as error:
        yield Check("Account", False, error.message, error.hint)
        return
    shown = f"{facts.name} ({facts.kind}) in {facts.location}"
    if facts.kind in {"OpenAI", "AIServices"}:
        yield Check("Account", True, shown)
    else:
        hint = "Take an Azure OpenAI or Azure AI Foundry resource."
        yield Check("Account", None, f"{shown}, whose kind is not known to tune models", hint)


def _model(account: Account, plan: Plan) -> Iterable[Check]:
    """Whether the account offers the base model for fine-tuning."""
    wanted = str(config_of(plan)["model"])
    known = lookup(wanted)
    names = {name.lower() for name in (wanted, *(known.names if known else ()))}
    rows = account.arm.paging(account.path("models"), params=account.params, operation="list models")
    fitting = [row for row in rows if isinstance(row, Mapping) and str(row.get("name")).lower() in names]
    if not fitting:
        hint = "The service decides; open models may be missing in this list."
        yield Check("Model", None, f"{wanted} is not among the models that the account lists", hint)
    elif any(_can_tune(row) for row in fitting):
        yield Check("Model", True, f"the account offers {wanted} for fine-tuning")
    else:
        hint = "Take another model or a resource in another region: maas models list."
        yield Check("Model", False, f"the account offers {wanted}, but not for fine-tuning", hint)


def _can_tune(row: Mapping[str, Any]) -> bool:
    capabilities = row.get("capabilities")
    words = capabilities if isinstance(capabilities, Mapping) else {}
    return any(
        key.lower().endswith("finetune") and str(value).lower() == "true" for key, value in words.items()
    )


def _region(account: Account, plan: Plan) -> Iterable[Check]:
    """Whether the account's region trains the model, which matters to standard training only."""
    model, place = lookup(plan.spec.model), account.facts.location
    route = model.route(CATALOG_ROUTE) if model else None
    kind = config_of(plan)["training_type"]
    if route is None or route.regions is None or kind not in {"", "Standard"}:
        yield Check(
            "Region", True, f"{place}; {kind or 'this'} training is not bound to regions that are known"
        )
    elif route.serves(place):
        yield Check("Region", True, f"{place} trains {plan.spec.model} ({route.source})")
    else:
        regions = ", ".join(route.regions)
        what = f"{place} is none of the regions of standard training: {regions} ({route.source})"
        hint = "Set foundry.training_type to globalStandard, or take a resource in one of them."
        yield Check("Region", False if kind else None, what, hint)


def _quota(account: Account, plan: Plan) -> Iterable[Check]:
    """Whether the deployment's capacity is left, as far as a row of the usages names offer and model."""
    spec = plan.spec.deploy
    assert spec is not None  # noqa: S101  asked only then
    sku, capacity = sku_of(spec), spec.capacity or DEFAULT_CAPACITY
    model = lookup(plan.spec.model)
    names = {name.lower() for name in (plan.spec.model, *(model.names if model else ()))}
    place = f"/subscriptions/{account.subscription}/providers/{_PROVIDER}/locations/{account.facts.location}"
    rows = account.arm.paging(f"{place}/usages", params=account.params, operation="read the quota")
    for row in rows:
        name = str((row.get("name") or {}).get("value") or "") if isinstance(row, Mapping) else ""
        if not _is_row_of(name, sku, names):
            continue
        left = float(row.get("limit") or 0) - float(row.get("currentValue") or 0)
        shown = f"{name}: {left:g} of {float(row.get('limit') or 0):g} are left, {capacity} are wanted"
        hint = "Ask for quota in the Foundry portal, lower deploy.capacity, or take another deploy.sku."
        yield Check("Quota", left >= capacity, shown, "" if left >= capacity else hint)
        return
    yield Check(
        "Quota", None, f"no row of the quota names {sku} and {plan.spec.model}", "The service decides."
    )


def _is_row_of(name: str, sku: str, models: set[str]) -> bool:
    """Whether a row such as OpenAI.GlobalStandard.gpt-4.1-mini-finetune is about offer and tuned model."""
    parts = name.lower().split(".", 2)
    if len(parts) != 3 or parts[1] != sku.lower() or not parts[2].endswith("finetune"):
        return False
    return parts[2].removesuffix("finetune").rstrip("-") in models


def _endpoint(account: Account, plan: Plan) -> Iterable[Check]:
    """Whether the deployment's name is free, or is the one of this model."""
    spec = plan.spec.deploy
    assert spec is not None  # noqa: S101  asked only then
    try:
        body = account.arm.get(
            account.path("deployments", spec.name),
            params=account.params,
            operation=f"get deployment {spec.name}",
        ).mapping
    except NotFoundError:
        yield judge_name(plan, None, detail=f"; {sku_of(spec)}, format {model_format(plan.spec.model)}")
        return
    other = read_deployment(body, None).tuned or "something else"
    yield judge_name(plan, text_at(body, "tags", TAG_MODEL), other=other)
