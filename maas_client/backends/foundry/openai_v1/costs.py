"""What the openai route costs, as far as anybody published it; unknown is said as unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maas_client.catalog import price

if TYPE_CHECKING:
    from maas_client.spec import DeploySpec, JobSpec

DEVELOPER = "developertier"
DEVELOPER_HOURS = 24


def cost(spec: JobSpec, sku: str) -> str:
    """What training and, where the job file asks for one, the deployment cost."""
    found = price("foundry-openai-training")
    rate = (
        f"${found.usd_per_hour:g} an hour ({found.source})"
        if found
        else "the price is unknown, no source tells it"
    )
    said = [f"Training bills by token and epoch: {rate}."]
    if spec.deploy is not None:
        said.append(serving_cost(spec.deploy, sku))
    return " ".join(said)


def serving_cost(spec: DeploySpec, sku: str) -> str:
    """What a deployment costs, and how it ends."""
    end = f"After {spec.ttl} its time is over, but only `maas reap` deletes it."
    if sku.lower() == DEVELOPER:
        end = f"Azure deletes it after {DEVELOPER_HOURS} h; `maas reap` does so after {spec.ttl}."
    return f"{hosting_cost(sku)} {end}"


def hosting_cost(sku: str) -> str:
    """What a deployment costs while it is there."""
    if sku.lower() == DEVELOPER:
        found = price("foundry-developer-hosting")
        source = f" ({found.source})" if found else ""
        return f"The deployment has no hourly fee{source} and bills by token: that price is unknown."
    found = price("foundry-hosting")
    rate = (
        f"about ${found.usd_per_hour:.2f} an hour, an example, not a quote ({found.source})"
        if found
        else "the price is unknown, no source tells it"
    )
    return f"The deployment bills by the hour, even while nobody asks it, and by token: {rate}."
