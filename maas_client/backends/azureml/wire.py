"""Azure ML's words: names, tags and places of runs, the body of their job, and events among log lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.command import CommandJob, Input, JsonFile
from maas_client.run import Event
from maas_client.spec import duration_s
from maas_client.transport.members import mapping_at, member
from maas_client.workspace.datastores import DEFAULT, Place
from maas_client.workspace.jobs import RUN_TAG as TAG_RUN

if TYPE_CHECKING:
    from maas_client.plan import Plan

TAG_JOB, TAG_FINGERPRINT = "maas-job", "maas-fingerprint"
CODE = "codeId"
"""Where the body of a plan holds a sentence instead of an id: the service names the snapshot."""
_EVENT_MARK = "@maas "
_EVENTS = {"MAAS_EVENTS": "stdout", "PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_IDENTITIES = {"managed": "Managed", "user": "UserIdentity"}
_MOUNT, _DOWNLOAD = "ReadOnlyMount", "Download"
_SMALL_BYTES = 64 << 20
"""Files up to this size are copied to the machine before the command starts; larger ones are mounted."""


def run_place(run_id: str) -> Place:
    """The folder in the workspace's storage that every attempt of a run fills."""
    return Place(DEFAULT, f"maas/{run_id}/run/")


def input_place(name: str, source: Path | JsonFile, digest: str) -> Place:
    """Where an input lies in the workspace's storage, by `sha256:<hex>` of its content; folders end in /."""
    folder = f"maas/inputs/{digest.removeprefix('sha256:')}/"
    if isinstance(source, JsonFile):
        return Place(DEFAULT, f"{folder}{name}.json")
    return Place(DEFAULT, folder if source.is_dir() else f"{folder}{name}{source.suffix}")


def attempt_name(run_id: str, number: int) -> str:
    """The job of an attempt; attempts count from 1, and the first has the run's own name."""
    return run_id if number == 1 else f"{run_id}-r{number}"


def tags_of(plan: Plan) -> dict[str, str]:
    """What maas writes on the jobs of a run, to know them again."""
    return {TAG_RUN: plan.run_id, TAG_JOB: plan.spec.name, TAG_FINGERPRINT: plan.fingerprint}


def is_of_run(body: Mapping[str, Any], run_id: str) -> bool:
    """Whether a job was made by maas for this run."""
    return _tags(body).get(TAG_RUN) == run_id


def is_of_plan(body: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a job was made for this plan."""
    return _tags(body).get(TAG_FINGERPRINT) == plan.fingerprint


def run_of(body: Mapping[str, Any]) -> str:
    """The run that a job belongs to, "" where maas did not make it."""
    return str(_tags(body).get(TAG_RUN, ""))


def _tags(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping_at(body, "properties", "tags")


def job_body(plan: Plan, *, environment_id: str, workspace_path: str) -> dict[str, Any]:
    """The properties of the job that a plan's submission makes, as Azure Resource Manager takes them.

    `codeId` is a sentence about the folder: the snapshot's id is known only when it has been sent.
    """
    spec, job, compute = plan.spec, plan.job, plan.spec.compute
    processes, instances = shape_of(plan)
    body: dict[str, Any] = {
        "jobType": "Command",
        "displayName": spec.name,
        "experimentName": spec.name,
        "tags": tags_of(plan),
        "command": job.command,
        CODE: f"snapshot of {job.code}",
        "environmentId": environment_id,
        "environmentVariables": _variables(job),
        "inputs": {name: _input(name, source, plan.hashes) for name, source in job.inputs.items()},
        "outputs": {name: _output(plan, name) for name in job.outputs},
        "resources": {"instanceCount": instances, "shmSize": compute.shared_memory},
    }
    if compute.name:
        body["computeId"] = f"{workspace_path}/computes/{compute.name}"
    else:
        body["resources"]["instanceType"] = compute.size
        if compute.priority == "low":
            body["queueSettings"] = {"jobTier": "Spot"}
    if processes * instances > 1:
        body["distribution"] = {"distributionType": "PyTorch", "processCountPerInstance": processes}
    if compute.timeout:
        body["limits"] = {"jobLimitsType": "Command", "timeout": iso_duration(duration_s(compute.timeout))}
    if compute.identity in _IDENTITIES:
        body["identity"] = {"identityType": _IDENTITIES[compute.identity]}
    return body


def shape_of(plan: Plan) -> tuple[int, int]:
    """(processes on each machine, machines): as the job file says for a training, one for anything else."""
    if "train" not in plan.job.inputs:
        return 1, 1
    return plan.spec.distributed.processes, plan.spec.compute.instances


def _variables(job: CommandJob) -> dict[str, str]:
    needs_hub = any(isinstance(job.inputs.get(name), str) for name in ("model", "base"))
    return {**_EVENTS, **({} if needs_hub else {"HF_HUB_OFFLINE": "1"})}


def _input(name: str, source: Input, hashes: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(source, JsonFile):
        return _file(str(input_place(name, source, hashes[name])), _DOWNLOAD)
    if isinstance(source, Path):
        uri = str(input_place(name, source, hashes[name]))
        if source.is_dir():
            return {"jobInputType": "uri_folder", "mode": _MOUNT, "uri": uri}
        return _file(uri, _DOWNLOAD if source.stat().st_size <= _SMALL_BYTES else _MOUNT)
    if isinstance(source, str):
        return {"jobInputType": "literal", "value": source}
    return {"jobInputType": "uri_folder", "mode": _MOUNT, "uri": str(source)}


def _file(uri: str, mode: str) -> dict[str, Any]:
    return {"jobInputType": "uri_file", "mode": mode, "uri": uri}


def _output(plan: Plan, name: str) -> dict[str, Any]:
    """An output that is mounted from the first moment: attempts and preempted machines find checkpoints."""
    place = run_place(plan.run_id) if name == "run" else Place(DEFAULT, f"maas/{plan.run_id}/{name}/")
    return {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": str(place)}


def iso_duration(seconds: int) -> str:
    """Seconds as ISO 8601 writes them: 5400 is PT1H30M."""
    days, rest = divmod(seconds, 86400)
    parts = [(rest // 3600, "H"), (rest % 3600 // 60, "M"), (rest % 60, "S")]
    time = "".join(f"{count}{unit}" for count, unit in parts if count)
    return f"P{f'{days}D' if days else ''}{f'T{time}' if time else ''}"


_ASKED = (
    *("jobType", "displayName", "experimentName", "tags", "command", "codeId", "computeId", "environmentId"),
    *("environmentVariables", "inputs", "outputs", "distribution", "resources", "limits", "identity"),
    "queueSettings",
)


def body_again(body: Mapping[str, Any]) -> dict[str, Any]:
    """The properties to ask for another attempt with: those of a job, without what the service added."""
    properties = mapping_at(body, "properties")
    asked = {key: found for key in _ASKED if (found := member(properties, key))}
    asked["outputs"] = {
        name: each for name, each in mapping_at(properties, "outputs").items() if name != "default"
    }
    return asked


def split_line(line: str) -> tuple[str, Event | None]:
    """A log line as text and the event that it carries: ("", event), (text, None), or both where they met."""
    text, mark, rest = line.partition(_EVENT_MARK)
    if not mark:
        return line, None
    try:
        event = json.loads(rest)
    except ValueError:
        return line, None
    return (text, event) if isinstance(event, dict) and "event" in event else (line, None)


def log_lines(lines: Iterable[str]) -> tuple[str, ...]:
    """The lines for people among the lines of a log."""
    split = map(split_line, lines)
    return tuple(text for text, event in split if text or event is None)


def events_in(lines: Iterable[str]) -> tuple[Event, ...]:
    """The events among the lines of a log."""
    return tuple(event for _, event in map(split_line, lines) if event is not None)
