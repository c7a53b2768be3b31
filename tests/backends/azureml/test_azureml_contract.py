"""The azureml backend keeps the contract, on jobs that really run in a simulator."""

from __future__ import annotations

import pytest

from tests.contract import BackendContract, RegistryContract

pytestmark = pytest.mark.slow


class TestAzuremlJobs(BackendContract):
    """Runs."""


class TestAzuremlModels(RegistryContract):
    """Models."""
