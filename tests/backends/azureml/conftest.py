"""A simulator for each module, and a workspace of its own in it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.simulator import Simulator
from maas_client.simulator.world import Timing

pytest.register_assert_rewrite("tests.backends.azureml.stage")

from tests.backends.azureml.stage import AzuremlStage  # noqa: E402  after its asserts are made to speak


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    """A whole simulator with a fast clock, and this process pointed at it."""
    timing = Timing(provisioning_s=60, queue_s=30, finalizing_s=5, parallel_jobs=4)
    with Simulator(speed=600, timing=timing) as running, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def stage(azure: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzuremlStage]:
    """A workspace of its own. Faults are cleared and what still runs is canceled afterwards."""
    stage = AzuremlStage(azure, tmp_path, monkeypatch)
    yield stage
    azure.world.faults.clear()
    for job in azure.world.store.members(f"{stage.target.path}/jobs"):
        azure.world.runner.cancel(job)
