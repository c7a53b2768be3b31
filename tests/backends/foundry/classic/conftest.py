"""A workspace in memory for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.inprocess import make_world

pytest.register_assert_rewrite("tests.backends.foundry.classic.room")

from tests.backends.foundry.classic.room import Room  # noqa: E402  after its asserts are made to speak


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A hub-based project whose jobs wait for ever: nothing is trained."""
    world = make_world(tmp_path, kind="Project")
    yield Room(world, tmp_path)
    world.runner.stop()
