"""The whole way of one job: submit, follow, measure, register, deploy, ask.

Each step finds what an earlier, interrupted journey left: the same plan is the same run, the same run is the
same version, the same deployment is the same endpoint. So the same command again goes on where the last one
stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maas_client.endpoint import Billing
from maas_client.errors import RunCanceledError, RunFailedError, StillRunningError
from maas_client.following import wait_until_ready
from maas_client.question import first_sample, held_out_question
from maas_client.run import RunState, RunStatus

if TYPE_CHECKING:
    from maas_client.chat import Answer
    from maas_client.endpoint import EndpointStatus
    from maas_client.ledger import RunRecord
    from maas_client.model import RegisteredModel
    from maas_client.plan import Plan
    from maas_client.project import Project
    from maas_client.spec import DeploySpec

LOCAL_TIMEOUT_S, LOCAL_POLL_S = 120.0, 0.2
SERVICE_TIMEOUT_S, SERVICE_POLL_S = 3600.0, 5.0
_BY_HAND = "; then run the same deploy again"
"""What an endpoint says to those who do not wait for it."""
Follow = Callable[["Project", "RunRecord"], RunStatus]
"""Watches a run to its end and returns the last look."""
Tell = Callable[[str], None]
"""Is told a sentence for a person."""


def silent(_: str) -> None:
    """Tell nobody."""


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
            "expected": self.sample.get("expected") if self.sample else None,
            "answer": self.answer.text if self.answer else None,
        }


def travel(
    project: Project,
    plan: Plan,
    *,
    follow: Follow,
    again: bool = False,
    checked: bool = False,
    tell: Tell = silent,
) -> Journey:
    """Go the whole way. Raises RunFailedError, RunCanceledError, or the error of the step that failed.

    `checked`: the plan's preflight was done already. `tell` is told what is waited for.
    """
    record = project.submit(plan, again=again, checked=checked)
    require_success(record, follow(project, record))
    record = project.find(record.id)
    artifact = project.artifact(record)
    journey = Journey(record, artifact.result)
    if plan.spec.register_as is None:
        return journey
    model = project.register(record, plan.spec.register_as.name)
    if plan.spec.deploy is None:
        return Journey(record, artifact.result, model)
    endpoint = deploy_and_wait(project, model, plan.spec.deploy, backend=plan.backend, tell=tell)
    sample = first_sample(artifact) or held_out_question(plan.spec)
    answer = _ask(project, endpoint, sample) if sample else None
    return Journey(record, artifact.result, model, endpoint, sample, answer)


def deploy_and_wait(
    project: Project, model: RegisteredModel, spec: DeploySpec, *, backend: str, tell: Tell = silent
) -> EndpointStatus:
    """Deploy a model and return when it answers, after at most two minutes here and an hour at a service.

    `tell` is told every change of what the endpoint says. Raises ServiceError, StillRunningError.
    """
    endpoint = project.deploy(model, spec, backend=backend)
    serving, is_service = project.serving(backend), project.places.is_service(backend)
    return wait_until_ready(
        serving,
        endpoint.ref,
        go_on=(lambda: serving.deploy(model.ref, spec)) if is_service else None,
        model=str(model.ref) if is_service else "",
        watch=_Teller(tell) if is_service else None,
        timeout_s=SERVICE_TIMEOUT_S if is_service else LOCAL_TIMEOUT_S,
        poll_s=SERVICE_POLL_S if is_service else LOCAL_POLL_S,
    )


class _Teller:
    """Tells what an endpoint says, once for each time that it says something else."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = ""

    def __call__(self, status: EndpointStatus) -> None:
        message = status.message.partition(_BY_HAND)[0].rstrip(".")
        words = f": {message}" if message else ""
        text = f"Endpoint {status.ref.name} is {status.state}{words}."
        if text != self._told:
            self._told = text
            self._tell(text)


def bill_words(endpoint: EndpointStatus) -> str:
    """What an endpoint costs, until when, and what ends it, in a sentence or two."""
    name, end = endpoint.ref.name, _clock_time(endpoint.expires_at)
    if endpoint.billing is Billing.FREE:
        return f"Endpoint {name} runs on this machine until {end} and costs nothing."
    cost = f" {endpoint.cost.rstrip('.')}." if endpoint.cost else ""
    bills = "bills" if endpoint.billing is Billing.BILLING else "may bill (whether it does is unknown)"
    if endpoint.expires_at is None:
        return f"Endpoint {name} {bills} until it is deleted.{cost}"
    reaped = "" if "maas reap" in cost else ", and `maas reap` deletes it then"
    return f"Endpoint {name} {bills} until it is deleted; its time is over at {end}{reaped}.{cost}"


def _clock_time(at: float | None) -> str:
    """`18:30`, with the day where that is not today."""
    if at is None:
        return "it is deleted"
    then = time.localtime(at)
    is_today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M" if is_today else "%H:%M on %Y-%m-%d", then)


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


def _ask(project: Project, endpoint: EndpointStatus, sample: Mapping[str, Any]) -> Answer:
    from maas_client.chat import open_chat

    access = project.endpoint_access(str(endpoint.ref))
    chat = open_chat(access.url, access.key, access.model, speaks=access.speaks)
    asked = sample.get("messages") or [{"role": "user", "content": str(sample["prompt"])}]
    return chat.complete(asked, max_tokens=64)
