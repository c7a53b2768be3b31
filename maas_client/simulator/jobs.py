"""Jobs of a workspace: Command and FineTuning, made once, listed by page, canceled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maas_client.simulator import finetuning
from maas_client.simulator.datastores import ARTIFACT_STORE, BLOB_STORE
from maas_client.simulator.metadata import PORTAL
from maas_client.simulator.replies import Refusal, Reply, conflict, not_found, user_error
from maas_client.simulator.routing import LOCATION, WORKSPACE, Call, Operation, page
from maas_client.simulator.state import Resource
from maas_client.simulator.world import PROVIDER, World, resource

_JOB = WORKSPACE + "/jobs/{job}"
FINAL = frozenset({"Completed", "Failed", "Canceled", "NotResponding", "Paused"})
_CHANGEABLE = frozenset(
    {"tags", "description", "displayName", "isArchived", "properties", "services", "notificationSetting"}
)
_COMMAND: Mapping[str, Any] = {
    "description": None,
    "tags": {},
    "properties": {},
    "displayName": None,
    "status": "Starting",
    "experimentName": "Default",
    "services": None,
    "computeId": None,
    "isArchived": False,
    "identity": None,
    "componentId": None,
    "notificationSetting": None,
    "jobType": "Command",
    "resources": None,
    "codeId": None,
    "command": None,
    "environmentId": None,
    "inputs": {},
    "outputs": {},
    "distribution": None,
    "autologgerSettings": None,
    "limits": None,
    "environmentVariables": {},
    "queueSettings": None,
    "parameters": {},
}
_LITERAL = "literal"


def command_defaults(name: str) -> dict[str, Any]:
    """The properties of a command job of which nothing is said."""
    resources: dict[str, Any] = {
        "instanceCount": 1,
        "instanceType": None,
        "properties": {},
        "shmSize": "2g",
        "dockerArgs": None,
    }
    fresh: dict[str, Any] = {
        "tags": {},
        "properties": {},
        "inputs": {},
        "environmentVariables": {},
        "parameters": {},
    }
    return {**_COMMAND, **fresh, "resources": resources, "outputs": _outputs(name, {})}


def get_job(call: Call) -> Reply:
    """GET of a job."""
    return Reply(200, _shown(call.world, _find(call)))


def _find(call: Call) -> Resource:
    found = call.world.store.get(call.child_id("jobs", call.params["job"]))
    if found is None:
        raise not_found(f"Run {call.params['job']} was not found")
    return found


def _shown(world: World, job: Resource) -> Resource:
    """The job as it is answered; a fault may put another status word there."""
    record = world.runner.record(job["id"])
    world.runner.scripted.look(job, record)
    if record.get("word") and world.clock.now() < record["word_until"]:
        return {**job, "properties": {**job["properties"], "status": record["word"]}}
    if fault := world.faults.take("job_status", job["name"]):
        record["word"] = str(fault["word"])
        record["word_until"] = world.clock.now() + float(fault["seconds"])
        return _shown(world, job)
    return job


def put_job(call: Call) -> Reply:
    """PUT of a job: made and started. One that is there takes new words, and nothing else (409)."""
    asked = call.properties
    path = call.child_id("jobs", call.params["job"])
    there = call.world.store.get(path)
    if there is not None:
        return Reply(200, _changed(call, there, asked))
    kind = asked.get("jobType")
    if kind == "Command":
        properties = _command(call, asked)
    elif kind == "FineTuning":
        properties = finetuning.properties_of(call, asked)
    else:
        raise user_error(f"The simulator runs Command and FineTuning jobs, not {kind}.", "BadArgument")
    if not properties["displayName"]:
        properties["displayName"] = call.params["job"]
    properties["services"] = properties["services"] or _services(call)
    system = {key: value for key, value in call.world.system_data().items() if key.startswith("created")}
    job = call.world.store.put(path, resource(path, "workspaces/jobs", properties, system))
    call.world.runner.start(job, asked)
    place = f"{call.world.base_url}{path}?api-version={call.query.get('api-version', '')}"
    return Reply(201, job, {"Location": place})


def _changed(call: Call, there: Resource, asked: Mapping[str, Any]) -> Resource:
    before = {**there["properties"], **(call.world.runner.record(there["id"]).get("asked") or {})}
    for key in set(asked) - _CHANGEABLE:
        if _plain(asked[key]) not in (_plain(before.get(key)), _plain(there["properties"].get(key))):
            text = f"A job with id {there['name']} already exists, and its {key} cannot be changed."
            raise conflict(text)
    properties = there["properties"]
    properties |= {key: asked[key] for key in _CHANGEABLE - {"services", "properties"} if key in asked}
    properties["properties"] |= asked.get("properties") or {}
    return there


def _plain(value: Any) -> Any:
    """A value without what the service adds by itself: nulls, default modes and outputs."""
    if isinstance(value, Mapping):
        cleaned = {
            key: _plain(item)
            for key, item in value.items()
            if item not in (None, {}, []) and key not in {"mode", "default"}
        }
        return cleaned or None
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _command(call: Call, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Check a command job, and fill in what the service adds."""
    if not asked.get("command"):
        raise user_error("The command of the job is missing.", "BadArgument", "ArgumentBlankOrEmpty")
    if not asked.get("environmentId"):
        raise user_error("The environment of the job is missing.", "BadArgument", "ArgumentBlankOrEmpty")
    _check_ids(call, asked)
    name = call.params["job"]
    properties = {
        **command_defaults(name),
        **{key: value for key, value in asked.items() if value is not None},
    }
    properties["properties"] = {
        **(asked.get("properties") or {}),
        "_azureml.ComputeTargetType": "amlctrain" if asked.get("computeId") else "Serverless",
        "ContentSnapshotId": call.world.workspace_guid(asked.get("codeId") or ""),
    }
    properties["resources"] = {**command_defaults(name)["resources"], **(asked.get("resources") or {})}
    properties["inputs"] = {
        key: each
        if each.get("jobInputType") == _LITERAL
        else {"description": None, "mode": "ReadOnlyMount", **each}
        for key, each in (asked.get("inputs") or {}).items()
    }
    properties["outputs"] = _outputs(name, asked.get("outputs") or {})
    return properties


def _outputs(name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs with their places, and the default one that every job has."""
    outputs = {
        key: {
            "description": None,
            "mode": "ReadWriteMount",
            **each,
            "uri": each.get("uri") or f"azureml://datastores/{BLOB_STORE}/paths/azureml/{name}/{key}/",
        }
        for key, each in asked.items()
    }
    default = f"azureml://datastores/{ARTIFACT_STORE}/ExperimentRun/dcid.{name}"
    outputs["default"] = {
        "description": None,
        "uri": default,
        "mode": "ReadWriteMount",
        "jobOutputType": "uri_folder",
    }
    return outputs


def _check_ids(call: Call, asked: Mapping[str, Any]) -> None:
    """What a job names must be there: its compute, code and environment, where they have ARM ids."""
    for key, words in (("computeId", "compute"), ("codeId", "code"), ("environmentId", "environment")):
        path = asked.get(key) or ""
        if path.startswith("/") and call.world.store.get(path) is None:
            raise user_error(
                f"The {words} {path.rpartition('/workspaces/')[2]} was not found.", "NotFoundError"
            )
    if not asked.get("computeId") and not (asked.get("resources") or {}).get("instanceType"):
        text = "Either computeId or resources.instanceType is needed."
        raise user_error(text, "BadArgument", "ArgumentBlankOrEmpty")


def _services(call: Call) -> dict[str, Any]:
    url = call.world.base_url.partition("://")[2]
    tracking = f"azureml://{url}/mlflow/v1.0{call.workspace_id}?"
    studio = f"{PORTAL}runs/{call.params['job']}?wsid={call.workspace_id}"
    return {
        kind: {"jobServiceType": kind, "port": None, "endpoint": place, "status": None, "errorMessage": None}
        for kind, place in (("Tracking", tracking), ("Studio", studio))
    }


def list_jobs(call: Call) -> Reply:
    """GET of the jobs, newest first, by page; jobType, tag and listViewType choose."""
    view = call.query.get("listViewType", "ActiveOnly")
    kind, tag = call.query.get("jobType"), call.query.get("tag")
    found = [
        each
        for each in reversed(call.world.store.members(f"{call.workspace_id}/jobs"))
        if (view == "All" or bool(each["properties"]["isArchived"]) == (view == "ArchivedOnly"))
        and (kind is None or each["properties"]["jobType"] == kind)
        and (tag is None or _has_tag(each, tag))
    ]
    reply = page(call, found)
    reply.body["value"] = [_shown(call.world, each) for each in reply.body["value"]]
    return reply


def _has_tag(job: Resource, tag: str) -> bool:
    key, sign, value = tag.partition("=")
    tags = job["properties"].get("tags") or {}
    return key in tags and (not sign or str(tags[key]) == value)


def cancel_job(call: Call) -> Reply:
    """POST to cancel: 202 with a place to look; 200 where the job has ended already."""
    job = _find(call)
    if job["properties"]["status"] in FINAL:
        return Reply(200)
    call.world.runner.cancel(job)
    names = call.world.names
    guid = call.world.workspace_guid(call.workspace_id)
    place = f"{call.world.base_url}/subscriptions/{names.subscription}/providers/{PROVIDER}"
    place += f"/locations/{names.location}"
    place += f"/jobCancellations/jc:{guid}:{job['name']}?api-version={call.query.get('api-version', '')}"
    return Reply(202, None, {"Location": place, "Retry-After": "1", "x-ms-async-operation-timeout": "PT1H"})


def cancellation(call: Call) -> Reply:
    """GET of what cancel handed out: 202 until the job has ended, then 200."""
    guid, _, name = call.params["operation"].removeprefix("jc:").partition(":")
    for workspace_id in (
        each["id"] for each in call.world.store.members(call.world.names.workspace_id.rpartition("/")[0])
    ):
        job = call.world.store.get(f"{workspace_id}/jobs/{name}")
        if job is not None and call.world.workspace_guid(workspace_id) == guid:
            if job["properties"]["status"] in FINAL:
                return Reply(200)
            place = f"{call.world.base_url}{call.path}?api-version={call.query.get('api-version', '')}"
            return Reply(202, None, {"Location": place, "Retry-After": "1"})
    raise not_found("The operation was not found.")


def delete_job(call: Call) -> Reply:
    """DELETE of a job that has ended."""
    job = call.world.store.get(call.child_id("jobs", call.params["job"]))
    if job is None:
        return Reply(204)
    if job["properties"]["status"] not in FINAL:
        raise Refusal(409, "Conflict", f"Job {job['name']} has not ended; cancel it first.")
    call.world.store.delete(job["id"])
    return Reply(200)


OPERATIONS = [
    Operation("GET", WORKSPACE + "/jobs", list_jobs),
    Operation("GET", _JOB, get_job),
    Operation("PUT", _JOB, put_job),
    Operation("DELETE", _JOB, delete_job),
    Operation("POST", _JOB + "/cancel", cancel_job),
    Operation("GET", LOCATION + "/jobCancellations/{operation}", cancellation),
]
