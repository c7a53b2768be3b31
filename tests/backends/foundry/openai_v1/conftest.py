"""A world in which fine-tuning jobs only pretend and nothing takes long, and a stage in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.simulator.world import World
from tests.backends.foundry.openai_v1.stage import Stage
from tests.simulator.inprocess import make_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path / "azure")
    made.timing.tuning_steps = 0
    made.timing.queue_s = made.timing.reading_s = made.timing.finalizing_s = 0.0
    made.timing.page_size = 50
    made.clock.change_speed(1000)
    yield made
    made.tuner.stop()
    made.servers.stop()


@pytest.fixture
def stage(world: World, tmp_path: Path) -> Stage:
    return Stage(world, tmp_path / "home" / "foundry")
