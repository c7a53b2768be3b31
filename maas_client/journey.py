"""The whole way of one job: submit, follow, measure, register, deploy, ask.

Each step finds what an earlier, interrupted journey left: the same plan is the same run, the same run is the
same version, the same deployment is the same endpoint. So the same command again goes on where the last one
stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maas_client.errors import RunCanceledError, RunFailedError, StillRunningError
from maas_client.following import wait_until_ready
from maas_client.run import RunState, RunStatus

if TYPE_CHECKING:
    from maas_client.chat import Answer
    from maas_client.endpoint import EndpointStatus
    from maas_client.ledger import RunRecord
    from maas_client.model import RegisteredModel
    from maas_client.plan import Plan
    from maas_client.project import Project
    from maas_client.run import Artifact

Follow = Callable[["Project", "RunRecord"], RunStatus]
"""Watches a run to its end and returns the last look."""


@dataclass(frozen=True)
class Journey:
    """What came of a job. `model`, `endpoint` and `answer` are None where the job file did not ask for them.

    `sample` is the held-out row that the endpoint was asked: prompt, expected, before, after.
    """

    run: RunRecord
    result: Mapping[str, Any]
    model: RegisteredModel | None = None
    endpoint: EndpointStatus | None = None
    sample: Mapping[str, Any] | None = None
    answer: Answer | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "run": self.run.to_dict(),
            "result": dict(self.result),
            "model": self.model.to_dict() if self.model else None,
            "endpoint": self.endpoint.to_dict() if self.endpoint else None,
            "question": self.sample["prompt"] if self.sample else None,
            "expected": self.sample["expected"] if self.sample else None,
            "answer": self.answer.text if self.answer else None,
        }


def travel(project: Project, plan: Plan, *, follow: Follow, again: bool = False) -> Journey:
    """Go the whole way. Raises RunFailedError, RunCanceledError, or the error of the step that failed."""
    record = project.submit(plan, again=again)
    require_success(record, follow(project, record))
    record = project.find(record.id)
    artifact = project.artifact(record)
    journey = Journey(record, artifact.result)
    if plan.spec.register_as is None:
        return journey
    model = project.register(record, plan.spec.register_as.name)
    if plan.spec.deploy is None:
        return Journey(record, artifact.result, model)
    endpoint = project.deploy(model, plan.spec.deploy, backend=plan.backend)
    endpoint = wait_until_ready(project.serving(plan.backend), endpoint.ref)
    sample = first_sample(artifact)
    answer = _ask(project, endpoint, str(sample["prompt"])) if sample else None
    return Journey(record, artifact.result, model, endpoint, sample, answer)


def require_success(record: RunRecord, status: RunStatus) -> None:
    """Raise the error that fits a run that has not succeeded, with its own last words."""
    if status.state is RunState.SUCCEEDED:
        return
    if status.state is RunState.CANCELED:
        raise RunCanceledError(
            f"Run {record.id} was canceled.", hint=f"Go on from its checkpoint: maas runs resume {record.id}"
        )
    if status.state is RunState.FAILED:
        words = status.message or status.native_state
        raise RunFailedError(f"Run {record.id} failed: {words}", hint=f"See why: maas runs logs {record.id}")
    raise StillRunningError(f"Run {record.id} is {status.state}.", hint=f"Watch it: maas watch {record.id}")


def first_sample(artifact: Artifact) -> Mapping[str, Any] | None:
    """The first held-out row that the run kept with its answers before and after, if it kept any."""
    path = artifact.folder / "samples.jsonl"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return dict(json.loads(line)) if line.strip() else None


def _ask(project: Project, endpoint: EndpointStatus, question: str) -> Answer:
    from maas_client.chat import open_chat

    access = project.endpoint_access(endpoint.ref.name)
    chat = open_chat(access.url, access.key, access.model, speaks=access.speaks)
    return chat.complete([{"role": "user", "content": question}], max_tokens=64)
