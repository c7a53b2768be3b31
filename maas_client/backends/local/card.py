"""The card of a registered version: the script's own, with what the registry knows besides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from maas_client.bundled import tuning_module
from maas_client.catalog import lookup
from maas_client.model import RegisteredModel


def model_card(model: RegisteredModel, result: Mapping[str, Any]) -> str:
    """The card as Markdown, of a version and the result of the run that it came from."""
    lineage, known = model.lineage, lookup(model.lineage.base_model)
    made = datetime.fromtimestamp(model.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    told = {
        **result,
        **model.metrics,
        "adapter": model.adapter,
        "base_model": lineage.base_model,
        "base_license": known.license.value if known else result.get("base_license"),
        "task": lineage.task,
        "method": lineage.method,
        "hashes": lineage.hashes,
    }
    card: str = tuning_module("card").model_card(
        told,
        title=f"{model.ref.name}, version {model.ref.version}",
        facts={"Size": f"{model.size_bytes:,} bytes", "Run": lineage.run, "Made": made},
        use=f'    maas deploy {model.ref}\n    maas chat {model.ref.name} -m "..."',
    )
    return card
