"""Fine-tuning jobs of the Foundry resource: made, listed by page, canceled, paused, resumed."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from maas_client import catalog
from maas_client.simulator.foundry import operations, page, refusal
from maas_client.simulator.openai_files import find_file
from maas_client.simulator.openai_training import FINAL, add_event
from maas_client.simulator.replies import Refusal, Reply
from maas_client.simulator.routing import Call
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

ROUTE = "foundry-openai-v1"
MOST_QUEUED = 20
MOST_JOBS = 100
TRAINING_TYPES = {
    "standard": "standard",
    "globalstandard": "globalStandard",
    "developertier": "developerTier",
}
_SUFFIX = re.compile(r"[A-Za-z0-9_-]{1,40}")
_PAGE, _CHECKPOINT_PAGE = 20, 10
_METHODS = ("supervised", "dpo")


def create_job(call: Call) -> Reply:
    """POST of a job: 201 and pending. The same request again makes another job: it has no key."""
    body = call.body if isinstance(call.body, dict) else {}
    model, route = _model(call.world, body)
    kind = _training_type(body, route, call.world)
    method = _method(body)
    for key in ("training_file", "validation_file"):
        if body.get(key):
            _check_file(call.world, key, str(body[key]))
    _check_words(body)
    _check_limits(call.world)
    job = _pending_job(body, model, method, kind, int(call.world.clock.now()))
    call.world.store.put(f"{_collection(call.world)}/{job['id']}", job)
    add_event(call.world, call.world.tuner.record(job), "Job enqueued. Waiting for jobs ahead to complete.")
    shown = shown_job(call.world, job)
    call.world.tuner.start(job)
    return Reply(201, shown, {"Location": f"{call.world.base_url}{call.path}/{job['id']}"})


def _pending_job(
    body: Mapping[str, Any], model: str, method: dict[str, Any], kind: str, now: int
) -> dict[str, Any]:
    chosen = dict((method.get(method["type"]) or {}).get("hyperparameters") or {})
    chosen = {"n_epochs": -1, "batch_size": -1, "learning_rate_multiplier": 1, **chosen}
    told = {"validation_file": "validation_file", "metadata": "metadata", "suffix": "user_provided_suffix"}
    return {
        "hyperparameters": {key: value for key, value in chosen.items() if key != "beta"},
        "seed": body.get("seed") or random.randrange(1, 1 << 31),
        "method": method,
        "trainingType": kind,
        "status": "pending",
        "model": model,
        "training_file": body["training_file"],
        "estimated_finish": now + 900,
        "id": f"ftjob-{uuid.uuid4().hex}",
        "created_at": now,
        "object": "fine_tuning.job",
        **{shown: body[key] for key, shown in told.items() if body.get(key)},
    }


def _model(world: World, body: Mapping[str, Any]) -> tuple[str, catalog.Route]:
    """The base model and what the catalog knows of this way to tune it. Raises Refusal."""
    name = str(body.get("model") or "")
    if not name or not body.get("training_file"):
        raise refusal(400, "invalidPayload", "The properties model and training_file are required.")
    known = catalog.lookup(name)
    route = known.route(ROUTE) if known else None
    on = datetime.fromtimestamp(world.clock.now(), UTC).date()
    if route is None or route.access_on(on) not in {"open", "existing-customers"}:
        raise _unsupported()
    return name, route


def _unsupported() -> Refusal:
    """What the service says for nearly everything that is wrong with a model."""
    return refusal(400, "invalidPayload", "The specified base model does not support fine-tuning.")


def _training_type(body: Mapping[str, Any], route: catalog.Route, world: World) -> str:
    asked = str(body.get("trainingType") or "standard").lower()
    if asked not in TRAINING_TYPES:
        raise refusal(400, "invalidPayload", f"The training type '{body['trainingType']}' is not known.")
    kind = TRAINING_TYPES[asked]
    if kind not in route.training_types or (kind == "standard" and not route.serves(world.names.location)):
        raise _unsupported()
    return kind


def _method(body: Mapping[str, Any]) -> dict[str, Any]:
    method = body.get("method") or {}
    kind = method.get("type") or "supervised"
    if kind not in _METHODS:
        raise refusal(400, "invalidPayload", f"The simulator does not tune by the method '{kind}'.")
    chosen = (method.get(kind) or {}).get("hyperparameters") or body.get("hyperparameters") or {}
    for name, value in chosen.items():
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise refusal(400, "invalidPayload", f"The hyperparameter {name} must be a number or 'auto'.")
    return {"type": kind, kind: {"hyperparameters": dict(chosen)}}


def _check_file(world: World, key: str, identity: str) -> None:
    try:
        file = find_file(world, identity)
    except Refusal:
        raise refusal(400, "invalidPayload", f"The {key} '{identity}' was not found.") from None
    if file["status"] == "error":
        raise refusal(400, "jsonlValidationFailed", file["status_details"])
    if file["status"] != "processed":
        words = f"The {key} '{identity}' is not ready: its status is {file['status']}."
        raise refusal(400, "invalidPayload", words)


def _check_words(body: Mapping[str, Any]) -> None:
    suffix, metadata = body.get("suffix"), body.get("metadata") or {}
    if suffix and not _SUFFIX.fullmatch(suffix):
        raise refusal(400, "invalidPayload", "The suffix has at most 40 of a-z, A-Z, 0-9, - and _.")
    if len(metadata) > 16 or any(len(str(k)) > 64 or len(str(v)) > 512 for k, v in metadata.items()):
        raise refusal(
            400, "invalidPayload", "The metadata has at most 16 keys of 64 and values of 512 characters."
        )


def _check_limits(world: World) -> None:
    jobs = world.store.members(_collection(world))
    waiting = [job for job in jobs if job["status"] == "pending"]
    if len(waiting) >= MOST_QUEUED or world.faults.take("quota", "POST /openai/v1/fine_tuning/jobs"):
        words = f"The resource has {len(waiting)} jobs in its queue; at most {MOST_QUEUED} may wait."
        raise refusal(429, "quotaExceeded", words)
    if len(jobs) >= MOST_JOBS:
        raise refusal(400, "quotaExceeded", f"The resource holds {MOST_JOBS} fine-tuning jobs already.")


def shown_job(world: World, job: Resource) -> Resource:
    """The job as it is answered; a fault may put another status word there for a while."""
    record = world.tuner.record(job)
    if record.get("word") and world.clock.now() < record["word_until"]:
        return {**job, "status": record["word"]}
    if fault := world.faults.take("job_status", f"{job['id']} {job.get('user_provided_suffix') or ''}"):
        record |= {"word": str(fault["word"]), "word_until": world.clock.now() + float(fault["seconds"])}
        return {**job, "status": record["word"]}
    return dict(job)


def find_job(world: World, identity: str) -> Resource:
    """The job of this id. Raises Refusal 404."""
    found = world.store.get(f"{_collection(world)}/{identity}")
    if found is None:
        raise refusal(404, "notFound", f"The fine-tuning job '{identity}' was not found.")
    return found


def get_job(call: Call) -> Reply:
    """GET of a job."""
    return Reply(200, shown_job(call.world, find_job(call.world, call.params["job"])))


def list_jobs(call: Call) -> Reply:
    """GET of the jobs, newest first."""
    jobs = [shown_job(call.world, each) for each in call.world.store.members(_collection(call.world))]
    return page(call, jobs[::-1], size=_PAGE)


def list_events(call: Call) -> Reply:
    """GET of what a job told, oldest first as in the published example."""
    record = call.world.tuner.record(find_job(call.world, call.params["job"]))
    return page(call, record["events"], size=_PAGE)


def list_checkpoints(call: Call) -> Reply:
    """GET of the models that a job kept on its way."""
    record = call.world.tuner.record(find_job(call.world, call.params["job"]))
    return page(call, record["checkpoints"], size=_CHECKPOINT_PAGE)


def cancel_job(call: Call) -> Reply:
    """POST to cancel: what waits is canceled at once, what runs soon."""
    job = find_job(call.world, call.params["job"])
    if job["status"] in FINAL:
        raise _wrong_state(job, "cancelled")
    if job["status"] == "paused":
        job |= {"status": "cancelled", "finished_at": int(call.world.clock.now())}
    else:
        call.world.tuner.stop_job(job, "cancelled")
    return Reply(200, dict(job))


def pause_job(call: Call) -> Reply:
    """POST to pause a job that runs: it keeps a checkpoint."""
    job = find_job(call.world, call.params["job"])
    if job["status"] != "running":
        raise _wrong_state(job, "paused")
    call.world.tuner.stop_job(job, "paused")
    return Reply(200, dict(job))


def resume_job(call: Call) -> Reply:
    """POST to go on with a paused job."""
    job = find_job(call.world, call.params["job"])
    if job["status"] != "paused":
        raise _wrong_state(job, "resumed")
    job["status"] = "resuming"
    shown = dict(job)
    call.world.tuner.start(job)
    return Reply(200, shown)


def _wrong_state(job: Resource, wish: str) -> Refusal:
    words = f"The job '{job['id']}' is {job['status']} and cannot be {wish}."
    return refusal(409, "unexpectedEntityState", words)


def _collection(world: World) -> str:
    return f"{world.names.foundry_id}/openai-jobs"


_JOBS = "/fine_tuning/jobs"
OPERATIONS = [
    *operations("POST", _JOBS, create_job),
    *operations("GET", _JOBS, list_jobs),
    *operations("GET", f"{_JOBS}/{{job}}", get_job),
    *operations("GET", f"{_JOBS}/{{job}}/events", list_events),
    *operations("GET", f"{_JOBS}/{{job}}/checkpoints", list_checkpoints),
    *operations("POST", f"{_JOBS}/{{job}}/cancel", cancel_job),
    *operations("POST", f"{_JOBS}/{{job}}/pause", pause_job),
    *operations("POST", f"{_JOBS}/{{job}}/resume", resume_job),
]
