"""The local backend keeps the contract."""

from __future__ import annotations

from tests.contract import BackendContract, RegistryContract, ServingContract


class TestLocalJobs(BackendContract):
    """Runs."""


class TestLocalModels(RegistryContract):
    """Models."""


class TestLocalEndpoints(ServingContract):
    """Endpoints."""
