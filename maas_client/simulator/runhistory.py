"""Run history and metrics: details with signed log URLs, run data, metric definitions and values."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from maas_client.simulator.clock import timestamp
from maas_client.simulator.replies import Refusal, Reply, not_found
from maas_client.simulator.routing import WORKSPACE, Call, Operation
from maas_client.simulator.scripted import LOG
from maas_client.simulator.state import Resource
from maas_client.simulator.storage import ARTIFACT_CONTAINER
from maas_client.simulator.world import World

_HISTORY = "/history/v1.0" + WORKSPACE
_METRIC = "/metric/v2.0" + WORKSPACE + "/runs/{job}"
_MLFLOW = "/mlflow/v1.0" + WORKSPACE + "/api/2.0/mlflow/runs"


def _find(call: Call, name: str) -> tuple[Resource, dict[str, Any]]:
    job = call.world.store.get(call.child_id("jobs", name))
    if job is None:
        raise not_found(f"Run {name} was not found")
    record = call.world.runner.record(job["id"])
    call.world.runner.scripted.look(job, record)
    return job, record


def _time(record: Mapping[str, Any], key: str) -> str | None:
    return timestamp(record[key]) if record.get(key) else None


def _error(world: World, record: Mapping[str, Any]) -> dict[str, Any] | None:
    found = record.get("error")
    if not found:
        return None
    inner = {"code": found["code"], "message": found["message"], "details": [], "messageParameters": {}}
    return {"error": inner, "environment": world.names.location, "location": world.names.location}


def details(call: Call) -> Reply:
    """GET of a run with its logs: a signed URL for each file."""
    job, record = _find(call, call.params["job"])
    properties = job["properties"]
    guid = call.world.workspace_guid(job["id"])
    return Reply(
        200,
        {
            "runId": job["name"],
            "runUuid": guid,
            "parentRunUuid": None,
            "rootRunUuid": guid,
            "target": (properties.get("computeId") or "serverless").rpartition("/")[2],
            "status": properties["status"],
            "parentRunId": None,
            "dataContainerId": f"dcid.{job['name']}",
            "createdTimeUtc": _time(record, "created_at"),
            "startTimeUtc": _time(record, "started_at"),
            "endTimeUtc": _time(record, "ended_at"),
            "error": _error(call.world, record),
            "warnings": None,
            "tags": properties.get("tags") or {},
            "properties": properties.get("properties") or {},
            "parameters": {},
            "services": {},
            "inputDatasets": [],
            "outputDatasets": [],
            "runDefinition": {},
            "logFiles": _log_files(call.world, job, record),
            "jobCost": None,
            "revision": record["attempt"],
            "currentAttemptId": record["attempt"],
            "runTypeV2": None,
            "settings": {},
            "computeRequest": None,
            "compute": None,
            "createdBy": {"userName": "maas simulate"},
            "computeDuration": None,
            "submittedBy": "maas simulate",
            **_further(job, record),
        },
    )


def _further(job: Resource, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the service says besides, which nobody here needs."""
    return {
        "runNumber": 1,
        "rootRunId": job["name"],
        "userId": None,
        "lastModifiedBy": {"userName": "maas simulate"},
        "lastModifiedUtc": _time(record, "ended_at") or _time(record, "started_at"),
        "duration": _duration(record),
        "inputs": {},
        "outputs": {},
        "statusRevision": record["attempt"],
        **dict.fromkeys(("currentComputeTime", "effectiveStartTimeUtc", "lastStartTimeUtc")),
    }


def _duration(record: Mapping[str, Any]) -> str | None:
    """`00:04:42` of a run that has ended."""
    if not (record.get("started_at") and record.get("ended_at")):
        return None
    minutes, seconds = divmod(int(record["ended_at"] - record["started_at"]), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"


def _log_files(world: World, job: Resource, record: Mapping[str, Any]) -> dict[str, str]:
    if record.get("script"):
        place = f"/scripted/{quote(job['name'])}/{LOG}"
        return (
            {LOG: f"{world.base_url}{place}?sig={_signature(world, place)}"}
            if record.get("started_at")
            else {}
        )
    storage = world.storage
    return {
        name: f"{storage.endpoint}/{ARTIFACT_CONTAINER}/{quote(blob)}?{storage.sas(ARTIFACT_CONTAINER, blob)}"
        for name, blob in sorted(record["logs"].items())
    }


def _signature(world: World, place: str) -> str:
    return hmac.new(world.admin_key.encode(), place.encode(), hashlib.sha256).hexdigest()


def scripted_log(call: Call) -> Response:
    """GET of a scripted job's log by its signed URL; ranges are answered as blob storage does."""
    world = call.world
    if not hmac.compare_digest(call.query.get("sig", ""), _signature(world, call.path)):
        raise Refusal(403, "AuthenticationFailed", "The signature does not match.")
    path = f"{world.names.workspace_id}/jobs/{call.params['job']}"
    job = world.store.get(path)
    if job is None:
        raise not_found("There is no such blob.")
    record = world.runner.record(path)
    world.runner.scripted.look(job, record)
    data = world.runner.scripted.log(record)
    headers = {"Accept-Ranges": "bytes", "x-ms-blob-type": "AppendBlob"}
    asked = call.headers.get("x-ms-range") or call.headers.get("range") or ""
    if not asked.startswith("bytes="):
        return Response(data, 200, headers, "text/plain")
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) if last else len(data) - 1, len(data) - 1)
    if start >= len(data):
        raise Refusal(
            416, "InvalidRange", "The range is not satisfiable.", headers={"x-ms-error-code": "InvalidRange"}
        )
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, headers, "text/plain")


def run_data(call: Call) -> Reply:
    """POST for a run with its outputs as assets."""
    job, record = _find(call, (call.body or {}).get("runId", ""))
    shown = dict(details_of(call, job))
    shown["outputs"] = {
        name: {"assetId": asset, "type": "CustomModel" if "/models/" in asset else "UriFolder"}
        for name, asset in (record.get("assets") or {}).items()
    }
    return Reply(200, {"runMetadata": shown, "runDefinition": {}, "jobSpecification": None})


def details_of(call: Call, job: Resource) -> dict[str, Any]:
    """The details of a run without its logs."""
    params = {**call.params, "job": job["name"]}
    full: dict[str, Any] = details(Call(**{**vars(call), "params": params})).body
    return {key: value for key, value in full.items() if key != "logFiles"} | {"hidden": False}


def get_run(call: Call) -> Reply:
    """GET of a run."""
    job, _ = _find(call, call.params["job"])
    return Reply(200, details_of(call, job))


def list_metrics(call: Call) -> Reply:
    """POST for the names of the metrics of a run."""
    _, record = _find(call, call.params["job"])
    names = sorted({each["name"] for each in record["metrics"]})
    definitions = [
        {"name": name, "columns": {name: "Double"}, "properties": {"uxMetricType": "azureml.v1.scalar"}}
        for name in names
    ]
    return Reply(200, {"value": definitions, "continuationToken": None, "nextLink": None})


def full_metric(call: Call) -> Reply:
    """POST for the values of one metric, oldest first."""
    job, record = _find(call, call.params["job"])
    name = (call.body or {}).get("metricName", "")
    values = [each for each in record["metrics"] if each["name"] == name]
    if not values:
        raise not_found(f"Metric {name} was not found")
    rows = [
        {
            "metricId": f"{name}-{index}",
            "createdUtc": timestamp(each["time"]),
            "step": each["step"],
            "data": {name: each["value"]},
        }
        for index, each in enumerate(values)
    ]
    return Reply(
        200,
        {
            "dataContainerId": f"dcid.{job['name']}",
            "name": name,
            "columns": {name: "Double"},
            "properties": {"uxMetricType": "azureml.v1.scalar"},
            "namespace": None,
            "standardSchemaId": None,
            "value": rows,
            "continuationToken": None,
            "nextLink": None,
        },
    )


def log_batch(call: Call) -> Reply:
    """POST of MLflow's log-batch or log-metric: metrics that a script reports of its run."""
    body = call.body or {}
    _, record = _find(call, body.get("run_id") or body.get("run_uuid") or "")
    for each in body.get("metrics", [body] if "key" in body else []):
        moment = float(each.get("timestamp", 0)) / 1000
        row = {
            "name": each["key"],
            "step": int(each.get("step", 0)),
            "value": float(each["value"]),
            "time": moment,
        }
        record["metrics"].append(row)
    return Reply(200, {})


OPERATIONS = [
    Operation("GET", _HISTORY + "/runs/{job}/details", details),
    Operation("GET", _HISTORY + "/runs/{job}", get_run),
    Operation("POST", _HISTORY + "/rundata", run_data),
    Operation("POST", _METRIC + "/list", list_metrics),
    Operation("POST", _METRIC + "/full", full_metric),
    Operation("POST", _METRIC + "/sample", full_metric),
    Operation("POST", _MLFLOW + "/log-batch", log_batch),
    Operation("POST", _MLFLOW + "/log-metric", log_batch),
    Operation("GET", "/scripted/{job}/user_logs/std_log.txt", scripted_log),
]
