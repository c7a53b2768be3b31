"""Whether the name of a plan's endpoint can be had: asked before the training that it would come after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maas_client.check import Check

if TYPE_CHECKING:
    from maas_client.plan import Plan

_HINT = "Set deploy.name to another."


def judge_name(plan: Plan, served: str | None, *, detail: str = "", other: str = "something else") -> Check:
    """The Check for the name of the plan's endpoint.

    `served` is the model behind that name, written name:version; "" where maas did not make it, None where
    the name is free. `detail` goes on after "free"; `other` is what serves there where no model of maas does.
    """
    spec = plan.spec.deploy
    assert spec is not None  # noqa: S101  asked only then
    if served is None:
        return Check("Endpoint", True, f"the name {spec.name} is free{detail}")
    wanted = plan.spec.register_as.name if plan.spec.register_as else plan.spec.name
    if served.rpartition(":")[0] == wanted:
        return Check("Endpoint", True, f"{spec.name} serves {served}, and will serve the new version")
    return Check("Endpoint", False, f"the name {spec.name} is taken: it serves {served or other}", _HINT)
