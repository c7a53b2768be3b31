"""What a job file says that a FineTuning job cannot carry, so that nobody believes that it was done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel

    from maas_client.spec import JobSpec

_SENT = {
    "data": {"train", "validation"},
    "training": {"epochs", "batch_size", "learning_rate", "seed", "objective"},
    "compute": {"name", "size", "priority"},
    "foundry": {"route"},
    "deploy": {"name", "ttl", "location"},
}
"""What of each part is sent, or used here: the seed chooses the held-out rows."""


def left_out(spec: JobSpec) -> Iterator[str]:
    """Sentences about the keys of the job file that are not sent; only about keys that it really has."""
    keys = [
        key
        for part in ("data", "method", "training", "evaluation", "distributed", "compute", "foundry")
        for key in _unsent(spec, part)
    ]
    if keys:
        yield (
            "A FineTuning job takes epochs, batch size and learning rate and decides the rest itself; "
            f"not sent: {', '.join(keys)}."
        )
    if deploying := list(_unsent(spec, "deploy")):
        yield f"A serverless endpoint has no machines of its own; not sent: {', '.join(deploying)}."
    yield (
        "The service measures the loss while it trains and nothing before and after; "
        "ask the endpoint to see what was learned."
    )


def _unsent(spec: JobSpec, part: str) -> Iterator[str]:
    section: BaseModel | None = getattr(spec, part)
    if section is None:
        return
    for key in type(section).model_fields:
        if key in section.model_fields_set and key not in _SENT.get(part, set()):
            yield f"{part}.{key}"
    if part == "compute" and spec.compute.priority == "low" and (spec.compute.name or not spec.compute.size):
        yield "compute.priority (it needs compute.size, and no name)"
    if part == "compute" and spec.compute.name and spec.compute.size:
        yield "compute.size (the cluster has its own)"
