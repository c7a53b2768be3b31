"""Start and end: nothing is left behind, whoever ends it; state is kept where it was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from maas_client.simulator import Simulator

pytestmark = pytest.mark.slow
COMMAND = "import typer; from maas_client.cli.simulate import simulate; typer.run(simulate)"


Start = Callable[..., tuple[subprocess.Popen[str], dict[str, str]]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `maas simulate`; what is still there after the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(env: Path, *words: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
        started.append(launch(env, *words))
        return started[-1], variables_of(started[-1], env)

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def launch(env: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--env", str(env), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def variables_of(process: subprocess.Popen[str], env: Path) -> dict[str, str]:
    deadline = time.monotonic() + 60
    while not (env.exists() and "SIMULATOR_KEY" in env.read_text()):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    script = f"set -a; . {env}; env"
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={}, check=True).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def every_process() -> list[psutil.Process]:
    return list(psutil.process_iter(["cmdline"]))


def test_the_command_prints_its_variables_and_ends_with_a_bill(start: Start, tmp_path: Path) -> None:
    process, variables = start(tmp_path / "azure.env")
    assert (tmp_path / "azure.env").stat().st_mode & 0o077 == 0
    url = f"{variables['MAAS_SIMULATOR_URL']}/discovery"
    assert httpx.get(url, verify=variables["REQUESTS_CA_BUNDLE"]).status_code == 200
    children = family(process.pid)
    assert children
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "What Azure would have charged" in said
    assert not any(each.is_running() for each in children)
    assert not (tmp_path / "azure.env").exists()


def test_killed_outright_it_leaves_no_process(start: Start, tmp_path: Path) -> None:
    process, variables = start(tmp_path / "azure.env", "--http", "--speed", "1000")
    job = {
        "properties": {
            "jobType": "Command",
            "command": "sleep 400",
            "environmentId": "azureml://registries/azureml/environments/some/versions/1",
            "resources": {"instanceType": "Standard_DS3_v2"},
        }
    }
    base = variables["MAAS_SIMULATOR_URL"]
    headers = {"X-IDENTITY-HEADER": variables["IDENTITY_HEADER"]}
    token = httpx.get(variables["IDENTITY_ENDPOINT"], params={"resource": base}, headers=headers).json()
    path = (
        f"{base}/subscriptions/{variables['AZURE_SUBSCRIPTION_ID']}/resourceGroups/{variables['AZURE_RESOURCE_GROUP']}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{variables['AZUREML_WORKSPACE_NAME']}"
        "/jobs/sleeper?api-version=2024-10-01-preview"
    )
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    assert httpx.put(path, json=job, headers=bearer).status_code == 201
    deadline = time.monotonic() + 60
    while httpx.get(path, headers=bearer).json()["properties"]["status"] != "Running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while not (sleepers := [each for each in every_process() if each.info["cmdline"] == ["sleep", "400"]]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    others = family(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    gone, alive = psutil.wait_procs([*others, *sleepers], timeout=20)
    assert not alive
    assert gone


def test_state_is_there_again_after_a_restart(tmp_path: Path) -> None:
    with Simulator(folder=tmp_path / "kept", tls=False) as azure:
        model: dict[str, Any] = {
            "id": f"{azure.world.names.workspace_id}/models/m/versions/1",
            "properties": {},
        }
        azure.world.store.put(model["id"], model)
        azure.world.storage.append("azureml", "kept.txt", b"kept")
        azure.world.runner.scripted.plant({"count": 1})
    with Simulator(folder=tmp_path / "kept", tls=False) as azure:
        assert azure.world.store.get(model["id"]) == model
        assert (
            azure.world.storage.client.get_blob_client("azureml", "kept.txt").download_blob().readall()
            == b"kept"
        )
        assert azure.world.store.get(f"{azure.world.names.workspace_id}/jobs/scripted-0") is not None


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    from maas_client.errors import UnavailableError
    from maas_client.simulator.server import _listen

    taken = _listen(0)
    with taken, pytest.raises(UnavailableError, match="cannot be used"):
        Simulator(port=taken.getsockname()[1], folder=tmp_path).start()
