"""Fixtures of the backend tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract", "tests.backends.local_stage")

from tests.backends.local_stage import LocalStage  # noqa: E402  after its asserts are made to speak


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[LocalStage]:
    """The local platform in an empty home; afterwards no process that it started may be left."""
    stage = LocalStage(tmp_path)
    yield stage
    stage.stop_all()
