"""What a plan needs of its workspace, so that no step of it fails for want of a right or of machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maas_client.backends.azureml.clusters import check_cluster
from maas_client.backends.azureml.online import Online
from maas_client.backends.azureml.wire import shape_of
from maas_client.backends.endpointname import judge_name
from maas_client.check import Check
from maas_client.workspace.checks import Machines, Needs, Question, ask_all, check_needs
from maas_client.workspace.rights import (
    MAKE_CLUSTERS,
    REGISTER_MODELS,
    RUN_JOBS,
    SEND_CODE,
    SERVE_ONLINE,
    Right,
)

if TYPE_CHECKING:
    from maas_client.plan import Plan
    from maas_client.workspace.session import Workspace


def check_plan(workspace: Workspace, plan: Plan) -> tuple[Check, ...]:
    """Everything that can be asked before the first step. Reads only."""
    checks = check_needs(workspace, needs_of(plan))
    if "facts" not in vars(workspace):  # nobody could be asked
        return checks
    questions: dict[str, Question] = {}
    if plan.spec.compute.name is not None:
        name = f"Cluster {plan.spec.compute.name}"
        questions[name] = lambda: [check_cluster(workspace, plan.spec.compute)]
    if plan.spec.deploy is not None:
        questions["Endpoint"] = lambda: [check_endpoint(workspace, plan)]
    return (*checks, *ask_all(questions))


def check_endpoint(workspace: Workspace, plan: Plan) -> Check:
    """Whether the endpoint's name is free in the workspace, or is the one of this model."""
    there = Online(workspace).endpoint(plan.spec.deploy.name) if plan.spec.deploy else None
    return judge_name(plan, None if there is None or there.is_going else there.model)


def needs_of(plan: Plan) -> Needs:
    """The needs of every step, the endpoint's too."""
    return Needs(rights=tuple(_rights(plan)), machines=tuple(_machines(plan)), pulls_image=True)


def _rights(plan: Plan) -> Iterator[Right]:
    yield from (*RUN_JOBS, *SEND_CODE)
    if plan.spec.compute.name and plan.spec.compute.size:
        yield from MAKE_CLUSTERS
    if plan.spec.register_as is not None:
        yield from REGISTER_MODELS
    if plan.spec.deploy is not None:
        yield from SERVE_ONLINE


def _machines(plan: Plan) -> Iterator[Machines]:
    compute, deploy = plan.spec.compute, plan.spec.deploy
    if compute.size:
        yield Machines(compute.size, shape_of(plan)[1], "low" if compute.priority == "low" else "dedicated")
    if deploy is not None and deploy.size:
        yield Machines(deploy.size, deploy.instances, "endpoint")
