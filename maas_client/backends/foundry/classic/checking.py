"""What a plan of the classic route needs: rights for every step, a region, a model in its registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maas_client.backends.endpointname import judge_name
from maas_client.backends.foundry.classic.machines import is_managed
from maas_client.backends.foundry.classic.marketplace import needs_subscription
from maas_client.backends.foundry.classic.planning import CATALOG_ROUTE
from maas_client.backends.foundry.classic.wire import TAG_MODEL
from maas_client.backends.foundry.planned import config_of
from maas_client.catalog import lookup
from maas_client.check import Check
from maas_client.errors import NotFoundError
from maas_client.transport.members import text_at
from maas_client.workspace.checks import Machines, Needs, ask_all, check_needs
from maas_client.workspace.registries import find_registry_model
from maas_client.workspace.rights import (
    REGISTER_MODELS,
    RUN_JOBS,
    SERVE_SERVERLESS,
    SUBSCRIBE_MODELS,
    Right,
)

if TYPE_CHECKING:
    from maas_client.plan import Plan
    from maas_client.workspace.session import Workspace


def check_plan(workspace: Workspace, plan: Plan) -> tuple[Check, ...]:
    """Ask about every step, the endpoint's too, and about the model in its registry. Reads only."""
    found = check_needs(workspace, needs_of(plan))
    if "facts" not in vars(workspace):
        return found
    questions = {"Model": lambda: check_model(workspace, str(config_of(plan)["model"]))}
    if plan.spec.compute.name:
        name = plan.spec.compute.name
        questions["Cluster"] = lambda: check_cluster(workspace, name)
    if plan.spec.deploy:
        endpoint = plan.spec.deploy.name
        questions["Endpoint"] = lambda: check_endpoint(workspace, plan, endpoint)
    return (*found, *ask_all(questions))


def needs_of(plan: Plan) -> Needs:
    """The needs of every step. Machines of the subscription are asked for where the job runs on them; the
    region of the model is where it runs on the service's own.
    """
    spec = plan.spec
    location = spec.deploy.location if spec.deploy else None
    if is_managed(spec):
        return Needs(rights=tuple(_rights(plan)), machines=tuple(_machines(plan)))
    return Needs(rights=tuple(_rights(plan)), region=(spec.model, CATALOG_ROUTE), endpoint_region=location)


def _machines(plan: Plan) -> Iterator[Machines]:
    compute = plan.spec.compute
    if compute.size and not compute.name:
        yield Machines(compute.size, 1, "low" if compute.priority == "low" else "dedicated")


def _rights(plan: Plan) -> Iterator[Right]:
    yield from RUN_JOBS
    if plan.spec.register_as is not None:
        yield from REGISTER_MODELS
    if plan.spec.deploy is not None:
        yield from SERVE_SERVERLESS
        model = lookup(plan.spec.model)
        if model is not None and needs_subscription(model):
            yield from SUBSCRIBE_MODELS


def check_model(workspace: Workspace, model_id: str) -> tuple[Check, ...]:
    """Whether the registry has the model, and which version would be taken."""
    try:
        found = find_registry_model(workspace, model_id)
    except NotFoundError as error:
        return (Check("Model", False, error.message, error.hint),)
    return (Check("Model", True, found.id),)


def check_endpoint(workspace: Workspace, plan: Plan, name: str) -> tuple[Check, ...]:
    """Whether the endpoint's name is free in the workspace, or is the one of this model."""
    try:
        body = workspace.arm.get(
            workspace.path("serverlessEndpoints", name),
            params={"api-version": "2024-10-01"},
            operation=f"get endpoint {name}",
        ).mapping
    except NotFoundError:
        return (judge_name(plan, None),)
    return (judge_name(plan, text_at(body, "tags", TAG_MODEL)),)


def check_cluster(workspace: Workspace, name: str) -> tuple[Check, ...]:
    """Whether the cluster that the job names is there: a FineTuning job makes none."""
    try:
        workspace.arm.get(
            workspace.path("computes", name),
            params={"api-version": "2024-10-01"},
            operation=f"look at cluster {name}",
        )
    except NotFoundError:
        hint = (
            "Name one that is there, or leave out compute.name: compute.size alone takes machines by itself."
        )
        return (Check("Cluster", False, f"there is no cluster {name}", hint),)
    return (Check("Cluster", True, name),)
