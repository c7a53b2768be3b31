"""A run's folder, made from its plan: code as it was, data as it was planned, and the words to start."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from maas_client.backends.local.folders import copy_file, publish, staging
from maas_client.backends.local.wire import JOB, LAUNCH, LOG, Launch, write_json
from maas_client.command import CommandJob, JsonFile, bind
from maas_client.errors import PlanError
from maas_client.plan import NOT_CODE, Plan, folder_hash


def prepare(plan: Plan, folder: Path, *, grace_s: float) -> None:
    """Make the run's folder; it appears whole. One that is there already is left alone.

    Raises OSError, and PlanError when code or data changed since the plan was made.
    """
    with staging(folder.parent) as staged:
        _copy_code(plan, staged / "code")
        inputs = _place_inputs(plan, staged, folder)
        outputs = {name: str(folder / "outputs" / name) for name in plan.job.outputs}
        for name in plan.job.outputs:
            (staged / "outputs" / name).mkdir(parents=True)
        (staged / LOG).parent.mkdir()
        launch = Launch(
            argv=_words(plan.job, inputs, outputs),
            cwd=str(folder / "code"),
            log=LOG,
            environment=_environment(plan),
            grace_s=grace_s,
        )
        launch.write(staged / LAUNCH)
        write_json(staged / JOB, {**plan.to_dict(), **_about(plan), "places": {**inputs, **outputs}})
        publish(staged, folder)


def _about(plan: Plan) -> dict[str, object]:
    return {"spec": plan.spec.model_dump(mode="json", by_alias=True), "created_at": time.time()}


def _copy_code(plan: Plan, target: Path) -> None:
    shutil.copytree(plan.job.code, target, ignore=shutil.ignore_patterns(*NOT_CODE))
    _require_same("code", plan.job.code, plan.hashes.get("code"), folder_hash(target))


def _place_inputs(plan: Plan, staged: Path, folder: Path) -> dict[str, str]:
    """Put files into inputs/ and return where each input will lie once the folder is in its place."""
    places = {}
    (staged / "inputs").mkdir()
    for name, source in plan.job.inputs.items():
        if isinstance(source, JsonFile):
            write_json(staged / "inputs" / f"{name}.json", source.value)
            places[name] = str(folder / "inputs" / f"{name}.json")
        elif not isinstance(source, Path):
            places[name] = str(source)
        elif source.is_dir():
            places[name] = str(source.absolute())
        else:
            file = Path("inputs") / f"{name}{source.suffix}"
            _require_same(name, source, plan.hashes.get(name), copy_file(source, staged / file))
            places[name] = str(folder / file)
    return places


def _require_same(name: str, source: Path, planned: str | None, found: str) -> None:
    if planned != found:
        hint = "Give the command again to plan with what is there now."
        raise PlanError(f"{source} ({name}) changed since the plan was made.", hint=hint)


def _words(job: CommandJob, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> list[str]:
    words = bind(job, inputs, outputs)
    return [sys.executable if words[0] == "python" else words[0], *words[1:]]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _environment(plan: Plan) -> dict[str, str]:
    """What the command's environment has more than ours."""
    threads = max(1, cores() // plan.spec.distributed.processes)
    added = {"PYTHONUNBUFFERED": "1"}
    if "OMP_NUM_THREADS" not in os.environ:
        added["OMP_NUM_THREADS"] = str(threads)
    if not any(isinstance(plan.job.inputs.get(name), str) for name in ("model", "base")):
        added["HF_HUB_OFFLINE"] = "1"
    return added
