"""Accounts of Azure AI services in Resource Manager: the account, its keys, models, deployments, quota."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Any

from maas_client import catalog
from maas_client.simulator.arm import check_subscription
from maas_client.simulator.foundry import account_keys, account_of
from maas_client.simulator.openai_tuning import ROUTE
from maas_client.simulator.provisioning import regenerate
from maas_client.simulator.replies import Refusal, Reply
from maas_client.simulator.routing import GROUP, SUBSCRIPTION, Call, Operation, page
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

_PROVIDER = "Microsoft.CognitiveServices"
_ACCOUNTS = f"{GROUP}/providers/{_PROVIDER}/accounts"
_ACCOUNT = f"{_ACCOUNTS}/{{account}}"
_DEPLOYMENT = f"{_ACCOUNT}/deployments/{{deployment}}"
_LOCATION = f"{SUBSCRIPTION}/providers/{_PROVIDER}/locations/{{location}}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,63}")
SKUS = ("Standard", "GlobalStandard", "DataZoneStandard", "DeveloperTier", "ProvisionedManaged")
FORMATS = {"OpenAI": "OpenAI", "Mistral AI": "Mistral AI", "Meta": "Meta", "Alibaba": "Alibaba"}
OPEN_WEIGHTS_FORMAT = "Microsoft"
"""What gpt-oss is deployed as, though OpenAI publishes it."""
DEFAULT_CAPACITY = 300
DEVELOPER_LIFE_S = 24 * 3600.0


def get_account(call: Call) -> Reply:
    """GET of an account."""
    return Reply(200, _account(call))


def list_accounts(call: Call) -> Reply:
    """GET of the accounts of a resource group or of the subscription."""
    check_subscription(call)
    account = account_of(call.world)
    group = call.params.get("group")
    return page(call, [account] if group is None or _is_in(account, group) else [])


def list_keys(call: Call) -> Reply:
    """POST for the keys."""
    if _account(call)["properties"]["disableLocalAuth"]:
        raise Refusal(
            400, "BadRequest", "Failed to list key. disableLocalAuth is set to be true.", inner=None
        )
    return Reply(200, account_keys(call.world))


def regenerate_key(call: Call) -> Reply:
    """POST for a new key: Key1 or Key2."""
    which = "Secondary" if str((call.body or {}).get("keyName")) == "Key2" else "Primary"
    regenerate(call.world, _account(call)["id"], which)
    return Reply(200, account_keys(call.world))


def list_models(call: Call) -> Reply:
    """GET of the models that the account can tune."""
    _account(call)
    rows = []
    for model in catalog.models():
        route = model.route(ROUTE)
        if route is not None and route.offered:
            version = route.model_version or "1"
            words = {"fineTune": "true", "chatCompletion": "true"}
            name = {"format": format_of(model), "name": model.name, "version": version}
            rows.append({**name, "capabilities": words, "lifecycleStatus": "GenerallyAvailable"})
    return page(call, rows)


def format_of(model: catalog.Model) -> str:
    """What `model.format` of a deployment must say."""
    if model.publisher == "OpenAI" and model.family == "open":
        return OPEN_WEIGHTS_FORMAT
    return FORMATS.get(model.publisher, "OpenAI")


def list_usages(call: Call) -> Reply:
    """GET of the quota of a region: capacity of deployments by offer and model."""
    check_subscription(call)
    used: dict[str, int] = {}
    for each in deployments(call.world):
        name = _quota_name(each["sku"]["name"], _base_of(call.world, each["properties"]["model"]["name"]))
        used[name] = used.get(name, 0) + each["sku"]["capacity"]
    names = {
        _quota_name(sku, model.name)
        for model in catalog.models()
        if model.route(ROUTE) is not None
        for sku in SKUS[:4]
    }
    rows = [
        {
            "name": {"value": name, "localizedValue": name},
            "currentValue": used.get(name, 0),
            "limit": _limit(call.world, name),
            "unit": "Count",
        }
        for name in sorted(names | set(used))
    ]
    return Reply(200, {"value": rows})


def _quota_name(sku: str, base: str) -> str:
    return f"OpenAI.{sku}.{base}-finetune"


def _limit(world: World, name: str) -> int:
    return world.quota.get(name, DEFAULT_CAPACITY)


def deployments(world: World) -> list[Resource]:
    """Every deployment of the account; those of the developer tier are gone after a day."""
    path = f"{world.names.foundry_id}/deployments"
    for each in world.store.members(path):
        made = datetime.fromisoformat(each["systemData"]["createdAt"]).timestamp()
        if each["sku"]["name"] == "DeveloperTier" and world.clock.now() > made + DEVELOPER_LIFE_S:
            _forget(world, each)
    return world.store.members(path)


def find_deployment(world: World, name: str) -> Resource | None:
    """A deployment by its name; letter case does not matter."""
    return next((each for each in deployments(world) if each["name"].lower() == name.lower()), None)


def get_deployment(call: Call) -> Reply:
    """GET of a deployment."""
    _account(call)
    found = find_deployment(call.world, call.params["deployment"])
    if found is None:
        text = f"The deployment '{call.params['deployment']}' was not found."
        raise Refusal(404, "DeploymentNotFound", text, inner=None)
    return Reply(200, found)


def list_deployments(call: Call) -> Reply:
    """GET of the deployments."""
    _account(call)
    return page(call, deployments(call.world))


def put_deployment(call: Call) -> Reply:
    """PUT of a deployment: 201 (200 where it is there) and an operation to poll."""
    account, name = _account(call), call.params["deployment"]
    path = f"{account['id']}/deployments/{name}"
    there = find_deployment(call.world, name)
    sku, model = _checked(call, path)
    properties = _properties(model, sku["capacity"], "Creating" if there is None else "Accepted")
    made = {
        "id": path,
        "type": f"{_PROVIDER}/accounts/deployments",
        "name": name,
        "sku": sku,
        "properties": properties,
        "systemData": call.world.system_data(there),
        "tags": (call.body or {}).get("tags") or {},
        "etag": f'"{secrets.token_hex(8)}"',
    }
    call.world.servers.end(path)
    call.world.store.put(path, made)

    def finish(error: dict[str, Any] | None) -> None:
        properties["provisioningState"] = "Failed" if error else "Succeeded"

    price = "foundry-developer-hosting" if sku["name"] == "DeveloperTier" else "foundry-hosting"
    call.world.bill.open_account(path, f"deployment {name} ({sku['name']}), hosting", price)
    headers = call.world.operations.start(call, finish, service="cognitive")
    return Reply(201 if there is None else 200, made, headers)


def _properties(model: dict[str, Any], capacity: int, state: str) -> dict[str, Any]:
    return {
        "model": model,
        "versionUpgradeOption": "NoAutoUpgrade",
        "currentCapacity": capacity,
        "capabilities": {"chatCompletion": "true", "area": "US", "responses": "true"},
        "provisioningState": state,
        "rateLimits": [
            {"key": "request", "renewalPeriod": 60, "count": capacity},
            {"key": "token", "renewalPeriod": 60, "count": capacity * 1000},
        ],
    }


def _checked(call: Call, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Offer and model as they were asked for. Raises Refusal for what the service would not take."""
    body = call.body if isinstance(call.body, dict) else {}
    sku = {"name": "Standard", "capacity": 1, **(body.get("sku") or {})}
    model = (body.get("properties") or {}).get("model") or {}
    if not _NAME.fullmatch(call.params["deployment"]):
        raise _invalid(
            "InvalidResourceName", "The deployment name has 2 to 64 letters, digits, '-', '_', '.'."
        )
    base = _base_of(call.world, str(model.get("name") or ""))
    _check_offer(sku, model, base)
    for each in deployments(call.world):
        is_other = each["id"].lower() != path.lower()
        if is_other and ".ft-" in model["name"] and each["properties"]["model"]["name"] == model["name"]:
            words = f"The custom model has a deployment already: {each['name']}."
            raise Refusal(409, "Conflict", words, inner=None)
    _check_quota(call, path, sku, base)
    return sku, {
        "format": model["format"],
        "name": model["name"],
        "version": str(model.get("version") or "1"),
    }


def _check_offer(sku: dict[str, Any], model: dict[str, Any], base: str) -> None:
    if sku["name"] not in SKUS:
        raise _invalid("InvalidResourceProperties", f"The sku '{sku['name']}' is not supported.")
    if not isinstance(sku["capacity"], int) or sku["capacity"] < 1:
        raise _invalid("InvalidCapacity", "The sku capacity must be a positive number.")
    known = catalog.lookup(base)
    if known is None or model.get("format") != format_of(known):
        words = f"The model 'Format:{model.get('format')},Name:{model.get('name')},"
        words += f"Version:{model.get('version', '')}' is not supported."
        raise _invalid("DeploymentModelNotSupported", words)
    if known.family == "open" and sku["name"] not in {"GlobalStandard", "DeveloperTier"}:
        raise _invalid(
            "InvalidResourceProperties", f"The sku '{sku['name']}' is not supported by this model."
        )


def _check_quota(call: Call, path: str, sku: dict[str, Any], base: str) -> None:
    name = _quota_name(sku["name"], base)
    used = sum(
        each["sku"]["capacity"]
        for each in deployments(call.world)
        if each["id"].lower() != path.lower()
        and _quota_name(each["sku"]["name"], _base_of(call.world, each["properties"]["model"]["name"]))
        == name
    )
    limit = _limit(call.world, name)
    if used + sku["capacity"] > limit or call.world.faults.take("quota", f"{call.method} {call.path}"):
        words = (
            f"This operation require {sku['capacity']} new capacity in quota {name}, which is bigger than "
        )
        words += f"the current available capacity {max(0, limit - used)}. The current quota usage is {used} "
        raise _invalid("InsufficientQuota", words + f"and the quota limit is {limit} for quota {name}.")


def _base_of(world: World, model: str) -> str:
    """The catalog's name of the base of a model, "" where no such model is there."""
    base, _, job = model.partition(".ft-")
    if job:
        jobs = world.store.members(f"{world.names.foundry_id}/openai-jobs")
        tuned = {each.get("fine_tuned_model") for each in jobs}
        records = [world.tuner.record(each) for each in jobs]
        tuned |= {kept["fine_tuned_model_checkpoint"] for record in records for kept in record["checkpoints"]}
        if model not in tuned:
            return ""
    known = catalog.lookup(base)
    return known.name if known else ""


def _invalid(code: str, message: str) -> Refusal:
    return Refusal(400, code, message, inner=None)


def delete_deployment(call: Call) -> Reply:
    """DELETE of a deployment: 204 for what is not there, else 202."""
    _account(call)
    found = find_deployment(call.world, call.params["deployment"])
    if found is None:
        return Reply(204)
    found["properties"]["provisioningState"] = "Deleting"

    def finish(error: dict[str, Any] | None) -> None:
        if error is None:
            _forget(call.world, found)
        else:
            found["properties"]["provisioningState"] = "Failed"

    headers = call.world.operations.start(call, finish, service="cognitive", seconds=2.0)
    return Reply(202, None, headers)


def _forget(world: World, deployment: Resource) -> None:
    world.store.delete(deployment["id"])
    world.bill.close_account(deployment["id"])
    world.servers.end(deployment["id"])


def _account(call: Call) -> Resource:
    """The account that the path names. Raises Refusal 404."""
    check_subscription(call)
    account = account_of(call.world)
    if _is_in(account, call.params["group"]) and account["name"].lower() == call.params["account"].lower():
        return account
    text = f"The Resource '{_PROVIDER}/accounts/{call.params['account']}' under resource group "
    text += f"'{call.params['group']}' was not found. For more details please go to "
    raise Refusal(404, "ResourceNotFound", text + "https://aka.ms/ARMResourceNotFoundFix", inner=None)


def _is_in(account: Resource, group: str) -> bool:
    return bool(account["id"].split("/")[4].lower() == group.lower())


OPERATIONS = [
    Operation("GET", f"{SUBSCRIPTION}/providers/{_PROVIDER}/accounts", list_accounts),
    Operation("GET", _ACCOUNTS, list_accounts),
    Operation("GET", _ACCOUNT, get_account),
    Operation("POST", _ACCOUNT + "/listKeys", list_keys),
    Operation("POST", _ACCOUNT + "/regenerateKey", regenerate_key),
    Operation("GET", _ACCOUNT + "/models", list_models),
    Operation("GET", _LOCATION + "/usages", list_usages),
    Operation("GET", _ACCOUNT + "/deployments", list_deployments),
    Operation("GET", _DEPLOYMENT, get_deployment),
    Operation("PUT", _DEPLOYMENT, put_deployment, blocking=True),
    Operation("DELETE", _DEPLOYMENT, delete_deployment, blocking=True),
]
