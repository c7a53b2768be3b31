"""Command jobs, environments and clusters through azure-ai-ml: bodies of ARM become its entities.

Call these inside `sdk_calls(...)`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

_MODES = {
    "ReadOnlyMount": "ro_mount",
    "ReadWriteMount": "rw_mount",
    "Download": "download",
    "Upload": "upload",
    "Direct": "direct",
    "EvalMount": "eval_mount",
    "EvalDownload": "eval_download",
}
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_UNIT_S = (86400, 3600, 60, 1)


@contextmanager
def _hushed() -> Iterator[None]:
    """What the package prints by itself goes nowhere: stdout is for data, and stderr for what we say."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def put_environment(client: Any, name: str, version: str, image: str, conda: Mapping[str, Any]) -> str:
    """Make an environment, or leave the one of that name and version as it is; returns its ARM id."""
    from azure.ai.ml.entities import Environment

    with _hushed():
        made = client.environments.create_or_update(
            Environment(name=name, version=version, image=image, conda_file=dict(conda))
        )
    return str(made.id)


def put_job(client: Any, name: str, body: Mapping[str, Any], *, code: Path | str, environment: str) -> None:
    """Make the command job `name` with the properties `body`; one that is there with the same is left alone.

    `code` is a folder, whose snapshot is sent unless the workspace has it, or the id of a snapshot;
    `environment` is an id. They stand for `codeId` and `environmentId`.
    """
    from azure.ai.ml import command

    resources, queue = body.get("resources") or {}, body.get("queueSettings") or {}
    limits, compute = body.get("limits") or {}, str(body.get("computeId") or "")
    job = command(
        name=name,
        display_name=body.get("displayName"),
        experiment_name=body.get("experimentName"),
        tags=dict(body.get("tags") or {}),
        command=body["command"],
        code=str(code),
        environment=environment,
        environment_variables=dict(body.get("environmentVariables") or {}),
        inputs={name: _input(each) for name, each in (body.get("inputs") or {}).items()},
        outputs={name: _output(each) for name, each in (body.get("outputs") or {}).items()},
        distribution=_distribution(body.get("distribution")),
        identity=_identity(body.get("identity")),
        compute=compute.rpartition("/")[2] or None,
        instance_count=resources.get("instanceCount"),
        instance_type=resources.get("instanceType"),
        shm_size=resources.get("shmSize"),
        timeout=seconds_of(limits.get("timeout")),
        job_tier=queue.get("jobTier"),
    )
    with _hushed():
        client.jobs.create_or_update(job)


def _input(each: Mapping[str, Any]) -> Any:
    from azure.ai.ml import Input

    if each["jobInputType"] == "literal":
        return each["value"]
    mode = _MODES.get(each.get("mode") or "")
    return Input(type=each["jobInputType"], path=each["uri"], mode=mode)


def _output(each: Mapping[str, Any]) -> Any:
    from azure.ai.ml import Output

    mode = _MODES.get(each.get("mode") or "")
    return Output(type=each["jobOutputType"], path=each.get("uri"), mode=mode)


def _distribution(asked: Mapping[str, Any] | None) -> Any:
    from azure.ai.ml import MpiDistribution, PyTorchDistribution

    if not asked:
        return None
    kinds = {"PyTorch": PyTorchDistribution, "Mpi": MpiDistribution}
    kind = kinds[asked["distributionType"]]
    return kind(process_count_per_instance=asked.get("processCountPerInstance"))


def _identity(asked: Mapping[str, Any] | None) -> Any:
    from azure.ai.ml.entities import (
        AmlTokenConfiguration,
        ManagedIdentityConfiguration,
        UserIdentityConfiguration,
    )

    kinds = {
        "Managed": ManagedIdentityConfiguration,
        "UserIdentity": UserIdentityConfiguration,
        "AMLToken": AmlTokenConfiguration,
    }
    return kinds[asked["identityType"]]() if asked else None


def seconds_of(duration: str | None) -> int | None:
    """Seconds in an ISO 8601 duration of whole numbers, None for none."""
    match = _DURATION.fullmatch(duration or "")
    if match is None or not duration:
        return None
    return sum(int(count or 0) * unit for count, unit in zip(match.groups(), _UNIT_S, strict=True))


def put_cluster(
    client: Any,
    name: str,
    *,
    size: str,
    most: int,
    is_low_priority: bool,
    idle_s: int,
    tags: Mapping[str, str],
) -> None:
    """Make a cluster that scales between no machine and `most`, and wait until it can be used."""
    from azure.ai.ml.entities import AmlCompute

    cluster = AmlCompute(
        name=name,
        size=size,
        min_instances=0,
        max_instances=most,
        idle_time_before_scale_down=idle_s,
        tier="low_priority" if is_low_priority else "dedicated",
        tags=dict(tags),
    )
    with _hushed():
        client.compute.begin_create_or_update(cluster).result()
