"""What a plan needs of its workspace, so that no step of it fails for want of a right or of machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maas_client.backends.azureml.clusters import check_cluster
from maas_client.backends.azureml.wire import shape_of
from maas_client.check import Check
from maas_client.workspace.checks import Machines, Needs, ask_all, check_needs
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
    if plan.spec.compute.name is None or "facts" not in vars(workspace):  # nobody could be asked
        return checks
    name = f"Cluster {plan.spec.compute.name}"
    return (*checks, *ask_all({name: lambda: [check_cluster(workspace, plan.spec.compute)]}))


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
