"""The journeys that are on record: each a function of a scene, the same when it is recorded and played."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maas_client.backend import Platform
from maas_client.chat import open_chat
from maas_client.command import CommandJob, JsonFile
from maas_client.endpoint import EndpointState, EndpointStatus
from maas_client.following import follow, wait_until_ready
from maas_client.ledger import RunRecord
from maas_client.model import RegisteredModel
from maas_client.plan import Plan
from maas_client.project import Project
from maas_client.run import Event, Reason, RunState, RunStatus
from maas_client.simulator.world import Timing
from maas_client.spec import JobSpec
from tests.recordings.scenes import Scene

SCRIPTS = Path(__file__).parent / "scripts"
SIZE = "Standard_DS3_v2"
COMMAND = "python train.py --config ${{inputs.config}} --train ${{inputs.train}} --output ${{outputs.run}}"


@dataclass(frozen=True)
class Stage:
    """A platform, a project that knows it, and a plan: all that is there before anything is asked."""

    scene: Scene
    platform: Platform
    project: Project
    plan: Plan


@dataclass(frozen=True)
class Journey:
    """`prepare` sends nothing; `go` asks. `simulator` are options of the simulator in which it is recorded,
    `faults` are ordered there. `is_live`: a real subscription can take it, too.
    """

    prepare: Callable[[Scene], Stage]
    go: Callable[[Stage], None]
    simulator: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Mapping[str, Any], ...] = ()
    pace: float = 0.1
    is_live: bool = True


# -- what the journeys share


def watch(stage: Stage, record: RunRecord) -> tuple[RunStatus, list[str], list[Event]]:
    """Follow a run to its end."""
    lines: list[str] = []
    events: list[Event] = []
    clock, jobs = stage.scene.clock, stage.platform.jobs
    for sight in follow(jobs, record.ref, sleep=clock.sleep, clock=clock.now):
        lines += sight.lines
        events += sight.events
    return sight.status, lines, events


def deploy(stage: Stage, model: RegisteredModel) -> EndpointStatus:
    """Deploy as the job file says, and wait until it answers."""
    spec, serving, clock = stage.plan.spec.deploy, stage.platform.endpoints, stage.scene.clock
    assert spec is not None
    assert serving is not None
    begun = stage.project.deploy(model, spec, backend=stage.plan.backend)
    return wait_until_ready(
        serving,
        begun.ref,
        go_on=lambda: serving.deploy(model.ref, spec),
        model=str(model.ref),
        timeout_s=3600,
        poll_s=5,
        sleep=clock.sleep,
        clock=clock.now,
    )


def ask(stage: Stage, endpoint: EndpointStatus) -> str:
    """What the endpoint says."""
    access = stage.project.endpoint_access(str(endpoint.ref))
    chat = open_chat(access.url, access.key, access.model, speaks=access.speaks)
    return chat.complete([{"role": "user", "content": "My card is late"}], max_tokens=8).text


def all_the_way(stage: Stage) -> tuple[list[str], list[Event]]:
    """Check, submit, watch, look at what it left, register, deploy, ask, delete."""
    project = stage.project
    checks = project.preflight(stage.plan)
    assert not [check for check in checks if check.ok is False], checks
    record = project.submit(stage.plan, checked=True)
    status, lines, events = watch(stage, record)
    assert status.state is RunState.SUCCEEDED, status
    assert project.artifact(record).result
    model = project.register(record)
    assert project.models() == (model,)
    endpoint = deploy(stage, model)
    assert endpoint.state is EndpointState.READY
    assert ask(stage, endpoint)
    (listed,) = project.endpoints()
    assert (listed.ref, listed.model) == (endpoint.ref, str(model.ref))
    project.delete_endpoint(str(endpoint.ref))
    return lines, events


# -- azureml


def prepare_azureml(scene: Scene) -> Stage:
    """A command job of a tiny script on one small machine, and an endpoint."""
    endpoint = {"name": "recorded-end", "size": SIZE, "ttl": "2h"}
    return azureml_stage(scene, "train.py", register={"name": "recorded"}, deploy=endpoint)


def prepare_on_a_cluster(scene: Scene) -> Stage:
    """A command job that will be stopped, on a cluster that is not there yet."""
    return azureml_stage(scene, "interrupted.py", compute={"name": "recorded", "size": SIZE})


def azureml_stage(scene: Scene, script: str, **parts: Any) -> Stage:
    """A workspace, and the plan of a job that runs a script of ours."""
    rows = [{"text": f"My card is late {number}", "label": "ab"[number % 2]} for number in range(8)]
    train = scene.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    code = scene.write("code/train.py", (SCRIPTS / script).read_text(encoding="utf-8")).parent
    scoring = scene.write("scoring/score.py", (SCRIPTS / "score.py").read_text(encoding="utf-8")).parent
    spec = JobSpec.model_validate(
        {
            "name": "recorded",
            "task": "classification",
            "model": "tiny-phi3",
            "method": {"name": "full"},
            "backend": "azureml",
            "data": {"train": str(train)},
            "compute": {"size": SIZE},
            **parts,
        }
    )
    platform = scene.azureml(scoring)
    inputs = {"config": JsonFile({"recorded": True}), "train": train}  # no model: weights stay out of it
    plan = platform.jobs.plan(spec, CommandJob(COMMAND, code, inputs, ("run",)))
    return Stage(scene, platform, scene.project(platform), plan)


def go_azureml(stage: Stage) -> None:
    """The whole way on a workspace."""
    lines, events = all_the_way(stage)
    assert [line for line in lines if line.startswith("line ")] == ["line 1", "line 2", "line 3"]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3]


def go_with_a_second_attempt(stage: Stage) -> None:
    """Stopped once its checkpoint is kept, then taken up again: another job, the same run."""
    project, jobs, clock = stage.project, stage.platform.jobs, stage.scene.clock
    record = project.submit(stage.plan, checked=True)
    page = jobs.logs(record.ref, after=None)
    while "checkpoint kept" not in page.lines:
        clock.sleep(5)
        page = jobs.logs(record.ref, after=page.next)
    project.cancel(record)
    while project.look(record).state is not RunState.CANCELED:
        clock.sleep(5)
    project.resume(record)
    status, lines, _ = watch(stage, record)
    assert status.state is RunState.SUCCEEDED, status
    assert lines.index("checkpoint kept") < lines.index("--- attempt 2 ---")
    assert lines.index("--- attempt 2 ---") < lines.index("going on from step 1")
    assert project.artifact(record).result == {"adapter": False, "steps": 2}
    assert [each.id for each in project.runs()] == [record.id]


def go_without_quota(stage: Stage) -> None:
    """The check finds that there are no cores; whoever submits all the same gets a run that says so."""
    found = [check for check in stage.platform.jobs.check(stage.plan) if check.ok is False]
    assert [check.name for check in found] == [
        f"Quota for {what} {SIZE}" for what in ("dedicated", "endpoint")
    ]
    record = stage.project.submit(stage.plan, checked=True)
    status, _, _ = watch(stage, record)
    assert (status.state, status.reason) == (RunState.FAILED, Reason.QUOTA), status


# -- foundry


def chat_rows(count: int = 20) -> str:
    """Rows as a service takes them."""
    return "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"What is {number}?"},
                    {"role": "assistant", "content": f"A number: {number}."},
                ]
            }
        )
        + "\n"
        for number in range(count)
    )


def foundry_spec(scene: Scene, model: str, route: str) -> JobSpec:
    """A job for a service that trains by itself."""
    train = scene.write("rows.jsonl", chat_rows())
    return JobSpec.model_validate(
        {
            "name": "recorded",
            "task": "chat",
            "model": model,
            "backend": "foundry",
            "foundry": {"route": route},
            "data": {"train": str(train)},
            "training": {"epochs": 1},
            "register": {"name": "recorded"},
            "deploy": {"name": "recorded-end", "ttl": "2h"},
        }
    )


def prepare_classic(scene: Scene) -> Stage:
    """A FineTuning job of Phi-4-mini-instruct."""
    platform = scene.classic()
    plan = platform.jobs.plan(foundry_spec(scene, "Phi-4-mini-instruct", "classic"))
    return Stage(scene, platform, scene.project(platform), plan)


def prepare_openai(scene: Scene) -> Stage:
    """A fine-tuning job of gpt-oss-20b."""
    platform = scene.openai()
    plan = platform.jobs.plan(foundry_spec(scene, "gpt-oss-20b", "openai"))
    return Stage(scene, platform, scene.project(platform), plan)


def go_foundry(stage: Stage) -> None:
    """The whole way on a service that trains by itself."""
    lines, events = all_the_way(stage)
    assert lines
    assert [event for event in events if event["event"] == "step"]


def go_through_trouble(stage: Stage) -> None:
    """A service that is overloaded, and the answer to the one request that must not be sent twice is lost."""
    record = stage.project.submit(stage.plan, checked=True)
    status, _, events = watch(stage, record)
    assert status.state is RunState.SUCCEEDED, status
    assert [event for event in events if event["event"] == "step"]


PRETENDING = {"timing": Timing(tuning_steps=0)}
REALLY = {"timing": Timing(tuning_steps=2)}
"""Of a training that only pretends no model is left that could answer."""
JOURNEYS: Mapping[str, Journey] = {
    "azureml": Journey(prepare_azureml, go_azureml, pace=0.25),
    "classic": Journey(prepare_classic, go_foundry, REALLY, pace=1.0),
    "openai_v1": Journey(prepare_openai, go_foundry, REALLY, pace=1.0),
    "second_attempt": Journey(prepare_on_a_cluster, go_with_a_second_attempt, pace=0.25),
    "no_quota": Journey(
        prepare_azureml, go_without_quota, {"quota": {"standardDSv2Family": 0}}, is_live=False
    ),
    "trouble": Journey(
        prepare_openai,
        go_through_trouble,
        PRETENDING,
        faults=(
            {"kind": "lost_reply", "match": "POST /openai/v1/fine_tuning/jobs$", "times": 1},
            {
                "kind": "status",
                "status": 429,
                "retry_after": 7,
                "match": "GET /openai/v1/fine_tuning/jobs",
                "after": 3,
                "times": 2,
            },
        ),
        is_live=False,
    ),
}
