"""A small Azure on loopback: ARM, run history, storage and inference, where jobs really run.

with Simulator() as azure:
    os.environ.update(azure.environment)   # the real Azure packages now talk to it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maas_client.simulator.server import Simulator

__all__ = ["Simulator"]


def __getattr__(name: str) -> Any:
    """Load the server when it is asked for: looking at the package costs nothing."""
    if name == "Simulator":
        from maas_client.simulator.server import Simulator

        return Simulator
    raise AttributeError(name)
