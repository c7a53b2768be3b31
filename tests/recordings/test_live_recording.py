"""`make record LIVE=1` as it would run: .env names an Azure with telling names, and nothing of it is kept."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from maas_client.simulator import Simulator
from maas_client.simulator.world import Names, Timing
from tests.recordings.journeys import JOURNEYS
from tests.recordings.play import AZURE, CERTIFICATES, play
from tests.recordings.scrubbing import leaks

ROOT = Path(__file__).parents[2]
NAMES = Names(
    subscription="7a1bc3d4-1111-4abc-8def-0123456789ab",
    resource_group="contoso-research-rg",
    workspace="contoso-ws",
    tenant="9f8e7d6c-2222-4abc-8def-0123456789ab",
    foundry="contoso-foundry",
)
IN_DOTENV = ("ARM_CLOUD_METADATA_URL", "AZURE_OPENAI_ENDPOINT", "AZURE_LOCATION", "AZURE_TENANT_ID")
IN_DOTENV += ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME")


@pytest.mark.slow
def test_a_live_recording_keeps_nothing_of_the_azure_that_dotenv_names(tmp_path: Path) -> None:
    with Simulator(speed=60, timing=Timing(tuning_steps=0), names=NAMES) as azure:
        lines = [f"{name}={shlex.quote(azure.environment[name])}" for name in IN_DOTENV]
        (tmp_path / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
        bare = {name: value for name, value in os.environ.items() if not name.startswith(AZURE)}
        signs_in = ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "NO_PROXY", "no_proxy", *CERTIFICATES)
        environment = {**bare, **{name: azure.environment[name] for name in signs_in}}
        words = [sys.executable, "-m", "tests.recordings.record", "azureml", "--live", "--pace", "0.25"]
        done = subprocess.run(
            [*words, "--into", str(tmp_path)],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'jobs'}"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        private = [*vars(NAMES).values(), *azure.environment["IDENTITY_HEADER"].split()]
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("*.yaml")] == ["azureml.live.yaml"]
    text = (tmp_path / "azureml.live.yaml").read_text(encoding="utf-8")
    private = [name for name in private if name not in {NAMES.location, NAMES.workspace_kind}]
    assert leaks(text, private) == []
    assert yaml.safe_load(text)["metadata"]["cloud"] == "MaasSimulator"
    assert "/resourceGroups/resource-group/" in text
    play(JOURNEYS["azureml"], tmp_path / "azureml.live.yaml")
