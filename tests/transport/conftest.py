"""An environment without Azure variables, proxies or a login, for every test of the wire."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_azure_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = ("AZURE", "ARM_", "MSI_", "IDENTITY_", "FOUNDRY_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for name in list(os.environ):
        if name.upper().startswith(starts):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.chdir(tmp_path)
