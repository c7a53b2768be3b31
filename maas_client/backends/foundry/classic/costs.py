"""What the classic route costs, as far as anybody published it; unknown is said as unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maas_client.catalog import price

if TYPE_CHECKING:
    from maas_client.spec import DeploySpec, JobSpec


def cost(spec: JobSpec) -> str:
    """What training and the endpoint cost."""
    said = [_training_cost(spec)]
    if spec.deploy is not None:
        said.append(serving_cost(spec.deploy))
    return " ".join(said)


def serving_cost(spec: DeploySpec) -> str:
    """What an endpoint costs, and how it ends."""
    return f"{hosting_cost()} After {spec.ttl} its time is over, but only `maas reap` deletes it."


def hosting_cost() -> str:
    """What a serverless endpoint costs while it is there."""
    rate = _rate("foundry-classic-hosting")
    return f"The endpoint bills by the hour, even while nobody asks it, and by token: {rate}."


def _training_cost(spec: JobSpec) -> str:
    if spec.compute.name:
        return f"Training bills the machines of cluster {spec.compute.name} for as long as it runs."
    if spec.compute.size:
        return f"Training bills {spec.compute.size} for as long as it runs: {_rate(spec.compute.size)}."
    return f"Training bills by token and epoch: {_rate('foundry-classic-training')}."


def _rate(name: str) -> str:
    found = price(name)
    return (
        f"${found.usd_per_hour:g} an hour ({found.source})"
        if found
        else "the price is unknown, no source tells it"
    )
